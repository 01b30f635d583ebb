"""Requests that nobody should send, and how a service answers them.

Everything is drawn from a seeded generator, so that what was found can be sent again.
"""

import asyncio
import base64
import contextlib
import json
import random
import string
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

PATIENCE = 20.0
"""Seconds until a request that is whole must have been answered, or its connection closed."""

ALLOWED = {"breaker_open", "cooldown", "latched", "store_unavailable", "shutting_down"}
"""The codes of the documented 503s."""

MSGPACK = "application/msgpack"


class Bad(msgspec.Struct, frozen=True, kw_only=True):
    """One request, byte for byte. *ends*: nothing more comes after it, so its connection is half
    closed; *talks*: it is a handshake, and frames come after its answer.
    """

    kind: str
    raw: bytes
    ends: bool = False
    frames: bytes = b""


class Answer(msgspec.Struct, frozen=True):
    """What came back: 0 is a connection that was closed without an answer."""

    status: int
    body: bytes = b""
    stuck: bool = False

    @property
    def is_failure(self) -> bool:
        """Whether the service has failed: any 5xx but the documented ones, or no end at all."""
        if self.stuck:
            return True
        if self.status != 503:
            return self.status >= 500
        for decode in (msgspec.json.decode, msgspec.msgpack.decode):
            with contextlib.suppress(msgspec.DecodeError, AttributeError):
                return decode(self.body).get("code") not in ALLOWED
        return True


Draw = Callable[[random.Random], Any]


def _text(chance: random.Random) -> str:
    letters = string.printable + "\x00\x7f\u00e9\u202e\ufeff\U0001f600"
    return "".join(chance.choices(letters, k=chance.choice((0, 1, 7, 201, 3000))))


def _deep(chance: random.Random) -> Any:
    found: Any = 1
    for _ in range(chance.choice((10, 200, 900))):
        found = [found] if chance.random() < 0.5 else {"a": found}
    return found


def _number(chance: random.Random) -> Any:
    return chance.choice(
        (-1, 0, 2**31, 2**63, 2**64, 10**30, -(2**63), 1.5, 1e308, -0.0, 5e-324, True, 10**400)
    )


def _one_of(*values: Any) -> Draw:
    return lambda chance: chance.choice(values)


_VALUES: tuple[Draw, ...] = (
    _text,
    _deep,
    _number,
    _one_of(None, True, [], {}, "", " ", "\x00", [None], {"": {}}, [[]] * 50),
)

_GOOD: dict[str, dict[str, Any]] = {
    "/v1/acquire": {"resource": "bad/m", "tokens": 1, "tenant": "t", "request_id": "r"},
    "/v1/check": {"resource": "bad/m", "input_tokens": 5, "max_output_tokens": 5},
    "/v1/settle": {
        "lease": "AAAA",
        "outcome": "success",
        "usage": {"input_tokens": 1, "output_tokens": 2},
        "headers": {"x-ratelimit-remaining-tokens": "5"},
        "latency": 0.5,
    },
    "/v1/renew": {"lease": "AAAA", "ttl": 5, "usage": {"input_tokens": 1}},
    "/v1/observe": {"resource": "bad/m", "headers": {"retry-after": "1"}, "status": 429},
    "/v1/batch": {"ops": [{"op": "acquire", "resource": "bad/m", "tokens": 1}]},
}
_ORDINARY: dict[tuple[str, str], dict[str, Any]] = {
    ("PUT", "/v1/breakers/bad/m/override"): {"mode": "closed", "ttl": 5, "reason": "x"},
    ("PUT", "/v1/limits/bad/m/m.rpm/override"): {"limit": 5, "ttl": 5, "reason": "x"},
    ("POST", "/v1/keys"): {"name": "k", "roles": ["read"], "ttl": 5},
    ("PUT", "/v1/log-level"): {"level": "error", "replica": "nobody"},
    ("POST", "/v1/config/validate"): {"text": "pools: {p: {models: {m: {rpm: 1}}}}"},
    ("POST", "/v1/breakers/bad/m/reset"): {"reason": "x"},
}
_READ = (
    *("/", "/livez", "/readyz", "/metrics", "/openapi.json", "/v1/resources", "/v1/breakers"),
    *("/v1/config", "/v1/stats", "/v1/keys", "/v1/replicas", "/v1/queue/bad"),
    *("/v1/resources/bad/m", "/v1/breakers/bad/m", "/nowhere"),
)


