"""The plots of trials: a pools file for each, with one big budget, and who calls in which way."""

import msgspec

from limiter_service.config import parse
from limiter_service.engine.policy import Policies

LEASE, PROBE_TTL, PROBES = 2.0, 2.0, 2
BUDGET, LIMIT = "budget", 1_000_000_000
REFILL = 1000 / (366 * 86_400)
"""Tokens of the budget that come back in a second: what was taken is seen at the end."""

CALLERS = 16
"""For so many at a time the limits are tight."""

BLOCK = "block."
"""What the id of a lease begins with that a worker has handed out itself."""


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial is about.

    `windows` of each kind, or buckets alone, whose calls may be decided together. `crowds` are
    calls of one size at one moment; the part `waits` may wait. A worker may hold blocks of
    `prefetch` calls: those of USUAL. `on_loss` is what happens without the store. The part
    `failures` of calls ends badly, after which a circuit is not calm for a while. The most used
    model has `plenty` times as much.
    """

    windows: bool = True
    crowds: bool = False
    waits: float = 1 / 3
    prefetch: int = 0
    on_loss: str = "closed"
    failures: float = 0.2
    plenty: int = 1
    lease: float = LEASE


PLOTS = {
    "ordinary": Plot(),
    "groups": Plot(windows=False, crowds=True, waits=0.01, failures=0.02),
    "blocks": Plot(
        windows=False, crowds=True, waits=0.15, prefetch=50, failures=0.003, plenty=5, lease=4.0
    ),
    "degrade": Plot(on_loss="degrade"),
    "open": Plot(on_loss="open"),
}

USUAL = ("m1", "big")
"""The model and tenant of calls that may be handed out of a block."""

_WINDOWS = """
      - {{name: all, meter: tokens, limit: {all}, per: 5s, window: sliding}}"""
_SLOTS = """
          - {{name: slots, meter: concurrency, limit: {slots}}}"""
_TEXT = """
pools:
  {pool}:
    lease_ttl: {lease:g}s
    on_store_loss: {on_loss}
    durability: {durability}
    remember: 3h
    blocks: {{share: 1, hold: 1s}}
    limits:
      - {{name: {budget}, meter: tokens, limit: 1000, per: 366d, burst: {limit}}}{sliding}
    models:
      m1:
        limits:
          - {{name: tokens, meter: tokens, limit: {tokens}, per: 5s, burst: {burst}}}{slots}
      m2:
        limits:
          - {{name: calls, meter: requests, limit: {calls}, per: second, burst: {several}}}
      one: {{limits: [{{name: slot, meter: concurrency, limit: 1}}]}}
    tenants:
      small: {{limits: [{{name: own, meter: tokens, limit: {own}, per: 5s}}]}}
    queue: {{max_waiters: 10000, max_wait: 120s}}
    breaker:
      {{window: 6s, min_calls: 50, failure_rate: 0.3, consecutive: 5, workers: 1, open: 500ms,
      max_open: 2s, probes: {probes}, successes: 2, probe_ttl: {probe_ttl:g}s, ramp: 1s, decay: 5s}}
"""


def text(pool: str, plot: str = "ordinary", durability: str = "fast", scale: int = 1) -> str:
    """The file, for *scale* times as many callers."""
    told = PLOTS[plot]
    return _TEXT.format(
        pool=pool,
        lease=told.lease,
        on_loss=told.on_loss,
        durability=durability,
        budget=BUDGET,
        limit=LIMIT,
        sliding=_WINDOWS.format(all=30_000 * scale) if told.windows else "",
        tokens=20_000 * scale * told.plenty,
        burst=2000 * scale * told.plenty,
        slots=_SLOTS.format(slots=12 * scale) if told.windows else "",
        calls=100 * scale,
        several=20 * scale,
        own=5000 * scale,
        probes=PROBES,
        probe_ttl=PROBE_TTL,
    )


def policies(pool: str, plot: str = "ordinary", scale: int = 1) -> Policies:
    """As the service has them."""
    return Policies(parse(text(pool, plot, scale=scale), ".yaml"), "sg:")
