"""What travels to a store: script calls, and calls of a kin as one.

Calls of one script that meet the same limits differ in their leases and in what they ask. A
script that decides over many of them in a row takes the keys and arguments that they share
once; it decides in the order in which they came, and leaves over what is not ordinary, which
then travels as it was (docs/decisions/0020).
"""

from collections.abc import Sequence
from typing import Any

from limiter_service.store.deadlines import Answer
from limiter_service.store.errors import StoreProtocol
from limiter_service.store.scripts import Script

Argument = str | bytes
MOST_IN_A_GROUP = 64
APART = 0.05
"""Seconds that the calls of a kin go alone after a group of them was of no use."""

_TAG = 8


class Kin:
    """Calls that meet the same limits. In the loop's time, until when they go alone."""

    __slots__ = ("apart_until",)

    def __init__(self) -> None:
        self.apart_until = 0.0


class Call:
    """One script call that waits for its answer."""

    __slots__ = ("answer", "arguments", "keys", "kin", "mark", "script", "together")

    def __init__(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        answer: Answer,
        mark: str | None = None,
        *,
        together: Script | None = None,
        kin: Kin | None = None,
    ) -> None:
        """*mark* is a key to write behind what must be on a replica before it counts. The script
        *together* decides over calls of the same *kin*: then the last keys are lease and
        queue, and the last argument is what is asked.
        """
        self.script, self.keys, self.arguments, self.answer = script, keys, arguments, answer
        self.mark, self.together, self.kin = mark, together, kin

    def anew(self, answer: Answer) -> "Call":
        """The same call once more, for another *answer*."""
        return Call(
            self.script,
            self.keys,
            self.arguments,
            answer,
            self.mark,
            together=self.together,
            kin=self.kin,
        )

    def by_digest(self, *, plain: bool) -> tuple[Any, ...]:
        """The call of a server that has the script."""
        return (
            "EVALSHA",
            self._script(plain=plain).sha,
            len(self.keys),
            *self.keys,
            *self.arguments,
        )

    def by_text(self, *, plain: bool) -> tuple[Any, ...]:
        """The call of one that has not: it keeps the text."""
        return ("EVAL", self._script(plain=plain).text, len(self.keys), *self.keys, *self.arguments)

    def take(self, reply: Any, now: float) -> Sequence["Call"]:  # noqa: ARG002  # as of a group
        """Hand the reply, or an error, to whoever still waits for it. Returns the calls that must
        be made yet: none.
        """
        if not self.answer.done():
            if isinstance(reply, Exception):
                self.answer.set_exception(reply)
            else:
                self.answer.set_result(reply)
        return ()

    def _script(self, *, plain: bool) -> Script:
        return self.script.plain or self.script if plain else self.script


class Group:
    """Calls of one kin as one, in the order in which they came."""

    __slots__ = ("calls", "mark")

    def __init__(self, first: Call) -> None:
        self.calls, self.mark = [first], None

    def by_digest(self, *, plain: bool) -> tuple[Any, ...]:
        """As of a call."""
        return self._joined().by_digest(plain=plain)

    def by_text(self, *, plain: bool) -> tuple[Any, ...]:
        """As of a call."""
        return self._joined().by_text(plain=plain)

    def take(self, reply: Any, now: float) -> Sequence[Call]:
        """Hand everybody the reply that the call alone would have had. Returns the calls that the
        group has left over. An error is everybody's.
        """
        if not isinstance(reply, Exception) and reply[0][:_TAG] != _tag(self.calls[0]):
            reply = StoreProtocol("the answer to a group belongs to another call")
        if isinstance(reply, Exception):
            for call in self.calls:
                call.take(reply, now)
            return ()
        letters, *leases = reply
        for nth, (call, lease) in enumerate(zip(self.calls, leases, strict=False), _TAG):
            call.take(_tag(call) + letters[nth : nth + 1] + lease, now)
        kin = self.calls[0].kin
        if not leases and kin is not None:
            kin.apart_until = now + APART
        return [call for call in self.calls[len(leases) :] if not call.answer.done()]

    def _joined(self) -> Call:
        first = self.calls[0]
        *shared, _, queue = first.keys
        keys = (*shared, queue, *(call.keys[-2] for call in self.calls))
        asked = b"".join(call.arguments[-1] for call in self.calls)  # type: ignore[misc]  # bytes
        assert first.together is not None
        return Call(first.together, keys, (*first.arguments[:-1], asked), first.answer)


Parcel = Call | Group


def parcels(calls: Sequence[Call], now: float) -> list[Parcel]:
    """The same calls, those of a kin as one in the place of the first of them."""
    if len(calls) == 1:
        return list(calls)
    found: list[Parcel] = []
    places: dict[tuple[int, int], int] = {}
    for call in calls:
        kin = call.kin
        if kin is None or kin.apart_until > now:
            found.append(call)
            continue
        name = (id(kin), id(call.together))
        place = places.get(name)
        if place is None:
            places[name] = len(found)
            found.append(call)
            continue
        group = found[place]
        if isinstance(group, Call):
            group = found[place] = Group(group)
        group.calls.append(call)
        if len(group.calls) == MOST_IN_A_GROUP:
            del places[name]
    return found


def _tag(call: Call) -> bytes:
    asked = call.arguments[-1]
    assert isinstance(asked, bytes)
    return asked[:_TAG]
