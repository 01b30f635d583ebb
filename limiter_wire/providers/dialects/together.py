"""Together AI: limits that follow one's own traffic of the past hour."""

from limiter_wire.providers.rules import Rule, http, overloaded, throttled

RULES: tuple[Rule, ...] = (
    http(429, throttled("dynamic"), code=r"dynamic_(request|token)_limited"),
    http(429, throttled("unspecified")),
    # Below one's own dynamic rate a refusal is the provider's shortage.
    http(503, overloaded("below_own_rate")),
)
