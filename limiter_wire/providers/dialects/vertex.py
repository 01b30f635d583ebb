"""Vertex AI: a 429 that names no quota is contention for a shared pool."""

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.rules import Rule, http, throttled

_CONTENTION = throttled("shared_quota", category=Outcome.OVERLOADED)

RULES: tuple[Rule, ...] = (http(429, _CONTENTION, text=r"^(?!.*Quota exceeded for)"),)
