"""Run the real scripts from a test, with a clock that the test moves."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import redis

from limiter_service.engine.levels import Level, read
from limiter_service.engine.policy import Policy
from limiter_service.store.groups import Group, Mixed, Row
from limiter_service.store.keys import Keys
from limiter_service.store.messages import Verdict
from limiter_service.store.ordinary import READERS
from limiter_service.store.parcels import Call, Kin, Together, Words
from limiter_service.store.scripts import NAMES, Script, load
from tests_support.straight import say

POOL = "p"
CLOCK = f"sg:{{{POOL}}}:clock"
FAKE_CLOCK = f"""
local function now_us()
  return tonumber(redis.call("GET", "{CLOCK}"))
end
"""
START = 1_700_000_000_000_000
"""A Tuesday evening in 2023, in microseconds."""


BESIDE = frozenset({CLOCK, Keys(POOL).replicas(), Keys(POOL).counts()})
"""Keys of the pool that are none of its state: the clock, and those in which services that share
the server say twice a second that they live.
"""


def names_of_pool(client: redis.Redis) -> list[bytes]:
    """The keys of the pool, but for those beside it."""
    (found,) = say(client, ("KEYS", Keys(POOL).pool_scope().removesuffix("s:pool") + "*"))
    return [key for key in found if key.decode() not in BESIDE]


class Answer(msgspec.Struct, frozen=True):
    """A script's verdict and numbers."""

    verdict: Verdict
    numbers: tuple[float, ...]


def scripts(faults: Mapping[str, str] | None = None) -> dict[str, Script]:
    """Every script with the fake clock, and with other texts for the files in *faults*."""
    parts = {"lib/clock": FAKE_CLOCK, **(faults or {})}
    return {name: load(name, parts) for name in NAMES}


class Unsent(Call):
    """A call that is only packed."""

    __slots__ = ()

    def done(self) -> bool:
        """Nobody has answered it."""
        return False

    def set_result(self, reply: Any, /) -> None:
        """Nobody does."""
        raise AssertionError(reply)

    def set_exception(self, error: Exception, /) -> None:
        """Nor is it refused."""
        raise error


