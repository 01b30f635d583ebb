"""Two stores that live through the same history: one decides ordinary acquires at once, alone
or in groups (lua/lib/ordinary), the other by all that decides over everything (lua/lib/limits).
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import redis
from histories import US, Step, policies_of
from learning_histories import _readings
from learning_reference import Told
from tests_support.scripts import BESIDE, CLOCK, POOL, Answer, Bench, scripts
from tests_support.straight import say

from limiter_service.engine.levels import Level, read
from limiter_service.engine.policy import Policy
from limiter_service.store.messages import KEEP, Verdict
from limiter_wire import Meter

_BREAKER = "breaker: {window: 600s, min_calls: 4, failure_rate: 0.5, open: 1s, max_open: 4s}"
_TOKENS = "{meter: tokens, limit: 420, per: 7s}"
_SLOW, _FAST = "{meter: requests, limit: 50, per: 700s}", "{meter: requests, limit: 17, per: 3s}"
CONFIGS = [
    # One scope and several, with rates that no binary fraction hits. First attempts soon earn
    # plenty of retries.
    f"""
    lease_ttl: 70s
    {_BREAKER[:-1]}, retry_ratio: 1}}
    models:
      m1: {{limits: [{{meter: requests, limit: 17, per: 3s}}, {{meter: tokens, limit: 310, per: 7s}}, {{meter: requests, limit: 50, per: 700s}}]}}
      m2: {{rpm: 300}}
    """,
    f"""
    lease_ttl: 70s
    {_BREAKER}
    learn: both
    limits: [{{meter: requests, limit: 23, per: 3s, burst: 9}}]
    models:
      m1: {{limits: [{{meter: tokens, limit: 290, per: 7s}}]}}
      "*": {{limits: [{{meter: tokens, limit: 77, per: 1s}}, {{meter: input_tokens, limit: 700, per: 3s, mode: shadow}}]}}
    tenants:
      t1: {{limits: [{{meter: tokens, limit: 500, per: 11s}}], models: {{m1: {{limits: [{{meter: requests, limit: 13, per: 3s}}]}}}}}}
    """,
    # The first again, where its limits stand in another order.
    f"""
    lease_ttl: 70s
    {_BREAKER}
    models:
      m1: {{limits: [{{meter: tokens, limit: 310, per: 7s}}, {{meter: requests, limit: 50, per: 700s}}, {{meter: requests, limit: 17, per: 3s}}]}}
      m2: {{rpm: 300}}
    """,
    # What is not ordinary stands beside what is.
    """
    breaker: {enabled: false}
    limits: [{meter: requests, limit: 29, per: 3s}]
    models:
      m1: {concurrency: 4, limits: [{meter: tokens, limit: 300, per: 3s}]}
      m2: {limits: [{meter: tokens, limit: 300, per: 3s, ramp: {start: 90, factor: 2, period: 2s}}]}
    """,
    """
    breaker: {retry_ratio: null}
    models: {"*": {}}
    """,
    # Two scopes and three of some limits each, and one of more than are decided over at once; then
    # the same where one of the scopes has another policy: of other amounts, which comes with
    # another window of the breaker, or in another order.
    *(
        f"""
    lease_ttl: 70s
    {breaker[:-1]}, retry_ratio: 1}}
    learn: both
    limits: [{{meter: requests, limit: 40, per: 3s, burst: 21}}]
    models:
      m1: {{limits: [{of_model}]}}
      m2: {{limits: [{{meter: requests, limit: 19, per: 3s}}, {{meter: tokens, limit: 310, per: 7s}}, {{meter: tokens, limit: 900, per: 70s}}, {{meter: requests, limit: 60, per: 700s}}, {{meter: tokens, limit: 150, per: 1s}}]}}
    tenants:
      t1: {{limits: [{{meter: tokens, limit: {of_tenant}, per: 11s}}, {{meter: requests, limit: 13, per: 2s}}]}}
    """
        for breaker, of_model, of_tenant in (
            (_BREAKER, f"{_TOKENS}, {_SLOW}, {_FAST}", 500),
            (_BREAKER.replace("600s", "300s"), f"{_TOKENS}, {_SLOW}, {_FAST}", 400),
            (_BREAKER, f"{_FAST}, {_TOKENS}, {_SLOW}", 500),
        )
    ),
]
_ALIKE = 5  # the first of those that are nearly the same
_KINDS = (
    ["acquire"] * 32
    + ["acquire_several"] * 8
    + ["settle"] * 20
    + ["settle_several"] * 8
    + ["tick"] * 16
    + ["observe"] * 2
    + ["hold", "reload", "reload", "wait", "bad", "bad", "bad"]
)
LENGTH = 50
_WORKERS, _RETRY = 32, 512
_PAUSE = 30_000  # milliseconds: so long may a machine stand still
_EVERYTHING = """
local names, beside = {}, {}
for n = 2, #ARGV do
  beside[ARGV[n]] = true
