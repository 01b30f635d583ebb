"""What travels to a store: script calls, and calls of a kin as one.

Calls of one script that meet the same limits differ in their leases and in what they ask. A
script that decides over ordinary ones, one or many in a row, takes the keys and arguments that
they share once; it decides in the order in which they came, and leaves over what is not
ordinary, which then travels as it was (docs/decisions/0020).
"""

from collections.abc import Sequence
from typing import Any

from limiter_service.store.deadlines import Answer
from limiter_service.store.errors import StoreProtocol
from limiter_service.store.ordinary import READERS, TAG, terms
from limiter_service.store.scripts import Script

Argument = str | bytes
MOST_IN_A_GROUP = 64
APART = 0.05
"""Seconds that the calls of a kin are made by what decides over all, once what decides over
ordinary ones was of no use."""

LONGEST_APART = 5.0
"""The same where that has happened again and again."""


class Kin:
    """Calls that meet the same limits. In the loop's time, until when they go alone; and what
    the policies of their chain say (store/ordinary), once that was asked for.
    """

    __slots__ = ("apart_until", "pause", "terms")

    def __init__(self) -> None:
        self.apart_until, self.pause = 0.0, APART
        self.terms: bytes | None = None

    def learn(self, now: float, *, of_use: bool) -> None:
        """Take in whether a group has decided over anybody."""
        if of_use:
            self.pause = APART
        else:
            self.apart_until = now + self.pause
            self.pause = min(2 * self.pause, LONGEST_APART)


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
    """Calls of one kin as one, in the order in which they came; also of a single one."""

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
        first, calls = self.calls[0], self.calls
        asked = [_asked(call) for call in calls]
        if not isinstance(reply, Exception) and reply[:TAG] != asked[0][:TAG]:
            reply = StoreProtocol("the answer to a group belongs to another call")
        if isinstance(reply, Exception):
            for call in calls:
                call.take(reply, now)
            return ()
        assert first.together is not None
        assert first.kin is not None
        first.kin.learn(now, of_use=len(reply) > TAG)
        left = []
        for call, answer in zip(calls, READERS[first.together.name](reply, asked), strict=True):
            if answer is not None:
                call.take(answer, now)
            elif not call.answer.done():
                left.append(call)
        return left

    def _joined(self) -> Call:
        first = self.calls[0]
        kin = first.kin
        assert kin is not None
        assert first.together is not None
        *scopes, circuit, pin, _, _, queue = first.keys
        keys = (*scopes, pin, queue, *(call.keys[-2] for call in self.calls), circuit)
        if kin.terms is None:
            *policies, breaker, _ = first.arguments
            kin.terms = terms(policies, breaker)  # type: ignore[arg-type]  # bytes, as chains are
        asked = b"".join(map(_asked, self.calls))
        return Call(first.together, keys, (kin.terms, asked), first.answer)


Parcel = Call | Group


def parcels(calls: Sequence[Call], now: float) -> list[Parcel]:
    """The same calls, those of a kin as one in the place of the first of them."""
    found: list[Parcel] = []
    places: dict[tuple[int, int], Group] = {}
    for call in calls:
        kin = call.kin
        if kin is None or kin.apart_until > now:
            found.append(call)
            continue
        name = (id(kin), id(call.together))
        group = places.get(name)
        if group is None:
            group = places[name] = Group(call)
            found.append(group)
            continue
        group.calls.append(call)
        if len(group.calls) == MOST_IN_A_GROUP:
            del places[name]
    return found


def _asked(call: Call) -> bytes:
    asked = call.arguments[-1]
    assert isinstance(asked, bytes)
    return asked
