"""The pools file of a trial: windows of each kind, slots, a queue, a breaker, one big budget."""

from limiter_service.config import parse
from limiter_service.engine.policy import Policies

LEASE, PROBE_TTL, PROBES = 2.0, 2.0, 2
BUDGET, LIMIT = "budget", 1_000_000_000
REFILL = 1000 / (366 * 86_400)
"""Tokens of the budget that come back in a second: what was taken is seen at the end."""

CALLERS = 16
"""For so many at a time the limits are tight."""


def text(pool: str, durability: str = "fast", scale: int = 1) -> str:
    """The file, for *scale* times as many callers."""
    return f"""
pools:
  {pool}:
    lease_ttl: {LEASE:g}s
    on_store_loss: closed
    durability: {durability}
    remember: 3h
    limits:
      - {{name: {BUDGET}, meter: tokens, limit: 1000, per: 366d, burst: {LIMIT}}}
      - {{name: all, meter: tokens, limit: {30_000 * scale}, per: 5s, window: sliding}}
    models:
      m1:
        limits:
          - {{name: tokens, meter: tokens, limit: {20_000 * scale}, per: 5s, burst: {2000 * scale}}}
          - {{name: slots, meter: concurrency, limit: {12 * scale}}}
      m2:
        limits:
          - {{name: calls, meter: requests, limit: {100 * scale}, per: second, burst: {20 * scale}}}
      one: {{limits: [{{name: slot, meter: concurrency, limit: 1}}]}}
    tenants:
      small: {{limits: [{{name: own, meter: tokens, limit: {5000 * scale}, per: 5s}}]}}
    queue: {{max_waiters: 10000, max_wait: 120s}}
    breaker:
      {{window: 6s, min_calls: 50, failure_rate: 0.3, consecutive: 5, workers: 1, open: 500ms,
      max_open: 2s, probes: {PROBES}, successes: 2, probe_ttl: {PROBE_TTL:g}s, ramp: 1s, decay: 5s}}
"""


def policies(pool: str, scale: int = 1) -> Policies:
    """As the service has them."""
    return Policies(parse(text(pool, scale=scale), ".yaml"), "sg:")
