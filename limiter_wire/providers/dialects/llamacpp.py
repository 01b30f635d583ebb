"""llama.cpp's server: sizes stand in the body, and loading a model takes a while."""

from limiter_wire.providers.failures import Refund
from limiter_wire.providers.rules import Rule, http, overloaded, too_long

RULES: tuple[Rule, ...] = (
    http(400, too_long(refund=Refund.ALL), code=r"exceed_context_size_error"),
    http(503, overloaded("loading", refund=Refund.ALL), code=r"unavailable_error"),
)
