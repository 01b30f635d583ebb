"""What requests demand of a chain, computed once for all that ask for the same. Pure."""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from limiter_service.engine import breaking, charging, ids
from limiter_service.engine.charging import PriceMissing
from limiter_service.engine.policy import Policy
from limiter_service.engine.refusals import refuse
from limiter_service.engine.template import Template
from limiter_service.store.claims import asking
from limiter_wire import Acquire, ErrorCode

_MICRO = 1_000_000
_encode = msgspec.msgpack.Encoder().encode


class Demand(msgspec.Struct, frozen=True):
    """What a request asks for.

    `amounts` for each limit in its units; `asked` what the scripts are told, but for the nonce;
    `again` whether it is a retry. Where grants have a shape also the largest charge of each
    meter, and that as msgpack.
    """

    amounts: list[float]
    asked: bytes
    again: bool
    charged: dict[str, float] = {}
    told: bytes = b""


def demand(policy: Policy | Template, request: Acquire, amounts: list[float]) -> Demand:
    """The demand of *request*, which asks for *amounts*: the same of each tenant of a section."""
    marks = breaking.marks(request.worker, request.attempt)
    ttl = policy.lease_ttl if request.ttl is None else request.ttl
    charged = {} if policy.shape is None else policy.shape.charged(amounts)
    return Demand(
        amounts,
        asking(fingerprint(request), int(ttl * _MICRO), policy.remember_us, marks, amounts),
        request.attempt > 1,
        charged,
        _encode(charged),
    )


def usual(policy: Policy, request: Acquire) -> Demand | None:
    """The demand of a request that gives nothing but `tokens`, where grants have a shape; else
    None.
    """
    if (
        policy.shape is None
        or request.tokens is None
        or request.input_tokens is not None
        or request.max_output_tokens is not None
        or request.cache_read_tokens
        or request.cache_write_tokens
        or request.ttl is not None
        or request.cost_usd is not None
    ):
        return None
    return _of_tokens(policy.template, request.tokens, request.worker, request.attempt)


@lru_cache(4096)
def _of_tokens(template: Template, tokens: int, worker: str | None, attempt: int) -> Demand:
    request = Acquire(resource=template.resource, tokens=tokens, worker=worker, attempt=attempt)
    return demand(template, request, charging.reserve(template, request, None))


def fingerprint(request: Acquire) -> int:
    """A number that is equal for requests that ask for the same."""
    cached = (request.cache_read_tokens, request.cache_write_tokens)
    return ids.fingerprint(
        request.resource,
        request.tokens,
        request.input_tokens,
        request.max_output_tokens,
        request.cost_usd,
        request.ttl,
        *(
            cached if any(each is not None for each in cached) else ()
        ),  # other replicas may not know them yet
        *(() if request.block is None else ("block", request.block)),
    )


def amounts_of(
    policy: Policy, request: Acquire, expected: Callable[[], float | None]
) -> list[float]:
    """What each limit of the chain holds for a request; *expected* says how long its answer will
    be, where it does not. Raises Refusal.
    """
    if (request.tokens is None) == (request.input_tokens is None):
        raise refuse(
            ErrorCode.INVALID,
            "give one of `tokens` and `input_tokens`",
            resource=request.resource,
        )
    if request.tokens is not None and request.max_output_tokens is not None:
        raise refuse(
            ErrorCode.INVALID,
            "`max_output_tokens` goes with `input_tokens`, not with `tokens`",
            resource=request.resource,
        )
    cached = (request.cache_read_tokens or 0) + (request.cache_write_tokens or 0)
    if cached > (request.input_tokens or 0):
        raise refuse(
            ErrorCode.INVALID,
            "`cache_read_tokens` and `cache_write_tokens` are parts of `input_tokens`",
            resource=request.resource,
        )
    try:
        return charging.reserve(policy, request, expected() if policy.expects else None)
    except PriceMissing as error:
        raise refuse(ErrorCode.INVALID, str(error), resource=policy.resource) from error
