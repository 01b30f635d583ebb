"""What a call used, as the provider reported it."""

from enum import StrEnum

from limiter_wire._base import Tokens, Wire


class Provenance(StrEnum):
    """How the figures of a usage came about."""

    FINAL = "final"
    PARTIAL = "partial"
    ESTIMATED = "estimated"
    UNKNOWN = "unknown"


class Usage(Wire, frozen=True, kw_only=True):
    """Tokens by component.

    `input_tokens` contains `cache_read_tokens` and `cache_write_tokens`, and
    `output_tokens` contains `reasoning_tokens`, whatever the provider's own report adds up
    to; limits weigh each component once.
    """

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cache_read_tokens: Tokens = 0
    cache_write_tokens: Tokens = 0
    reasoning_tokens: Tokens = 0
    provenance: Provenance = Provenance.FINAL
