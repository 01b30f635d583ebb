"""What stories are about: the pools file, what may befall it, and who waits."""

import msgspec
from tests_support.scripts import POOL

from limiter_service.config import Config, parse

PROBE_TTL, PROBES, LEASE = 4.0, 2, 6.0
REPLICAS, CALLERS = 3, 48

_NETWORK = ("lost requests", "lost replies", "doubled requests", "slow way", "partition")
_CALM = ("scripts forgotten", "dead callers", "provider down")
_CLOCK = ("clock forward", "clock back")
FAULTS = (
    *_NETWORK, "replica crash", "failover", *_CLOCK, *_CALM,
    "lost messages", "hang-ups", "store away",
)  # fmt: skip

# Where these are absent, replicas are never apart, and nothing is late.
APART = frozenset({*_NETWORK, "replica crash", "failover", *_CLOCK})


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """`always` befalls it in every story, each of `faults` in two of five. `waits` are the
    patiences of callers. In a part of the stories, `calm`, replicas are never apart: then it is
    known to the moment what they owe. With a `beat` callers do what they do at whole beats, and
    replicas reach the store by lanes, in which their calls meet. `well` is the part of calls that
    succeed.
    """

    config: Config
    faults: tuple[str, ...]
    always: frozenset[str] = frozenset()
    waits: tuple[float, ...] = (0.0,)
    alone: bool = False
    calm: float = 0.0
    models: tuple[str, ...] = ("m1", "m1", "m2")
    tenants: tuple[str, ...] = ("big", "big", "small")
    slowest: float = 0.4
    between: float = 2.0
    callers: int = CALLERS
    holders: int = 0
    pace: float = 8.0
    beat: float = 0.0
    well: float = 0.6


def _config(on_store_loss: str, more: str = "", tokens: int = 800, slots: int = 12) -> Config:
    return parse(
        f"""
pools:
  {POOL}:
    lease_ttl: {LEASE:g}s
    on_store_loss: {on_store_loss}
    remember: 20s
    limits: [{{name: all, meter: tokens, limit: 1000, per: 10s, window: sliding}}]
    models:
      m1: {{limits: [{{name: tokens, meter: tokens, limit: {tokens}, per: 10s, burst: 400}}, {{name: slots, meter: concurrency, limit: {slots}}}]}}
      m2: {{limits: [{{name: calls, meter: requests, limit: 16, per: second, burst: 8}}]}}
    tenants:
      big: {{weight: 4}}
      small: {{limits: [{{name: own, meter: tokens, limit: 200, per: 10s}}], models: {{m2: {{concurrency: 4}}}}}}
    breaker: {{window: 6s, min_calls: 5, consecutive: 4, workers: 1, open: 1s, max_open: 4s,
      probes: {PROBES}, successes: 2, probe_ttl: {PROBE_TTL:g}s, ramp: 2s, decay: 5s}}
{more}
""",
        ".yaml",
    )


