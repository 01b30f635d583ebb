"""Ollama: a local server; an error is a string, a full queue a 503."""

from limiter_wire.outcomes import Outcome
from limiter_wire.providers.failures import Refund
from limiter_wire.providers.rules import (
    Rule,
    http,
    in_stream,
    missing,
    server_error,
    stream,
    throttled,
    too_long,
)

_QUEUE_FULL = throttled("queue_full", refund=Refund.ALL, category=Outcome.OVERLOADED)

RULES: tuple[Rule, ...] = (
    http(503, _QUEUE_FULL, text=r"maximum pending requests|server busy"),
    http(400, too_long(refund=Refund.ALL), text=r"input length exceeds the context length"),
    http(404, missing("not_installed")),
    stream(r"error", in_stream(server_error("in_stream"))),
)