end
for _, name in ipairs(redis.call("KEYS", ARGV[1])) do
  if not beside[name] then
    names[#names + 1] = name
  end
end
local texts = #names > 0 and redis.call("MGET", unpack(names)) or {}
for n, name in ipairs(names) do
  if not texts[n] then
    if redis.call("TYPE", name).ok == "stream" then
      texts[n] = redis.call("XRANGE", name, "-", "+")
    else
      texts[n] = redis.call("ZRANGE", name, 0, -1, "WITHSCORES")
    end
  end
end
return {names, texts}
"""
"""The names of keys, but for those beside, and what they hold."""
_TIME, _SKEW, _KEPT = 2, 3, 4  # of a state (lua/lib/layout)


Two = tuple[redis.Redis, redis.Redis]


def two_of(client: redis.Redis) -> Iterator[Two]:
    """Two empty databases of the server of *client*."""
    path = client.connection_pool.connection_kwargs["path"]
    with redis.Redis(unix_socket_path=path, db=1) as other:
        yield client, other
        other.flushdb()


class Request(NamedTuple):
    """What one caller asks."""

    id: str
    fingerprint: int
    marks: int
    ttl: int
    amounts: list[float]

    def numbers(self, nonce: int) -> list[float]:
        """As the scripts take it."""
        head = [nonce, self.fingerprint, self.ttl, 60 * US, 0, 0, 1, self.marks]
        return [*head, len(self.amounts), *self.amounts]


class Report(NamedTuple):
    """What becomes of one call."""

    id: str
    nonce: int
    first_token: bool
    outcome: int
    slow: bool
    used: list[float]

    def numbers(self) -> list[float]:
        """As the scripts take it."""
        return [7, self.nonce, self.first_token, self.outcome, 0, self.slow, 0, *self.used]


class Side:
    """One of the two stores."""

    def __init__(self, client: redis.Redis, loaded: Mapping[str, Any]) -> None:
        client.flushdb()
        self.client, self.bench = client, Bench(client, dict(loaded))
        self.kept: dict[bytes, float] = {}
        self.anew: set[bytes] = set()
        self._tills: dict[bytes, float] = {}
        keys = self.bench.keys
        self._scopes, self._leases = (
            keys.pool_scope()[:-4].encode(),
            keys.lease("", "")[:-32].encode(),
        )
        self._events, self._pool = keys.events().encode(), CLOCK.removesuffix("clock")
        self._texts: dict[bytes, Any] = {}
        self._content: dict[bytes, Any] = {}

    def acquire(self, policy: Policy, request: Request, nonce: int) -> Answer:
        """One request alone."""
        return self.bench.acquire(
            policy,
            request.id,
            nonce=nonce,
            print_=request.fingerprint,
            ttl=request.ttl,
            remember=60 * US,
            amounts=request.amounts,
            marks=request.marks,
        )

    def acquire_in_a_row(self, asked: Sequence[tuple[Policy, Request, int]]) -> list[Answer]:
        """Some requests in one call, each with its chain and its nonce."""
        return self.bench.row("acquire", [(p, r.id, r.numbers(nonce)) for p, r, nonce in asked])

    def settle_in_a_row(self, asked: Sequence[tuple[Policy, Report]]) -> list[Answer]:
        """Some reports in one call, each with its chain."""
        return self.bench.row("settle", [(p, r.id, r.numbers()) for p, r in asked])

    def settle(self, policy: Policy, report: Report) -> Answer:
        """One report alone."""
        return self.bench.settle(
            policy,
            report.id,
            report.nonce,
            report.used,
            report.outcome,
            first_token=report.first_token,
            slow=report.slow,
        )

    def content(self) -> dict[bytes, Any]:
        """Everything in it; of a stream the fields, whose ids are of real time."""
        (everything,) = say(self.client, ("EVAL", _EVERYTHING, 0, f"{self._pool}*", *BESIDE))
        before, known = self._texts, self._content
        texts = self._texts = dict(zip(*everything, strict=True))
        self.anew.clear()
        self._content = {
            key: known[key] if before.get(key) == text else self._read(key, text)
            for key, text in texts.items()
        }
        return self._content

    def _read(self, key: bytes, text: Any) -> Any:
        if key.startswith(self._scopes):
            state = _numbers(text)
            self.kept[key] = state[_KEPT] - (state[_TIME] - state[_SKEW])
            if self._tills.get(key) != state[_KEPT]:
                self._tills[key] = state[_KEPT]
                self.anew.add(key)
            return _without_expiry(state)
        if key.startswith(self._leases):
            return _without_levels(_numbers(text))
        return [fields for _, fields in text] if key == self._events else text

    def lives(self, keys: Iterable[bytes]) -> list[int]:
        """Milliseconds that keys are kept for."""
        return say(self.client, *(("PTTL", key) for key in keys))


class Twins:
    """One history under way; in a clean one every call ends well."""

    def __init__(self, sides: tuple[Side, Side], random: Random) -> None:
        self.quick, self.whole = sides
        self.random = random
        self.policies = [policies_of(text) for text in CONFIGS]
        self.config, self.nonce = random.randrange(len(CONFIGS)), 1000
        self.clean = random.random() < 0.6
        self.leases: list[tuple[str, str, str, int]] = []
        self.grouped = self.mixed = self.rowed = self.denied = self.settled = 0

    def step(self) -> None:
        """Something happens to both, and they are the same afterwards."""
        kind = self.random.choice(_KINDS)
        getattr(self, kind)()
        quick, whole = self.quick.content(), self.whole.content()
        assert quick == whole, f"after {kind}: {_difference(quick, whole)}"
        # Each was kept for once to twice what was needed then; the times that are left may differ
        # by more.
        for key in self.quick.anew | self.whole.anew:
            ours, kept = self.quick.kept[key], self.whole.kept[key]
            assert kept / 2 <= ours <= 2 * kept, f"{key!r} is kept for {ours} instead of {kept}"
        for side in (self.quick, self.whole):
            for key, life in zip(side.anew, side.lives(side.anew), strict=True):
                assert life > side.kept[key] / 1000 - _PAUSE, f"{key!r} is gone too early"

    def finish(self) -> None:
        """Keys are kept as long at both; they were written at slightly different times. But scopes
        are kept for once to twice as long as they must be.
        """
        scopes = self.quick.bench.keys.pool_scope()[:-4].encode()
        keys = list(self.whole.content())
        lives = [side.lives(keys) for side in (self.quick, self.whole)]
        for key, quick, whole in zip(keys, *lives, strict=True):
            least, most = (whole // 2, 2 * whole) if key.startswith(scopes) else (whole, whole)
            assert least - _PAUSE < quick < most + _PAUSE, f"{key!r} is kept for another time"

    def policy(self, model: str | None = None, tenant: str | None = None) -> Policy:
        """Some chain of the configuration in force."""
        model = model or self.random.choice(("m1", "m1", "m2"))
        tenant = tenant or self.random.choice(("t1", "t2"))
        return self.policies[self.config].policy(f"{POOL}/{model}", tenant)

    def acquire(self, policy: Policy | None = None) -> None:
        """Some ask at the same moment; mostly in a group, and sometimes alone."""
        policy, size = policy or self.policy(), self.random.choice((1, 1, 2, 3, 5, 8))
        requests = [self._request(policy) for _ in range(size)]
        nonces = list(range(self.nonce, self.nonce + size))
        self.nonce += size
        told: list[Answer | None] = [None] * size
        if self.random.random() < 0.8:
            numbers = [(r.id, r.numbers(n)) for r, n in zip(requests, nonces, strict=True)]
            told = self.quick.bench.acquire_group(policy, numbers)
        crowd = sum(answer is not None for answer in told)
        self.grouped += crowd
        self.denied += sum(a is not None and a.verdict is Verdict.DENIED for a in told)
        left = [
            (policy, request, nonce)
            for request, nonce, answer in zip(requests, nonces, told, strict=True)
            if answer is None
        ]
        one_by_one = iter(self._asked(left))
        answers = [answer or next(one_by_one) for answer in told]
        for request, nonce, answer in zip(requests, nonces, answers, strict=True):
            expected = self.whole.acquire(policy, request, nonce)
            assert _alike(answer, expected), f"{answer} instead of {expected}"
            limits = len(policy.limits)
            if limits and crowd < 2 and answer.verdict in {Verdict.DONE, Verdict.DENIED}:
                assert _levels(answer, limits) == _levels(expected, limits), "levels"
            if answer.verdict is Verdict.DONE:
                self.leases.append((policy.model, policy.tenant, request.id, nonce))

    def acquire_several(self) -> None:
        """Some ask at the same moment for several chains, of which one may be that of another
        configuration: each is told what it would be told after those of the chains before.
        """
        asked: list[tuple[Policy, list[tuple[Request, int]]]] = []
        for policy in self._several():
            requests = [self._request(policy) for _ in range(self.random.choice((1, 1, 2, 5)))]
            asked.append((policy, list(zip(requests, range(self.nonce, 10**9), strict=False))))
            self.nonce += len(requests)
        told = self.quick.bench.mixed(
            "acquire", [(p, [(r.id, r.numbers(n)) for r, n in calls]) for p, calls in asked]
        )
        left = []
        for (policy, calls), answers in zip(asked, told, strict=True):
            self.mixed += sum(answer is not None for answer in answers)
            for (request, nonce), answer in zip(calls, answers, strict=True):
                if answer is None:
                    left.append((policy, request, nonce))
                else:
                    self._compare(policy, request, nonce, answer)
        for call, answer in zip(left, self._asked(left), strict=True):
            self._compare(*call, answer)

    def _asked(self, calls: Sequence[tuple[Policy, Request, int]]) -> list[Answer]:
        """What those are told that groups leave over: alone, or in a row."""
        if self.random.random() < 0.7 and calls:
            self.rowed += len(calls)
            return self.quick.acquire_in_a_row(calls)
        return [self.quick.acquire(*call) for call in calls]

    def _reported(self, calls: Sequence[tuple[Policy, Report]]) -> list[Answer]:
        """The same of reports."""
        if self.random.random() < 0.7 and calls:
            self.rowed += len(calls)
            return self.quick.settle_in_a_row(calls)
        return [self.quick.settle(*call) for call in calls]

    def _several(self) -> list[Policy]:
        """Different chains of the pool."""
        names = [(model, tenant) for model in ("m1", "m2") for tenant in ("t1", "t2")]
        chains = [self.policy(*each) for each in self.random.sample(names, 3)]
        if self.random.random() < 0.3:
            other = self.random.choice(self.policies + 2 * self.policies[_ALIKE:])
            chains.append(other.policy(f"{POOL}/{chains[0].model}", chains[0].tenant))
        return chains

    def _compare(self, policy: Policy, request: Request, nonce: int, answer: Answer) -> None:
        expected = self.whole.acquire(policy, request, nonce)
        assert _alike(answer, expected), f"{answer} instead of {expected}"
        if answer.verdict is Verdict.DONE:
            self.leases.append((policy.model, policy.tenant, request.id, nonce))

    def settle_several(self) -> None:
        """Some leases of several chains are settled at the same moment, perhaps one of them twice
        or for two configurations.
        """
        asked: list[tuple[Policy, list[Report]]] = []
        for policy in self._several():
            known = [
                lease[2:]
                for lease in self.leases[-30:]
                if lease[:2] == (policy.model, policy.tenant)
            ]
            if known:
                size = self.random.choice((1, 1, 2, 5))
                some = [self._report(policy, *self.random.choice(known)) for _ in range(size)]
                asked.append((policy, some))
        told = self.quick.bench.mixed(
            "settle", [(p, [(r.id, r.numbers()) for r in reports]) for p, reports in asked]
        )
        left = []
        for (policy, reports), answers in zip(asked, told, strict=True):
            self.mixed += sum(answer is not None for answer in answers)
            for report, answer in zip(reports, answers, strict=True):
                if answer is None:
                    left.append((policy, report))
                else:
                    expected = self.whole.settle(policy, report)
                    assert _alike(answer, expected), f"{answer} instead of {expected}"
        for (policy, report), answer in zip(left, self._reported(left), strict=True):
            expected = self.whole.settle(policy, report)
            assert _alike(answer, expected), f"{answer} instead of {expected}"

    def settle(self) -> None:
        """Some leases of one chain are settled at the same moment; mostly in a group."""
        if not self.leases:
            return
        model, tenant, *_ = self.random.choice(self.leases[-8:])
        policy = self.policy(model, tenant)
        known = [lease[2:] for lease in self.leases[-30:] if lease[:2] == (model, tenant)]
        size = self.random.choice((1, 1, 2, 3, 5, 8))
        reports = [self._report(policy, *self.random.choice(known)) for _ in range(size)]
        told: list[Answer | None] = [None] * size
        if self.random.random() < 0.8:
            told = self.quick.bench.settle_group(policy, [(r.id, r.numbers()) for r in reports])
        self.settled += sum(answer is not None for answer in told)
        left = [(policy, r) for r, answer in zip(reports, told, strict=True) if answer is None]
        one_by_one = iter(self._reported(left))
        answers = [answer or next(one_by_one) for answer in told]
        for report, answer in zip(reports, answers, strict=True):
            expected = self.whole.settle(policy, report)
            assert _alike(answer, expected), f"{answer} instead of {expected}"
            lease = (model, tenant, report.id, report.nonce)
            if answer.verdict is not Verdict.UNKNOWN and self.random.random() < 0.9:
                self.leases = [each for each in self.leases if each != lease]

    def _report(self, policy: Policy, request: str, nonce: int) -> Report:
        random = self.random
        return Report(
            id=request,
            nonce=nonce if random.random() < 0.95 else nonce + 1,
            first_token=random.random() < 0.05,
            outcome=1 if self.clean else random.choice((1,) * 30 + (3, 4)),
            slow=not self.clean and random.random() < 0.05,
            used=[
                KEEP
                if limit.meter is not Meter.TOKENS or random.random() < 0.2
                else float(random.randrange(90))
                for limit in policy.limits
            ],
        )

    def bad(self) -> None:
        """Several calls fail; then probes succeed, and it is as before, in another generation,
        in which a call of the one before ends well.
        """
        if self.clean:
            return
        policy = self.policy()
        for _ in range(3):
            self.acquire(policy)
        early, self.leases = self.leases[-1:], self.leases[:-1]
        for _ in range(8):
            self._settle(2)
        for _ in range(3):
            self._pass(3 * US)
            self.acquire(policy)
            self._settle(1, newest=1)
        self._pass(10 * US)
        self.acquire(policy)
        self._settle(1, newest=1)
        self.leases += early
        self._settle(1, newest=1)

    def _settle(self, outcome: int, newest: int = 8) -> None:
        if not self.leases:
            return
        model, tenant, request, nonce = self.random.choice(self.leases[-newest:])
        policy = self.policy(model, tenant)
        used = [
            KEEP if limit.meter is not Meter.TOKENS else float(self.random.randrange(90))
            for limit in policy.limits
        ]
        answers = [
            side.bench.settle(policy, request, nonce, used, outcome)
            for side in (self.quick, self.whole)
        ]
        assert _alike(*answers), "a settle"

    def tick(self) -> None:
        """The clock moves, mostly by what is little to the limits, sometimes far or back."""
        times = (0, 7, 100_003, 900_001, 900_001, 3 * US + 1, 20 * US)
        far = (200 * US, -US, -40 * US)
        self._pass(self.random.choice(times if self.random.random() < 0.85 else far))

    def _pass(self, time: int) -> None:
        for side in (self.quick, self.whole):
            side.bench.now += time

    def observe(self) -> None:
        """A provider says something about some limits."""
        policy = self.policy()
        step = Step("observe", self.random.randrange(16), self.random.randrange(60), 0)
        readings = _readings(policy, step)
        for side in (self.quick, self.whole):
            side.bench.observe(policy, readings)

    def hold(self) -> None:
        """An operator holds a limit, or lets go."""
        policy = self.policy()
        if not policy.limits:
            return
        nth = self.random.randrange(len(policy.limits))
        limit = policy.limits[nth]
        if limit.window != "bucket":
            return
        told = Told(limit.limit / 2, limit.capacity / 2, limit.rate / 2, 5 * US)
        told = self.random.choice((told, None, None))
        for side in (self.quick, self.whole):
            side.bench.hold(policy, nth, told)

    def reload(self) -> None:
        """Another configuration comes into force."""
        self.config = self.random.choice((0, 1, 1, 2, 5, *range(len(CONFIGS))))

    def wait(self) -> None:
        """Some ask, and some calls end, while somebody stands in the queue."""
        queue = self.quick.bench.keys.queue()
        for side in (self.quick, self.whole):
            side.client.set(queue, "somebody", ex=3600)
        self.acquire()
        self.settle()
        for side in (self.quick, self.whole):
            side.client.delete(queue)

    def _request(self, policy: Policy) -> Request:
        random = self.random
        amount = random.choice((0, 1, 3, 10, 37, 111) * 3 + (400,))
        known = [
            request for *who, request, _ in self.leases if who == [policy.model, policy.tenant]
        ]
        new = not known or random.random() < 0.85
        name = f"r{random.randrange(10**6)}" if new else random.choice(known[-9:])
        if random.random() < 0.05:
            name = "again"
        return Request(
            id=name,
            fingerprint=1 if random.random() < 0.9 else 2,
            marks=random.randrange(_WORKERS) + (_RETRY if random.random() < 0.04 else 0),
            ttl=random.choice((70 * US, 70 * US, 5 * US)),
            amounts=[
                1 if limit.meter in {Meter.REQUESTS, Meter.CONCURRENCY} else amount
                for limit in policy.limits
            ],
        )


def run(clients: Two, faults: Mapping[str, str] | None = None) -> Callable[[int], Twins]:
    """A function that runs the history of a seed; AssertionError is a difference."""
    loaded = scripts(faults), scripts()

    def one(seed: int) -> Twins:
        sides = Side(clients[0], loaded[0]), Side(clients[1], loaded[1])
        twins = Twins(sides, Random(seed))
        try:
            for _ in range(LENGTH):
                twins.step()
            twins.finish()
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
        return twins

    return one


_LEASES = {
    Verdict.DONE, Verdict.DONE_WHILE_OTHERS_WAIT, Verdict.REPEATED, Verdict.ALREADY,
}  # fmt: skip
"""Answers that are a lease."""


def _numbers(text: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(text) // 8}d", text))


def _without_expiry(state: list[float]) -> list[float]:
    """A state without the time until which it is kept: a group sets it once."""
    state[_KEPT] = 0.0
    return state


def _without_levels(lease: list[float]) -> list[float]:
    """A lease without what the states were after the grant: those of a group are told what they
    are after all of it.
    """
    try:
        at = 9 + int(lease[8])
        levels, end = read(lease, at, int(lease[8])) if lease[8] else ([], at)
    except (IndexError, ValueError) as error:
        raise AssertionError("a lease without its states") from error
    return lease[:at] + [level.limit_id for level in levels] + lease[end:]


def _alike(answer: Answer, expected: Answer) -> bool:
    """Whether two answers differ in no more than levels."""
    if answer.verdict is not expected.verdict:
        return False
    if answer.verdict is Verdict.DENIED:
        return answer.numbers[:2] == expected.numbers[:2]
    if answer.verdict not in _LEASES:
        return answer == expected
    return _without_levels(list(answer.numbers)) == _without_levels(list(expected.numbers))


def _levels(answer: Answer, limits: int) -> list[Level]:
    """What an answer tells of limits."""
    start = 2 if answer.verdict is Verdict.DENIED else 9 + limits
    return read(answer.numbers, start, limits)[0]


def _difference(quick: Mapping[bytes, Any], whole: Mapping[bytes, Any]) -> str:
    for key in {**quick, **whole}:
        if quick.get(key) != whole.get(key):
            return f"{key!r} is {quick.get(key)!r} instead of {whole.get(key)!r}"
    return "nothing"
