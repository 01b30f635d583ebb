"""A server that behaves like a language-model provider: its limits, headers, errors, streams.

It exists so that everything can be tried and tested without keys. It speaks the OpenAI
chat dialect and shares no code with the limiter that it is there to check.
"""

from limiter_service.provider_sim.app import create_sim_app
from limiter_service.provider_sim.counters import SimStats
from limiter_service.provider_sim.limits import Charge, Window
from limiter_service.provider_sim.options import InvalidOptionError, SimOptions

__all__ = ["Charge", "InvalidOptionError", "SimOptions", "SimStats", "Window", "create_sim_app"]
