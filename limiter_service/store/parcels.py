"""What travels to a store: script calls, and calls of a kin as one.

Calls of one script that meet the same limits differ in their leases and in what they ask. A
script that decides over ordinary ones, one or many in a row, takes the keys and arguments that
they share once; it decides in the order in which they came, and leaves over what is not
ordinary, which then travels as it was (docs/decisions/0020).
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import hiredis

from limiter_service.store.errors import StoreProtocol
from limiter_service.store.ordinary import READERS, TAG, terms
from limiter_service.store.scripts import Script

Argument = str | bytes
Words = tuple[Any, ...]
"""A command, or the end of one."""

_END = b"\r\n"
MOST_IN_A_GROUP = 64
APART = 0.05
"""Seconds that the calls of a kin are made by what decides over all, once what decides over
ordinary ones was of no use."""

LONGEST_APART = 5.0
"""The same where that has happened again and again."""


class Kin:
    """Calls of a script that meet the same limits. In the loop's time, until when they go alone;
    and, once that was asked for, what the policies of their chain say (store/ordinary) and the form
    of the command for a single one.
    """

    __slots__ = ("apart_until", "form", "pause", "terms")

    def __init__(self) -> None:
        self.apart_until, self.pause = 0.0, APART
        self.terms: bytes | None = None
        self.form: Form | None = None

    def learn(self, now: float, *, of_use: bool) -> None:
        """Take in whether a group has decided over anybody."""
        if of_use:
            self.pause = APART
        else:
            self.apart_until = now + self.pause
            self.pause = min(2 * self.pause, LONGEST_APART)


class Form:
    """How the command for a single call of a kin travels, with room for what is its own."""

    __slots__ = ("_before", "_between", "_sizes")

    def __init__(self, words: Words, lease: str, asked: bytes) -> None:
        """*words* are those of a command for *lease*, at the end of which stands *asked*."""
        whole = hiredis.pack_command(words)
        self._before, _, rest = whole.partition(lease.encode())
        self._between = rest[: -len(asked) - len(_END)]
        self._sizes = len(lease), len(asked)

    def filled(self, lease: str, asked: bytes) -> bytes | None:
        """The command; None where what is its own is of another size."""
        if (len(lease), len(asked)) != self._sizes:
            return None
        return b"".join((self._before, lease.encode(), self._between, asked, _END))


class Call(ABC):
    """One script call, and where its answer comes to.

    Calls of a kin have *keys* and *arguments* in common: behind these stand what a call has for
    itself, lease and queue, and what is asked.
    """

    __slots__ = ("arguments", "asked", "keys", "kin", "mark", "own", "script", "together")

    def aim(
        self,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        mark: str | None = None,
        *,
        own: Sequence[str] = (),
        asked: bytes | None = None,
        together: Script | None = None,
        kin: Kin | None = None,
    ) -> None:
        """Say what is called. *mark* is a key to write behind what must be on a replica before it
        counts. The script *together* decides over calls of the same *kin*.
        """
        self.script, self.keys, self.arguments, self.own = script, keys, arguments, own
        self.asked, self.mark, self.together, self.kin = asked, mark, together, kin

    @abstractmethod
    def done(self) -> bool:
        """Whether it has come to an end, or nobody wants to know any more."""

    @abstractmethod
    def set_result(self, reply: Any, /) -> None:
        """The store has answered."""

    @abstractmethod
    def set_exception(self, error: Exception, /) -> None:
        """It has not."""

    @property
    def place(self) -> str:
        """The key that says who is asked; empty where anybody can be."""
        return self.keys[0] if self.keys else ""

    def awaited(self, answer: "asyncio.Future[Any]") -> "Awaited":
        """The same call once more, for another *answer*."""
        call = Awaited(answer)
        call.aim(
            self.script,
            self.keys,
            self.arguments,
            self.mark,
            own=self.own,
            asked=self.asked,
            together=self.together,
            kin=self.kin,
        )
        return call

    def by_digest(self, *, plain: bool) -> Words:
        """The call of a server that has the script."""
        return ("EVALSHA", _of(self.script, plain=plain).sha, *self._words())

    packed = by_digest

    def by_text(self, *, plain: bool) -> Words:
        """The call of one that has not: it keeps the text."""
        return ("EVAL", _of(self.script, plain=plain).text, *self._words())

    def take(self, reply: Any, now: float) -> Sequence["Call"]:  # noqa: ARG002  # as of a group
        """Hand the reply, or an error, to whoever still waits for it. Returns the calls that must
        be made yet: none.
        """
        if not self.done():
            if isinstance(reply, Exception):
                self.set_exception(reply)
            else:
                self.set_result(reply)
        return ()

    def _words(self) -> Words:
        asked = () if self.asked is None else (self.asked,)
        count = len(self.keys) + len(self.own)
        return (count, *self.keys, *self.own, *self.arguments, *asked)


class Awaited(Call):
    """A call whose answer is awaited."""

    __slots__ = ("answer",)

    def __init__(self, answer: "asyncio.Future[Any]") -> None:
        self.answer = answer

    def done(self) -> bool:
        """Whether the answer is there, or nobody waits for it any more."""
        return self.answer.done()

    def set_result(self, reply: Any, /) -> None:
        """Wake who waits."""
        self.answer.set_result(reply)

    def set_exception(self, error: Exception, /) -> None:
        """Let it be raised there."""
        self.answer.set_exception(error)


class Group:
    """Calls of one kin as one, in the order in which they came; also of a single one."""

    __slots__ = ("calls", "mark")

    def __init__(self, first: Call) -> None:
        self.calls, self.mark = [first], None

    def by_digest(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVALSHA", _of(self._script, plain=plain).sha, *self._words())

    def packed(self, *, plain: bool) -> Words | bytes:
        """The same, perhaps as it travels."""
        first, kin = self.calls[0], self.calls[0].kin
        assert kin is not None
        if plain or len(self.calls) > 1:
            return self.by_digest(plain=plain)
        lease, asked = first.own[0], _asked(first)
        if kin.form is None:
            kin.form = Form(self.by_digest(plain=False), lease, asked)
        return kin.form.filled(lease, asked) or self.by_digest(plain=False)

    def by_text(self, *, plain: bool) -> Words:
        """As of a call."""
        return ("EVAL", _of(self._script, plain=plain).text, *self._words())

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
        assert first.kin is not None
        first.kin.learn(now, of_use=len(reply) > TAG)
        left = []
        for call, answer in zip(calls, READERS[self._script.name](reply, asked), strict=True):
            if answer is not None:
                call.take(answer, now)
            elif not call.done():
                left.append(call)
        return left

    @property
    def _script(self) -> Script:
        script = self.calls[0].together
        assert script is not None
        return script

    def _words(self) -> Words:
        """One count, the keys, what the policies say, and what everybody asks."""
        first, calls = self.calls[0], self.calls
        kin = first.kin
        assert kin is not None
        if kin.terms is None:
            *policies, breaker = first.arguments
            kin.terms = terms(policies, breaker)  # type: ignore[arg-type]  # bytes, as chains are
        *scopes, circuit, pin, _ = first.keys
        queue = first.own[1]
        if len(calls) == 1:
            lease, asked = first.own[0], _asked(first)
            return (len(scopes) + 4, *scopes, pin, queue, lease, circuit, kin.terms, asked)
        leases = [call.own[0] for call in calls]
        asked = b"".join(map(_asked, calls))
        count = len(scopes) + len(leases) + 3
        return (count, *scopes, pin, queue, *leases, circuit, kin.terms, asked)


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
    asked = call.asked
    assert asked is not None
    return asked


def _of(script: Script, *, plain: bool) -> Script:
    """The text for a server that knows no flags of scripts."""
    return script.plain or script if plain else script