class Generator:
    """Draws bad requests. *keys* are sent in turn; None sends no key. Without any no keys are
    made: the first one would end that everybody may do everything.
    """

    def __init__(self, seed: int, keys: tuple[str | None, ...] = (None,)) -> None:
        self._chance = random.Random(seed)
        self._keys = keys
        open_to_all = keys == (None,)
        self._admin = [
            each for each in _ORDINARY.items() if not (open_to_all and each[0][1] == "/v1/keys")
        ]
        self._kinds: tuple[Callable[[], Bad], ...] = (
            self._field,
            self._field,
            self._field,
            self._syntax,
            self._packed,
            self._packed,
            self._ordinary,
            self._path,
            self._headers,
            self._framing,
            self._no_http,
            self._handshake,
            self._frames,
            self._frames,
        )

    def __iter__(self) -> Iterator[Bad]:
        while True:
            yield self._chance.choice(self._kinds)()

    # What requests are made of

    def _head(self, method: str, path: str, *lines: str) -> bytes:
        key = self._chance.choice(self._keys)
        sent = [f"{method} {path} HTTP/1.1", "host: x", *lines]
        if key is not None:
            sent.append(f"authorization: Bearer {key}")
        return "\r\n".join([*sent, "", ""]).encode("latin-1", "replace")

    def _whole(self, kind: str, method: str, path: str, body: bytes, *lines: str) -> Bad:
        length = f"content-length: {len(body)}"
        return Bad(kind=kind, raw=self._head(method, path, length, *lines) + body)

    def _spoilt(self, good: dict[str, Any]) -> dict[str, Any]:
        """A body with something else in one of its places, and perhaps one place more or less."""
        chance, body = self._chance, json.loads(json.dumps(good))
        at, field = body, chance.choice(list(body))
        while isinstance(at[field], dict) and at[field] and chance.random() < 0.6:
            at, field = at[field], chance.choice(list(at[field]))
        at[field] = chance.choice(_VALUES)(chance)
        if chance.random() < 0.1:
            del body[chance.choice(list(body))]
        if chance.random() < 0.2:
            body[_text(chance)] = chance.choice(_VALUES)(chance)
        return body  # type: ignore[no-any-return]  # what was a dict

    # Kinds

    def _field(self) -> Bad:
        path = self._chance.choice(list(_GOOD))
        text = json.dumps(self._spoilt(_GOOD[path]), ensure_ascii=self._chance.random() < 0.5)
        return self._whole("field", "POST", path, text.encode("utf-8", "surrogatepass"))

    def _syntax(self) -> Bad:
        """JSON that is nearly JSON, or that parsers disagree about."""
        chance = self._chance
        path = chance.choice(list(_GOOD))
        whole = json.dumps(_GOOD[path]).encode()
        inside = whole[:-1]
        body = chance.choice(
            (
                inside,
                whole * 2,
                whole[: chance.randrange(len(whole))],
                inside + b', "tokens": NaN}',
                inside + b', "tokens": Infinity, "x": -Infinity}',
                inside + b', "tokens": 1e999}',
                inside + b', "tokens": 0x10}',
                inside + b', "tenant": "\\ud800"}',
                inside + b', "tenant": "\\udc00\\ud800"}',
                inside + b', "tenant": "\xff\xfe"}',
                inside + b', "tenant": "\xed\xa0\x80"}',
                inside + b', "tenant": "\xc0\x80"}',
                inside + b', "tokens": 1, "tokens": -1}',  # twice
                inside + b', "resource": 7, "resource": "bad/m"}',
                inside + b', "x": ' + b"[" * chance.choice((100, 20_000)) + b"}",
                inside + b', "x": "' + b"x" * chance.choice((60_000, 80_000)) + b'"}',
                inside + b', "x": ' + b"9" * 5000 + b"}",
                b"\xef\xbb\xbf" + whole,
                whole.decode().encode("utf-16"),
                b'{"a":' * 10_000,
                b"[" * 30_000,
                b"null",
                b"",
                bytes(chance.randbytes(chance.randrange(200))),
            )
        )
        return self._whole("syntax", "POST", path, body)

    def _packed(self) -> Bad:
        """msgpack with a few bytes that differ, and numbers that JSON does not have."""
        chance = self._chance
        path = chance.choice(list(_GOOD))
        good = dict(_GOOD[path])
        for _ in range(chance.randrange(3)):
            value = chance.choice((float("nan"), float("inf"), -float("inf"), -1, 2**63, b"\xff"))
            good[chance.choice([*good, "max_wait", "cost_usd", "ttl", "priority"])] = value
        body = bytearray(msgspec.msgpack.encode(good))
        for _ in range(chance.choice((0, 1, 1, 3))):
            body[chance.randrange(len(body))] = chance.randrange(256)
        if chance.random() < 0.2:
            body = body[: chance.randrange(len(body))]
        if chance.random() < 0.1:
            body += chance.choice((b"\xc1", b"\xdf\xff\xff\xff\xff", b"\x91" * 30_000, b"\xc7\xff"))
        accept = f"accept: {chance.choice((MSGPACK, 'application/json', '*/*', ''))}"
        return self._whole("msgpack", "POST", path, bytes(body), f"content-type: {MSGPACK}", accept)

    def _ordinary(self) -> Bad:
        chance = self._chance
        (method, path), good = chance.choice(self._admin)
        body = json.dumps(self._spoilt(good)).encode()
        if chance.random() < 0.2:
            body = body.replace(b"5", chance.choice((b"NaN", b"-Infinity", b'"\\ud800"', b"1e400")))
        media = chance.choice(("application/json", "text/plain", "application/json; charset=x", ""))
        return self._whole("admin", method, path, body, f"content-type: {media}")

    def _path(self) -> Bad:
        chance = self._chance
        path = chance.choice(_READ)
        spoilt = chance.choice(
            (
                *("%00", "%ff%fe", "%ED%A0%80", "/../../etc/passwd", "//", "/%2e%2e/", "%", "%zz"),
                *("?tenant=%00", "?since=NaN", "?since=1e999", "?since=-1", "?since=a&since=b"),
                *("?tenant=" + "x" * 5000, "?" + "a=b&" * 2000, ";x=1", "#x", "?", "\x7f", "\xe9"),
                *("/" + "a/" * 300, "{bad}", "%7Bbad%7D", "*", "\\"),
            )
        )
        method = chance.choice(("GET", "GET", "HEAD", "OPTIONS", "DELETE", "TRACE", "PATCH", "PUT"))
        return self._whole("path", method, path + spoilt, b"")

    def _headers(self) -> Bad:
        chance = self._chance
        lines = chance.choice(
            (
                [f"x-{n}: y" for n in range(chance.choice((50, 900, 3000)))],
                ["x-large: " + "x" * chance.choice((10_000, 20_000, 60_000))],
                ["x" * 20_000 + ": y"],
                [f"content-type: {_line(chance)}"],
                [f"idempotency-key: {_line(chance)}", "idempotency-key: b"],
                [f"x-request-id: {_line(chance)}"],
                [f"authorization: {_line(chance)}"],
                ["authorization: Bearer sg__", "authorization: Basic eDp5"],
                [f"accept: {_line(chance)}", "accept-encoding: br;q=x"],
                [f"x-forwarded-for: {_line(chance)}", "x-forwarded-proto: https, x"],
                [f"origin: http://{_line(chance)}"],
                [f"traceparent: {_line(chance)}"],
                ["host: y", "host: z"],
                ["connection: close, keep-alive, upgrade", "upgrade: h2c"],
                ["upgrade: websocket"],
                ["te: trailers", "trailer: authorization"],
                ["content-encoding: gzip"],
                ["cookie: " + "a=b;" * 2000],
                ["range: bytes=0-18446744073709551615"],
            )
        )
        path = chance.choice(list(_GOOD))
        return self._whole("headers", "POST", path, json.dumps(_GOOD[path]).encode(), *lines)

    def _framing(self) -> Bad:
        """Bodies that are not where they are said to be; what proxies disagree about."""
        chance = self._chance
        body = json.dumps(_GOOD["/v1/check"]).encode()
        size = b"%x\r\n" % len(body)
        chunked = "transfer-encoding: chunked"
        lines, sent, ends = chance.choice(
            (
                ((f"content-length: {len(body) + 50}",), body, True),
                ((f"content-length: {len(body) - 5}",), body, True),
                (("content-length: -1",), body, True),
                (("content-length: 18446744073709551616",), body, True),
                (("content-length: 99999999",), body, True),
                (("content-length: 1e3",), body, True),
                (("content-length: +5",), body, True),
                ((f"content-length: {len(body)}", "content-length: 7"), body, True),
                ((f"content-length: {len(body)}", chunked), size + body + b"\r\n0\r\n\r\n", True),
                ((chunked, chunked), size + body + b"\r\n0\r\n\r\n", True),
                (("transfer-encoding: xchunked",), size + body + b"\r\n0\r\n\r\n", True),
                (("transfer-encoding: chunked, identity",), size + body + b"\r\n0\r\n\r\n", True),
                (("transfer-encoding:\x0bchunked",), size + body + b"\r\n0\r\n\r\n", True),
                (("transfer-encoding : chunked",), size + body + b"\r\n0\r\n\r\n", True),
                ((chunked,), b"zz\r\n" + body, True),
                ((chunked,), b"-5\r\n" + body, True),
                ((chunked,), b"ffffffffffffffffff\r\n" + body, True),
                ((chunked,), size + body + b"0\r\n\r\n", True),
                ((chunked,), size[:-2] + b";x=" + b"y" * 9000 + b"\r\n" + body + b"\r\n", True),
                ((chunked,), size + body + b"\r\n0\r\nauthorization: x\r\n\r\n", True),
                ((chunked,), b"1\r\nx\r\n" * 3000, True),
                ((chunked,), (b"4000\r\n" + b"x" * 16_384 + b"\r\n") * 6, True),
                ((chunked,), size + body + b"\r\n0\r\n\r\nGET /v1/keys HTTP/1.1\r\n\r\n", True),
                ((), b"GET /admin HTTP/1.1\r\nhost: x\r\n\r\n", True),
                (("expect: 100-continue", f"content-length: {len(body)}"), body, False),
                (("expect: 200-maybe", f"content-length: {len(body)}"), body, False),
            )
        )
        return Bad(kind="framing", raw=self._head("POST", "/v1/check", *lines) + sent, ends=ends)

    def _no_http(self) -> Bad:
        chance = self._chance
        raw = chance.choice(
            (
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(300),
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET /\r\n\r\n",
                b"GET / HTTP/0.9\r\n\r\n",
                b"GET / HTTP/1.1\nhost: x\n\n",
                b"GET / HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
                b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
                b"GET / HTTP/1.1\r\nx\x00y: z\r\n\r\n",
                b"CONNECT x:80 HTTP/1.1\r\n\r\n",
                b"GET http://x:99999/ HTTP/1.1\r\n\r\n",
                b"GET \xff\xfe HTTP/1.1\r\n\r\n",
                b"\r\n" * 500,
                b"\x00" * 500,
                b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$1\r\ny\r\n",
                chance.randbytes(chance.randrange(1, 2000)),
                b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 500,
            )
        )
        return Bad(kind="no http", raw=raw, ends=True)

    def _handshake(self) -> Bad:
        chance = self._chance
        lines = chance.choice(
            (
                ("sec-websocket-version: 12", _NONCE),
                ("sec-websocket-version: 13", "sec-websocket-key: x"),
                ("sec-websocket-version: 13",),
                ("sec-websocket-version: 13", _NONCE, "origin: http://evil"),
                ("sec-websocket-version: 13", _NONCE, "sec-websocket-extensions: x; y=z"),
                ("sec-websocket-version: 13", _NONCE, "sec-websocket-protocol: " + "a," * 500),
                ("sec-websocket-version: 13", _NONCE, *(f"x-{n}: y" for n in range(200))),
                ("sec-websocket-version: 13", _NONCE, "x-large: " + "x" * 9000),
            )
        )
        path = chance.choice(("/v1/channel", "/v1/acquire", "/", "/v1/channel/x", "/v1/events"))
        raw = self._head("GET", path, "upgrade: websocket", "connection: upgrade", *lines)
        return Bad(kind="handshake", raw=raw, ends=True)

    def _frames(self) -> Bad:
        """A good handshake, and messages that are none."""
        lines = ("upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", _NONCE)
        sent = b"".join(self._frame() for _ in range(self._chance.randrange(1, 6)))
        raw = self._head("GET", "/v1/channel", *lines)
        return Bad(kind="channel", raw=raw, frames=sent)

    def _frame(self) -> bytes:
        chance = self._chance
        ops = ("acquire", "settle", "renew", "check", "observe", "cancel", "dance", "")
        body: Any = self._spoilt(
            _GOOD[chance.choice(list(_GOOD))] | {"id": 1, "op": chance.choice(ops)}
        )
        match chance.randrange(9):
            case 0:
                return frame(1, json.dumps(body).encode())
            case 1:
                return frame(1, json.dumps([body] * chance.choice((0, 2, 300))).encode()[:60_000])
            case 2:
                packed = bytearray(msgspec.msgpack.encode({"id": 1, "op": "check"}))
                packed[chance.randrange(len(packed))] = chance.randrange(256)
                return frame(2, bytes(packed))
            case 3:
                return frame(1, b'{"id": 1, "op": "acquire", "tokens": NaN, "max_wait": 1e999}')
            case 4:
                return frame(chance.randrange(16), chance.randbytes(chance.randrange(200)))
            case 5:
                return frame(1, b"\xff\xfe" * 50)
            case 6:
                return frame(2, b"x", last=False) + frame(0, b"", last=False) * 50
            case 7:
                return frame(2, b"x" * 66_000)
            case _:
                raw = bytearray(frame(1, b"x" * 20))
                raw[chance.randrange(2)] ^= 1 << chance.randrange(8)  # a reserved bit, a length
                return bytes(raw)


