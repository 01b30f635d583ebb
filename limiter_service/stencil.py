"""Grants as msgpack and JSON: what all grants of a chain have in common is encoded once. Pure.

What is left of a limit, and when it is full again, are numbers: their place is known, and nothing
around them changes.
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil

import msgspec
from msgspec import UNSET

from limiter_service import http
from limiter_service.engine.breaking import CIRCUITS
from limiter_service.engine.shape import Shape, Taken
from limiter_service.store.packing import doubles
from limiter_wire import Meter, Settled
from limiter_wire.brief import Form

MOST_FORMS = 1000
"""Chains whose limits a channel knows; callers make up names of models."""

_encode = msgspec.msgpack.Encoder().encode
_pack = struct.Struct(">d").pack
_DOUBLE = b"\xcb"
_MAP, _ARRAY, _SMALL = 0x80, 0x90, 16

_OF_A_GRANT = 12  # fields; a frame has id and status beside them
_HEAD = bytes((_MAP + 2 + _OF_A_GRANT,)) + _encode("id")
_HEAD_WITH_FORM, _FORM = bytes((_MAP + 3 + _OF_A_GRANT,)) + _encode("id"), _encode("form")
_LEVELS = _encode("levels")
_STATUS = _encode("status") + _encode(200)
_BEFORE_LEASE = b"".join(map(_encode, ("granted", True, "lease")))
_BEFORE_EXPIRY = b"".join(map(_encode, ("waited", 0.0, "expires_in"))) + _DOUBLE
_CHARGED = _encode("charged")
_TAIL = b"".join(map(_encode, ("degraded", False, "settled", False, "block", None)))
_CIRCUITS = tuple(
    b"".join(map(_encode, ("breaker", state, "probe", probe, "suggested_max_tokens")))
    for state, probe in CIRCUITS
)
_UNSUGGESTED = tuple(circuit + _encode(None) + _TAIL for circuit in _CIRCUITS)

_HEAD_OF_SETTLED = bytes((_MAP + 2 + 5,)) + _encode("id")
_SETTLED = _STATUS + b"".join(map(_encode, ("settled", True, "already_settled", False, "refunded")))
_DEBITED, _NOTHING = _encode("debited"), _encode({})
_ENDS = {str(state): _encode("breaker") + _encode(state) for state, _ in CIRCUITS}


class Stencil:
    """The limits of a chain, with room for what changes."""

    def __init__(self, shape: Shape) -> None:
        parts: list[bytes] = []
        text = _encode("limits") + _array(len(shape.faces))
        for face in shape.faces:
            before, after = _around(*face[1:])
            parts += [text + _NAME + _encode(face[0]) + before, _RESET]
            text = after
        self._rest = text
        self._values: list[bytes | float] = [b""] * (2 * len(parts))
        self._values[::2] = parts
        self._pack = _packer(*map(len, parts))

    def limits(self, left: list[float]) -> bytes:
        """The field, with what is *left*, and when it is full again, of each."""
        values = self._values.copy()
        values[1::2] = left
        return self._pack(*values) + self._rest


_NAME, _RESET = bytes((_MAP + 10,)) + _encode("name"), _encode("reset_after") + _DOUBLE
_stencil = lru_cache(4096)(Stencil)


@lru_cache(4096, typed=True)
def _around(
    meter: Meter,
    limit: float,
    per: float | None,
    window: str,
    scope: str,
    shadow: bool,  # noqa: FBT001  # as a face has it
) -> tuple[bytes, bytes]:
    """What stands of a limit behind its name, and behind its numbers. Limits that tenants have
    alone differ in their names.
    """
    before = ("meter", meter, "limit", limit, "remaining")
    after = ("per", per, "window", window, "scope", scope, "shadow", shadow, "refused", False)
    return b"".join(map(_encode, before)) + _DOUBLE, b"".join(map(_encode, after))


@lru_cache(4096)
def _packer(*sizes: int) -> Callable[..., bytes]:
    """What puts numbers behind parts of these sizes."""
    return struct.Struct(">" + "".join([f"{size}sd" for size in sizes])).pack


def grant(taken: Taken) -> bytes:
    """A grant, as `Granted` is encoded."""
    return bytes((_MAP + _OF_A_GRANT,)) + b"".join(_fields(taken, _limits(taken)))


def frame(name: int | str, taken: Taken) -> bytes:
    """The frame of a channel that tells a grant to the request *name*."""
    return b"".join((_HEAD, _encode(name), _STATUS, *_fields(taken, _limits(taken))))


class Told:
    """What a channel was told of limits: then a grant says only what is in them
    (limiter_wire/brief).
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Shape, tuple[bytes, Callable[..., bytes]]] = {}

    def frame(self, name: int | str, taken: Taken) -> bytes:
        """As `frame`; in full where the limits were not told yet."""
        known = self._known.get(taken.shape)
        if known is not None:
            before, pack = known
            levels = before + pack(*taken.shape.levels(taken.numbers))
            return b"".join((_HEAD, _encode(name), _STATUS, *_fields(taken, levels)))
        fills = taken.shape.fills
        if not fills or len(self._known) >= MOST_FORMS:
            return frame(name, taken)
        said = _HEAD_WITH_FORM, _encode(name), _STATUS, *_fields(taken, _limits(taken))
        return b"".join((*said, _FORM, _encode(self._learn(taken.shape, fills))))

    def _learn(self, shape: Shape, fills: Sequence[tuple[float, float]]) -> Form:
        form = Form(len(self._known) + 1, [*fills])
        pack = doubles(len(form.fills))
        blank = pack(*[0.0] * len(form.fills))
        before = _LEVELS + _array(2) + _encode(form.id) + _encode(blank)[: -len(blank)]
        self._known[shape] = before, pack
        return form


