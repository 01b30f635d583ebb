"""Fireworks AI: adaptive limits on prompt, uncached prompt and generated tokens."""

from limiter_wire.providers.rules import (
    Rule,
    http,
    in_stream,
    overloaded,
    server_error,
    stream,
    throttled,
)

RULES: tuple[Rule, ...] = (
    http(429, throttled("adaptive")),
    http(503, overloaded()),
    stream(r"error", in_stream(server_error("in_stream"))),
)