PLOTS = {
    "calls": Plot(
        config=_config("closed"),
        faults=(*_NETWORK, "replica crash", "failover", *_CLOCK, *_CALM),
        between=0.7,
    ),
    "queue": Plot(
        config=_config(
            "closed",
            """    queue: {max_waiters: 32, max_wait: 20s, priority_shares: {"0-2": 0.3}}""",
        ),
        faults=FAULTS[:-1],
        always=frozenset({"hang-ups"}),
        waits=(0.0, 0.0, 0.5, 2.0, 4.0, 8.0, 16.0),
        calm=0.4,
    ),
    "alone": Plot(
        config=_config("degrade", tokens=400, slots=30),
        faults=(*_NETWORK, "replica crash", "failover", *_CALM, "lost messages", "hang-ups"),
        always=frozenset({"store away"}),
        waits=(0.0, 0.0, 0.0, 1.0, 4.0),
        alone=True,
        calm=0.4,
    ),
}
PLOTS["groups"] = Plot(
    config=parse(
        f"""
pools:
  {POOL}:
    lease_ttl: {LEASE:g}s
    on_store_loss: closed
    remember: 20s
    limits: [{{name: all, meter: tokens, limit: 12000, per: 10s, burst: 1000}}, {{name: each, meter: requests, limit: 300, per: 10s, burst: 24}}]
    models:
      m1: {{limits: [{{name: tokens, meter: tokens, limit: 16000, per: 10s, burst: 1200}}, {{name: second, meter: requests, limit: 1000, per: second}}, {{name: minute, meter: requests, limit: 60000, per: minute}}, {{name: hour, meter: tokens, limit: 40000000, per: hour}}, {{name: day, meter: tokens, limit: 900000000, per: day}}]}}
      m2: {{limits: [{{name: calls, meter: requests, limit: 12, per: second, burst: 8}}]}}
      m3: {{}}
    tenants:
      big: {{weight: 4}}
      small: {{limits: [{{name: own, meter: tokens, limit: 3000, per: 10s, burst: 500}}]}}
    breaker: {{window: 6s, min_calls: 5, consecutive: 4, workers: 1, open: 1s, max_open: 4s,
      probes: {PROBES}, successes: 2, probe_ttl: {PROBE_TTL:g}s, ramp: 2s, decay: 5s}}
""",
        ".yaml",
    ),
    faults=(*_NETWORK, "replica crash", "failover", *_CLOCK, *_CALM, "lost messages", "hang-ups"),
    waits=(0.0,) * 10 + (1.0, 2.0),
    calm=0.4,
    models=("m1",) * 3 + ("m2",) + ("m3",) * 4,
    tenants=("big",) * 6 + ("small",),
    slowest=0.1,
    callers=100,
    pace=1.0,
    beat=0.25,
    well=0.998,
)
PLOTS["blocks"] = Plot(
    config=parse(
        f"""
pools:
  {POOL}:
    lease_ttl: {LEASE:g}s
    on_store_loss: closed
    remember: 20s
    blocks: {{share: 0.3, hold: 2s}}
    limits: [{{name: all, meter: tokens, limit: 3000, per: 10s, window: sliding}}]
    models:
      m1: {{limits: [{{name: tokens, meter: tokens, limit: 2200, per: 10s, burst: 800}}, {{name: calls, meter: requests, limit: 500, per: 10s, burst: 150}}]}}
      m2: {{limits: [{{name: calls, meter: requests, limit: 15, per: second, burst: 40}}]}}
    tenants:
      big: {{weight: 4}}
      small: {{limits: [{{name: own, meter: tokens, limit: 900, per: 10s, burst: 300}}]}}
    breaker: {{window: 6s, min_calls: 5, consecutive: 4, workers: 1, open: 1s, max_open: 4s,
      probes: {PROBES}, successes: 2, probe_ttl: {PROBE_TTL:g}s, ramp: 2s, decay: 5s}}
""",
        ".yaml",
    ),
    faults=(*_NETWORK, "replica crash", "failover", *_CLOCK, *_CALM, "lost messages", "hang-ups"),
    waits=(0.0,) * 6 + (1.0, 4.0),
    calm=0.4,
    callers=24,
    pace=1.0,
    holders=6,
    well=0.985,
)
PLOTS["mixed"] = Plot(
    config=parse(
        f"""
pools:
  {POOL}:
    lease_ttl: {LEASE:g}s
    on_store_loss: degrade
    remember: 20s
    blocks: {{share: 0.3, hold: 2s}}
    limits: [{{name: all, meter: tokens, limit: 6000, per: 10s, burst: 1000}}, {{name: each, meter: requests, limit: 300, per: 10s, burst: 90}}]
    models:
      m1: {{limits: [{{name: tokens, meter: tokens, limit: 8000, per: 10s, burst: 800}}]}}
      m2: {{limits: [{{name: calls, meter: requests, limit: 12, per: second, burst: 30}}]}}
      m3: {{}}
    tenants:
      big: {{weight: 4}}
      small: {{limits: [{{name: own, meter: tokens, limit: 1500, per: 10s, burst: 400}}]}}
    breaker: {{window: 6s, min_calls: 5, consecutive: 4, workers: 1, open: 1s, max_open: 4s,
      probes: {PROBES}, successes: 2, probe_ttl: {PROBE_TTL:g}s, ramp: 2s, decay: 5s}}
""",
        ".yaml",
    ),
    faults=(*_NETWORK, "replica crash", "failover", *_CALM, "lost messages", "hang-ups"),
    always=frozenset({"store away"}),
    waits=(0.0,) * 8 + (1.0, 4.0),
    alone=True,
    calm=0.4,
    models=("m1",) * 3 + ("m2",) + ("m3",) * 3,
    tenants=("big",) * 4 + ("small",),
    slowest=0.1,
    callers=48,
    holders=4,
    pace=1.0,
    beat=0.25,
    well=0.99,
)
_TURNS = ("calls", "queue", "groups", "alone", "blocks")


def plot_of(seed: int) -> str:
    """Which plot the story of a seed has: one by one, and every second time that replicas are
    alone they lend blocks, too, and have decided over groups before.
    """
    turn = _TURNS[seed % len(_TURNS)]
    return "mixed" if turn == "alone" and seed // len(_TURNS) % 2 else turn