def settled_frame(name: int | str, answer: Settled) -> bytes | None:
    """The same of the first answer to a settle; None where it says more than nearly all do."""
    end = _ENDS.get(answer.breaker)
    if end is None or answer.already_settled or not answer.settled:
        return None
    if answer.calibration is not UNSET or answer.degraded is not UNSET:
        return None
    debited = _NOTHING if not answer.debited else _encode(answer.debited)
    said = (_HEAD_OF_SETTLED, _encode(name), _SETTLED, _encode(answer.refunded))
    return b"".join((*said, _DEBITED, debited, end))


def text(taken: Taken) -> bytes:
    """A grant, as `Granted` is encoded in JSON."""
    # The encoder writes all numbers at once, in its own way; none has a comma in it.
    numbers = _encode_text([taken.expires_in, *taken.left])[1:-1].split(b",")
    end = _end_of_text(taken.circuit, taken.suggested)
    charged = _encode_text(taken.charged)
    lease = taken.lease.encode()
    return _sheet(taken.shape).text % (lease, numbers[0], charged, *numbers[1:], end)


def lines(taken: Taken) -> bytes:
    """The headers of HTTP about its limits, each with the end of its line."""
    sheet = _sheet(taken.shape)
    left = taken.left
    said: list[int] = []
    for at in sheet.counted:
        remaining = left[at]
        said += (int(remaining) if remaining > 0 else 0, ceil(left[at + 1]))
    return sheet.lines % tuple(said)


class _Sheet:
    """The limits of a chain as JSON and as headers, with room for what changes."""

    def __init__(self, shape: Shape) -> None:
        limits = [
            b'{"name":' + _plain(_encode_text(face[0])) + _around_text(*face[1:])
            for face in shape.faces
        ]
        self.text = _BEFORE_LIMITS + b",".join(limits) + b"]%b"
        counted = [i for i, face in enumerate(shape.faces) if face[3] is not None]
        self.counted = [2 * i for i in counted]
        """Where what is left of limits that headers name stands among the numbers of all."""
        self.lines = b""
        if counted:
            names = [http.quote(shape.faces[i][0]).encode() for i in counted]
            states = b", ".join([b"%b;r=%%d;t=%%d" % _plain(name) for name in names])
            policies = http.policies(
                tuple(
                    (name, limit, per, meter)
                    for name, meter, limit, per, *_ in shape.faces
                    if per is not None
                )
            )
            self.lines = b"ratelimit: %b\r\nratelimit-policy: %b\r\n" % (states, _plain(policies))


_encode_text = msgspec.json.Encoder().encode
_BEFORE_LIMITS = (
    b'{"granted":true,"lease":"%b","waited":0.0,"expires_in":%b,"charged":%b,"limits":['
)
_sheet = lru_cache(4096)(_Sheet)


@lru_cache(4096, typed=True)
def _around_text(
    meter: Meter,
    limit: float,
    per: float | None,
    window: str,
    scope: str,
    shadow: bool,  # noqa: FBT001  # as a face has it
) -> bytes:
    """What stands of a limit behind its name, with room for its numbers."""
    before = _encode_text({"meter": meter, "limit": limit})[1:-1]
    after = {"per": per, "window": window, "scope": scope, "shadow": shadow, "refused": False}
    rest = _plain(_encode_text(after)[1:-1])
    return b',%b,"remaining":%%b,"reset_after":%%b,%b}' % (_plain(before), rest)


@lru_cache(256)
def _end_of_text(circuit: int, suggested: int | None) -> bytes:
    breaker, probe = CIRCUITS[circuit]
    found = {"breaker": breaker, "probe": probe, "suggested_max_tokens": suggested}
    rest = {"degraded": False, "settled": False, "block": None}
    return b"," + _encode_text(found | rest)[1:]


def _plain(text: bytes) -> bytes:
    """*text* as a part of a form, in which nothing is filled in."""
    return text.replace(b"%", b"%%")


def _limits(taken: Taken) -> bytes:
    return _stencil(taken.shape).limits(taken.left)


def _fields(taken: Taken, limits: bytes) -> tuple[bytes, ...]:
    """The fields of a grant, among them what is said of its limits."""
    if taken.suggested is None:
        end = _UNSUGGESTED[taken.circuit]
    else:
        end = _CIRCUITS[taken.circuit] + _encode(taken.suggested) + _TAIL
    return (
        _BEFORE_LEASE,
        _encode(taken.lease),
        _BEFORE_EXPIRY,
        _pack(taken.expires_in),
        _CHARGED,
        taken.told,
        limits,
        end,
    )


def _array(count: int) -> bytes:
    """How an array of so many begins."""
    return _encode([None] * count)[: 1 if count < _SMALL else 3]
