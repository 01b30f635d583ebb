"""What travels to a store: script calls, and what they have in common (store/groups)."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import hiredis
import msgspec

from limiter_service.store.scripts import Script

Argument = str | bytes
Words = tuple[Any, ...]
"""A command, or the end of one."""

_END = b"\r\n"
APART = 0.05
"""Seconds that the calls of a kin are made by what decides over all, once what decides over
ordinary ones was of no use."""

LONGEST_APART = 5.0
"""The same where that has happened again and again."""


class Kin:
    """Calls of a script that meet the same limits. In the loop's time, until when they go alone;
    and, once that was asked for, what the commands of all of them say, and the form of the one for
    a single call.
    """

    __slots__ = ("apart_until", "common", "form", "pause")

    def __init__(self) -> None:
        self.apart_until, self.pause = 0.0, APART
        self.common: Common | None = None
        self.form: Form | None = None

    def learn(self, now: float, *, of_use: bool) -> None:
        """Take in whether a group has decided over anybody."""
        if of_use:
            self.pause = APART
        else:
            self.apart_until = now + self.pause
            self.pause = min(2 * self.pause, LONGEST_APART)


class Common(msgspec.Struct, frozen=True):
    """What calls of a kin say in common: their keys, and what the policies of their chain say
    (store/ordinary).
    """

    scopes: tuple[str, ...]
    circuit: str
    pin: str
    queue: str
    terms: bytes


class Together(msgspec.Struct, frozen=True):
    """What decides over several calls of a script: ordinary ones of one chain, those of several
    chains of a pool, and whatever else is asked of a pool.
    """

    group: Script
    mixed: Script
    row: Script


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
        together: Together | None = None,
        kin: Kin | None = None,
    ) -> None:
        """Say what is called. *mark* is a key to write behind what must be on a replica before it
        counts. What is *together* decides over calls of the same *kin*, and those beside them.
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
        return ("EVALSHA", variant(self.script, plain=plain).sha, *self._words())

    packed = by_digest

    def by_text(self, *, plain: bool) -> Words:
        """The call of one that has not: it keeps the text."""
        return ("EVAL", variant(self.script, plain=plain).text, *self._words())

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


def variant(script: Script, *, plain: bool) -> Script:
    """The text for this server: *plain* for one that knows no flags of scripts."""
    return script.plain or script if plain else script