class Bench:
    """One pool on a real server."""

    def __init__(self, client: redis.Redis, loaded: dict[str, Script]) -> None:
        self._client, self._scripts = client, loaded
        self.keys = Keys(POOL)
        self.now, self._orders = START, 0

    def acquire(
        self,
        policy: Policy,
        request_id: str,
        *,
        nonce: int,
        print_: int,
        ttl: int,
        remember: int,
        amounts: Sequence[float],
        marks: int = 0,
    ) -> Answer:
        """Run acquire.lua."""
        values = [nonce, print_, ttl, remember, 0, 0, 1, marks, len(amounts), *amounts]
        return self._run("acquire", policy, values, request_id)

    def acquire_group(
        self, policy: Policy, requests: Sequence[tuple[str, Sequence[float]]]
    ) -> list[Answer | None]:
        """Run acquire_group.lua: the answers to *requests*, each a request id and the numbers of
        acquire.lua; None: it must be asked alone.
        """
        return self._group("acquire_group", policy, requests)

    def settle_group(
        self, policy: Policy, reports: Sequence[tuple[str, Sequence[float]]]
    ) -> list[Answer | None]:
        """Run settle_group.lua, likewise."""
        return self._group("settle_group", policy, reports)

    def mixed(
        self, what: str, asked: Sequence[tuple[Policy, Sequence[tuple[str, Sequence[float]]]]]
    ) -> list[list[Answer | None]]:
        """Run acquire_mixed.lua or settle_mixed.lua over several chains, each with its requests or
        reports: for each the answers, as above.
        """
        mixed, told = Mixed(), []
        for policy, calls in asked:
            chain = policy.chain(self.now)
            kin = chain.asking if what == "acquire" else chain.settling
            told.append(kin is not None)
            if kin is not None:
                group = self._as_group(what, policy, kin, calls)
                mixed.groups.append(group)
        if not mixed.groups:
            return [[None] * len(calls) for _, calls in asked]
        parts = iter(self._say(f"{what}_mixed", mixed.by_digest(plain=False)))
        return [
            self._read(f"{what}_group", next(parts), calls) if one else [None] * len(calls)
            for one, (_, calls) in zip(told, asked, strict=True)
        ]

    def row(self, what: str, asked: Sequence[tuple[Policy, str, Sequence[float]]]) -> list[Answer]:
        """Run acquire_row.lua or settle_row.lua: the answers to requests or reports, each with its
        chain.
        """
        row = Row()
        for policy, request_id, values in asked:
            row.calls.append(self._as_call(what, policy, None, request_id, values))
        told = self._say(f"{what}_row", row.by_digest(plain=False))
        for answer, call in zip(told, row.calls, strict=True):
            assert call.asked is not None
            assert answer[:8] == call.asked[:8], "the tag of the answer"
        return [Answer(Verdict(chr(each[8])), _numbers(each[9:])) for each in told]

    def settle(
        self,
        policy: Policy,
        request_id: str,
        nonce: int,
        used: Sequence[float],
        outcome: int = 4,
        *,
        first_token: bool = False,
        slow: bool = False,
    ) -> Answer:
        """Run settle.lua; *outcome* is a class of lua/lib/breaker."""
        values = [7, nonce, first_token, outcome, 0, slow, 0, *used]
        return self._run("settle", policy, values, request_id)

    def renew(
        self, policy: Policy, request_id: str, nonce: int, ttl: int, used: Sequence[float]
    ) -> Answer:
        """Run renew.lua."""
        return self._run("renew", policy, [8, nonce, ttl, *used], request_id)

    def check(self, policy: Policy, amounts: Sequence[float]) -> Answer:
        """Run check.lua."""
        return self._run("check", policy, [9, 1, *amounts], None)

    def report(
        self,
        policy: Policy,
        request_id: str,
        nonce: int,
        used: Sequence[float],
        readings: Sequence[Any],
        *,
        refused: bool,
    ) -> Answer:
        """Run settle.lua with what a provider said."""
        values = [7, nonce, 2, 3 if refused else 4, 0, 0, 0, *used]
        text = _readings(policy, readings)
        return self._run("settle", policy, values, request_id, text)

    def observe(self, policy: Policy, readings: Sequence[Any]) -> Answer:
        """Run observe.lua."""
        text = _readings(policy, readings)
        return self._run("observe", policy, [11, 0, 0], None, text)

    def hold(self, policy: Policy, place: int, told: Any) -> Answer:
        """Run limit.lua; *told* None lets go."""
        self._orders += 1
        values = [self._orders, place + 1, 0, 0, 0, -1]
        if told is not None:
            values[2:] = [told.value, told.capacity, told.rate, told.until]
        limit = policy.limits[place]
        names = f"{policy.model}\n{limit.name}\nsomebody\na reason".encode()
        notice = policy.notices[place]
        return self._run("limit", policy, values, None, rest=(names, b"note"), more=(notice,))

    def lend(
        self,
        policy: Policy,
        request_id: str,
        *,
        nonce: int,
        amounts: Sequence[float],
        terms: Sequence[float],
        ttl: int = 600_000_000,
    ) -> Answer:
        """Run lend.lua: *amounts* are those of one call, *terms* as the script has them."""
        values = [nonce, 5, ttl, 60_000_000, 0, 0, 1, 0, len(amounts), *amounts]
        text = struct.pack(f"<{len(terms)}d", *terms)
        return self._run("lend", policy, values, request_id, rest=(text,), last=self.keys.blocks())

    def repay(self, policy: Policy, request_id: str, report: Sequence[float]) -> Answer:
        """Run repay.lua: nonce, number, stage, amounts, endings."""
        values = [12, *report]
        return self._run("repay", policy, values, request_id, last=self.keys.blocks())

    def held(self) -> tuple[float, float]:
        """Calls and tokens that blocks hold, by blocks.lua."""
        keys = (self.keys.blocks(), self.keys.queue(), self.keys.pin())
        tag = struct.pack("<d", 13)
        self._client.set(CLOCK, self.now, ex=3600)
        answer = self._client.eval(self._scripts["blocks"].text, len(keys), *keys, tag)
        _, calls, tokens, _ = struct.unpack("<4d", answer[9:])
        return calls, tokens

    def events(self) -> list[dict[bytes, bytes]]:
        """What has happened in the pool."""
        return [fields for _, fields in self._client.xrange(self.keys.events())]

    def snapshot(self, policy: Policy) -> list[Level]:
        """Run snapshot.lua and read its levels."""
        answer = self._run("snapshot", policy, [10], None)
        return read(answer.numbers, 2, len(policy.limits))[0]

    def dump(self) -> dict[bytes, bytes]:
        """Every key of the pool as the server holds it, to see that nothing was written; without
        those in which services that share the server say twice a second that they live.
        """
        names = names_of_pool(self._client)
        found = dict(zip(names, say(self._client, *(("DUMP", key) for key in names)), strict=True))
        # A key may come to its end between the scan and the look at it.
        return {key: text for key, text in found.items() if text}

    def keeps_for(self, key: str) -> float:
        """Microseconds that the server keeps *key*."""
        return self._client.pttl(key) * 1000

    def _group(
        self, name: str, policy: Policy, asked: Sequence[tuple[str, Sequence[float]]]
    ) -> list[Answer | None]:
        chain = policy.chain(self.now)
        what = name.removesuffix("_group")
        kin = chain.asking if what == "acquire" else chain.settling
        if kin is None:  # the service asks each alone
            return [None] * len(asked)
        group = self._as_group(what, policy, kin, asked)
        told = self._say(name, group.by_digest(plain=False))
        return self._read(name, told, asked)

    def _together(self, what: str) -> Together:
        return Together(*(self._scripts[f"{what}_{kind}"] for kind in ("group", "mixed", "row")))

    def _as_group(
        self,
        what: str,
        policy: Policy,
        kin: Kin,
        asked: Sequence[tuple[str, Sequence[float]]],
    ) -> Group:
        """The same as the service makes it."""
        calls = [self._as_call(what, policy, kin, *each) for each in asked]
        group = Group(calls[0])
        for call in calls[1:]:
            group.add(call)
        return group

    def _as_call(
        self,
        what: str,
        policy: Policy,
        kin: Kin | None,
        request_id: str,
        values: Sequence[float],
    ) -> Unsent:
        chain, call = policy.chain(self.now), Unsent()
        call.aim(
            self._scripts[what],
            chain.keys,
            chain.arguments,
            own=(self.keys.lease(policy.tenant, request_id), self.keys.queue()),
            asked=struct.pack(f"<{len(values)}d", *values),
            together=self._together(what),
            kin=kin,
        )
        return call

    def _read(
        self, name: str, told: bytes, asked: Sequence[tuple[str, Sequence[float]]]
    ) -> list[Answer | None]:
        """What a group is told."""
        texts = [struct.pack(f"<{len(values)}d", *values) for _, values in asked]
        assert told[:8] == texts[0][:8], "the tag of the answer"
        alone, together = READERS[name]
        answers = [alone(told, texts[0])] if len(texts) == 1 else together(told, texts)
        assert all(a is None or a[:8] == t[:8] for a, t in zip(answers, texts, strict=True))
        return [a and Answer(Verdict(chr(a[8])), _numbers(a[9:])) for a in answers]

    def _run(
        self,
        name: str,
        policy: Policy,
        values: Sequence[float],
        request_id: str | None,
        text: bytes = b"",
        rest: Sequence[bytes] = (),
        more: Sequence[str] = (),
        last: str | None = None,
    ) -> Answer:
        chain = policy.chain(self.now)
        keys: list[str] = [*chain.keys, *more]
        if request_id is not None:
            keys += [self.keys.lease(policy.tenant, request_id), self.keys.queue()]
        if last is not None:
            keys.append(last)
        request = struct.pack(f"<{len(values)}d", *values) + text
        arguments = (*chain.policies, chain.breaker, request, *rest)
        answer = self._call(name, keys, arguments)
        assert answer[:8] == request[:8], "the tag of the answer"
        return Answer(Verdict(chr(answer[8])), _numbers(answer[9:]))

    def _say(self, name: str, command: Words) -> Any:
        _, _, count, *words = command
        return self._call(name, words[:count], words[count:])

    def _call(self, name: str, keys: Sequence[str], arguments: Sequence[bytes]) -> Any:
        script = self._scripts[name]
        asked = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        clock = ("SET", CLOCK, self.now, "EX", 3600)
        try:
            return say(self._client, clock, asked)[1]
        except redis.exceptions.NoScriptError:
            return say(self._client, ("EVAL", script.text, *asked[2:]))[0]


def _numbers(text: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(text) // 8}d", text)


def _readings(policy: Policy, readings: Sequence[Any]) -> bytes:
    """Readings of limits, counted from 0, as lua/lib/learning has them."""
    numbers: list[float] = [len(readings)]
    names = [policy.model]
    for each in readings:
        limit = policy.limits[each.place]
        told = (each.stated, each.capacity, each.rate, each.remaining)
        numbers += [each.place + 1, *told, each.refused + 4 * each.cut, limit.limit, each.life]
        names.append(limit.name)
    return struct.pack(f"<{len(numbers)}d", *numbers) + "\n".join(names).encode()
