"""xAI: OpenAI's bodies; requests are counted by the second."""

from limiter_wire.providers.rules import Rule, http, throttled, too_long

RULES: tuple[Rule, ...] = (
    http(400, too_long(), text=r"maximum prompt length"),
    http(429, throttled("second_or_minute")),
)
