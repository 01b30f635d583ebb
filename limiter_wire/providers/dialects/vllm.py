"""vLLM and SGLang: OpenAI's bodies from one's own machines; `[DONE]` comes even after errors."""

from limiter_wire.providers.failures import Refund
from limiter_wire.providers.rules import (
    Rule,
    http,
    in_stream,
    interrupted,
    server_error,
    stream,
    too_long,
)

_TOO_LONG = r"maximum context length|context length is only"

RULES: tuple[Rule, ...] = (
    http(400, too_long(refund=Refund.ALL), text=_TOO_LONG),
    stream(r"error|BadRequest|Internal", in_stream(server_error("in_stream"))),
)

SGLANG: tuple[Rule, ...] = (stream(r"abort", interrupted("abort")),)
