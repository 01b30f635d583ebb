"""One call as it is asked for, and what its requests need. Pure."""

from collections.abc import Sequence

import msgspec

from client_sdk.llm.endpoints import Target
from client_sdk.llm.options import CallOptions, Message, Tool
from client_sdk.llm.retrying import RetryPolicy
from client_sdk.streaming import StreamTimeouts


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, of whom (the first of `targets`, the others in its place), and how."""

    targets: tuple[Target, ...]
    messages: Sequence[Message]
    tools: Sequence[Tool] | None
    options: CallOptions
    stream: bool
    request_id: str
    timeouts: StreamTimeouts
    retry: RetryPolicy
    recovery: tuple[str, ...]


def timeouts_left(timeouts: StreamTimeouts, *, stream: bool, spent: float) -> StreamTimeouts:
    """The limits of one request of a call that has taken *spent* seconds.

    An answer that is not streamed says nothing until it is whole: it has as long as a first
    token.
    """
    total = None if timeouts.total is None else max(0.001, timeouts.total - spent)
    if stream:
        return msgspec.structs.replace(timeouts, total=total)
    patience = timeouts.first_token
    if patience is not None and timeouts.first_byte is not None:
        patience = max(patience, timeouts.first_byte)
    return msgspec.structs.replace(timeouts, first_byte=patience, first_token=None, total=total)
