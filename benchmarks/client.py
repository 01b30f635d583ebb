"""What a call costs its caller: CPU of the client alone, against a service that answers at once.

    python benchmarks/client.py [--rounds 7] [--seconds 1] [--against CHECKOUT] [--json FILE]

The service is an ASGI application under uvicorn that grants everything and decides nothing, in a
process of its own, so that what is counted is the SDK, its sockets and its event loop, and a
message holds as many operations as callers have brought. `--against` names another checkout, whose
SDK runs by turns with this one: take the ratios, which are formed within one round.

With `--only` one way is measured in this process, for a profiler to look at.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from harness import Report, free_port
from versus.contestant import closed, cpu

from limiter_wire import Granted, LimitState, Meter, Settled

HERE = Path(__file__).parent
WAYS = ("channel", "channel, settled", "batches", "batches, settled")
WIDTHS = (1, 64, 512)
US = 1e6

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# The service


def _fields(body: msgspec.Struct) -> dict[str, object]:
    fields = msgspec.structs.asdict(body)
    return {name: value for name, value in fields.items() if value is not msgspec.UNSET}


LIMITS = [
    LimitState(name=f"m1.{name}", meter=meter, limit=1e9, remaining=1e9 - 100, reset_after=1.25)
    for name, meter in (("rpm", Meter.REQUESTS), ("tpm", Meter.TOKENS), ("rpd", Meter.REQUESTS))
]
GRANT = _fields(
    Granted(
        lease=f"bench.m1.{'a' * 60}",
        expires_in=600.0,
        charged={Meter.REQUESTS: 1.0, Meter.TOKENS: 100.0},
        limits=LIMITS,
    )
)
SETTLE = _fields(Settled(refunded={Meter.TOKENS: 20.0}))


def answer(op: dict[str, Any]) -> dict[str, object]:
    """What an operation is told."""
    return GRANT if op.get("op", "acquire") == "acquire" else SETTLE


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Grant everything."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            ops = msgspec.msgpack.decode(message["bytes"])
            told = [{"id": op["id"], "status": 200, **answer(op)} for op in ops]
            await send({"type": "websocket.send", "bytes": msgspec.msgpack.encode(told)})
    elif scope["type"] == "http":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        asked = msgspec.msgpack.decode(body)
        told = answer({"op": scope["path"].rpartition("/")[2]})
        if scope["path"] == "/v1/batch":
            told = {"results": [{"status": 200, "body": answer(op)} for op in asked["ops"]]}
        headers = [(b"content-type", b"application/msgpack")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": msgspec.msgpack.encode(told)})


def serve(port: int) -> None:
    """Answer until the process is ended."""
    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="critical",
        access_log=False,
    )


@contextlib.contextmanager
def service() -> Iterator[str]:
    """The service in a process of its own: where it listens."""
    port = free_port()
    command = [sys.executable, __file__, "--serve", str(port)]
    with subprocess.Popen(command) as process:
        try:
            while not _listens(port):
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


# The callers


@contextlib.contextmanager
def caller(way: str, url: str, checkout: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that calls with the SDK of *checkout*, when its stdin says so."""
    command = [sys.executable, str(HERE / "versus/contestant.py"), "ours", way, url]
    whole = os.environ | {"PYTHONPATH": str(checkout)}  # noqa: TID251  # to be handed on, not read
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=whole
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.stdin.close()


def run(process: "subprocess.Popen[str]", width: int, seconds: float) -> tuple[float, float]:
    """One run: microseconds of CPU for each call, and milliseconds of its median."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"width": width, "seconds": seconds}) + "\n")
    process.stdin.flush()
    found = json.loads(process.stdout.readline().removeprefix("=>"))
    return found["cpu"] / max(1, found["count"]) * US, found["p50"] * 1000


def compare(url: str, checkouts: list[Path], asked: argparse.Namespace, report: Report) -> None:
    """Print a row for each way and width."""
    found: dict[tuple[str, int], list[list[tuple[float, float]]]] = {
        (way, width): [] for way in WAYS for width in WIDTHS
    }
    with contextlib.ExitStack() as stack:
        callers = {
            way: [stack.enter_context(caller(way, url, checkout)) for checkout in checkouts]
            for way in WAYS
        }
        for _ in range(asked.rounds):
            for (way, width), samples in found.items():
                samples.append([run(each, width, asked.seconds) for each in callers[way]])
    rows = []
    for (way, width), samples in found.items():
        mine = [sample[0] for sample in samples]
        row: dict[str, float | int | str] = {"": way, "callers": width}
        row["CPU us, least"] = min(us for us, _ in mine)
        row["median"] = statistics.median(us for us, _ in mine)
        row["p50 ms"] = min(ms for _, ms in mine)
        if len(checkouts) > 1:
            ratios = sorted(sample[1][0] / sample[0][0] for sample in samples)
            row["other, least"] = min(sample[1][0] for sample in samples)
            row["other p50 ms"] = min(sample[1][1] for sample in samples)
            row["other / this"] = (
                f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
            )
        rows.append(row)
    report.table("CPU of the client for each call", rows)


async def alone(url: str, way: str, width: int, seconds: float) -> None:
    """One way in this process."""
    sys.path.insert(0, str(HERE / "versus"))
    from ours import CONTESTANTS  # type: ignore[import-not-found]  # noqa: PLC0415  # beside contestants

    async with CONTESTANTS[way](url) as call:
        await closed(call, width, 0.2)
        before = cpu()
        count = await closed(call, width, seconds)
        print(f"{way}, {width}: {(cpu() - before) / len(count.latencies) * US:.2f} us")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another SDK, by turns")
    parser.add_argument("--only", choices=WAYS, help="one way, in this process")
    parser.add_argument("--width", type=int, default=64, help="callers of --only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve)
        return
    report = Report(asked.json)
    with service() as url:
        if asked.only:
            asyncio.run(alone(url, asked.only, asked.width, asked.seconds))
        else:
            checkouts = [HERE.parent, *([asked.against] if asked.against else [])]
            compare(url, checkouts, asked, report)
    report.close()


if __name__ == "__main__":
    main()