_NONCE = "sec-websocket-key: " + base64.b64encode(b"sixteen bytes ok").decode()


def _line(chance: random.Random) -> str:
    """What may stand in a line of a head."""
    return "".join(each for each in _text(chance) if each not in "\r\n\x00")[:3000]


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """A frame of a WebSocket client."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    return bytes([0x80 * last | opcode]) + length + b"\0\0\0\0" + payload


class Sender:
    """Sends requests one after another, over one connection as long as that lasts."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname, place.port
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, bad: Bad) -> Answer:
        """Send one, and see what becomes of it."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._send(bad)
        except TimeoutError:
            self.close()
            return Answer(0, stuck=True)
        except (OSError, EOFError, ValueError):  # closed, also in the middle of an answer
            self.close()
            return Answer(0)

    def close(self) -> None:
        """Break the connection off."""
        if self._ends is not None:
            self._ends[1].transport.abort()
            self._ends = None

    async def _send(self, bad: Bad) -> Answer:
        if bad.ends or bad.frames:
            self.close()
        if self._ends is None:
            self._ends = await asyncio.open_connection(self._host, self._port, limit=2**20)
        reader, writer = self._ends
        writer.write(bad.raw)
        if bad.ends:
            writer.write_eof()
        answer = await _answer(reader, head_only=bad.raw.startswith(b"HEAD "))
        if answer.status == 101 and bad.frames:
            writer.write(bad.frames + frame(8, (1000).to_bytes(2)))
            while await reader.read(65_536):
                pass
        if bad.ends or bad.frames or answer.status in {0, 101, 400, 408, 413, 431}:
            self.close()
        return answer


async def _answer(reader: asyncio.StreamReader, *, head_only: bool) -> Answer:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split()[1])
        if status != 100:
            break
    lines = (line.split(":", 1) for line in head.split("\r\n")[1:] if line)
    fields = {name: value.strip() for name, value in lines}
    if head_only or status in {101, 204, 304}:
        return Answer(status)
    if "content-length" not in fields:
        raise EOFError("an answer of no length: nothing more is read")
    return Answer(status, await reader.readexactly(int(fields["content-length"])))
