"""A server that behaves like a language-model provider: limits, headers, errors, streams, faults.

It exists so that everything can be tried and tested without keys. It speaks the dialects of
the large providers, counts as they do, fails on request, and shares no code with the limiter
that it is there to check.
"""

from limiter_service.provider_sim.app import create_sim_app
from limiter_service.provider_sim.counters import SimStats
from limiter_service.provider_sim.ledger import Count, CountersView
from limiter_service.provider_sim.options import (
    Charge,
    InvalidOptionError,
    Rules,
    Scope,
    SimOptions,
    Window,
)
from limiter_service.provider_sim.serving import running

__all__ = [
    "Charge",
    "Count",
    "CountersView",
    "InvalidOptionError",
    "Rules",
    "Scope",
    "SimOptions",
    "SimStats",
    "Window",
    "create_sim_app",
    "running",
]
