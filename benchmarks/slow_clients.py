"""Clients that say half of something, and a byte now and then: a program beside `abuse.py`.

    python benchmarks/slow_clients.py URL --heads 300 --bodies 150 --waves 3 [--key KEY]

They are a process of their own, so that what they cost themselves is no time of the good caller's.
In each wave all of them connect at once, and the next begins when the last one is closed. Prints
JSON: the seconds that each connection was open, and how many were closed before they said a word.
"""

import argparse
import asyncio
import contextlib
import time

import httpx
import msgspec

DRIP_EVERY = 0.5
_LONGEST = 60.0


class Closed(msgspec.Struct):
    """Seconds that connections were open."""

    heads: list[float] = []
    bodies: list[float] = []
    turned_away: int = 0


class Slow:
    """Slow clients of one service."""

    def __init__(self, url: str, key: str | None) -> None:
        self._place = httpx.URL(url)
        who = "" if key is None else f"authorization: Bearer {key}\r\n"
        head = f"POST /v1/acquire HTTP/1.1\r\nhost: x\r\n{who}"
        self._head = head.encode()
        self._body = f'{head}content-length: 5000\r\n\r\n{{"resource": "'.encode()
        self.closed = Closed()

    async def wave(self, heads: int, bodies: int) -> None:
        """So many of each at once, until all are closed."""
        await asyncio.gather(
            *(self._drip(self._head, self.closed.heads) for _ in range(heads)),
            *(self._drip(self._body, self.closed.bodies) for _ in range(bodies)),
        )

    async def _drip(self, first: bytes, times: list[float]) -> None:
        try:
            reader, writer = await asyncio.open_connection(self._place.host, self._place.port)
        except OSError:
            self.closed.turned_away += 1
            return
        began = time.perf_counter()
        ending = asyncio.create_task(_until_closed(reader))
        writer.write(first)
        while not ending.done() and time.perf_counter() < began + _LONGEST:
            await asyncio.wait({ending}, timeout=DRIP_EVERY)
            writer.write(b"x")
        times.append(time.perf_counter() - began)
        writer.transport.abort()
        await ending


async def _until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(65_536):
            pass


async def _waves(slow: Slow, count: int, heads: int, bodies: int) -> None:
    for _ in range(count):
        await slow.wave(heads, bodies)


def main() -> None:
    """Send the waves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--heads", type=int, default=300)
    parser.add_argument("--bodies", type=int, default=150)
    parser.add_argument("--waves", type=int, default=1)
    parser.add_argument("--key")
    given = parser.parse_args()
    slow = Slow(given.url, given.key)
    asyncio.run(_waves(slow, given.waves, given.heads, given.bodies))
    print(msgspec.json.encode(slow.closed).decode())


if __name__ == "__main__":
    main()
