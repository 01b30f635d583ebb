"""The base of every wire type and the ranges that they share."""

from typing import Annotated

import msgspec

MAX_AMOUNT = 1_000_000_000_000
"""The largest amount of tokens in one request: far above any model, exact in a double."""


class Wire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A value that crosses the wire: immutable, named fields only."""


# Both bounds are needed: NaN and infinity decode from msgpack, and fail only a `le`.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT)]
PositiveTokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]
Money = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]

# Visible characters only: names travel in keys, headers and logs. A bare `$` would let a
# newline at the end pass.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[!-~]+(?!\n)$")]
ResourceName = Annotated[
    str,
    msgspec.Meta(
        min_length=3,
        max_length=300,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[!-~]+(?!\n)$",
        description="pool/model; the model may contain further slashes",
        examples=["openai/gpt-4o"],
    ),
]
LeaseId = Annotated[
    str, msgspec.Meta(min_length=1, max_length=2000, pattern=r"^[A-Za-z0-9_.-]+(?!\n)$")
]
