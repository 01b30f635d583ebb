"""Acquires and settles as the scripts take them, and the replies to them, read."""

from collections.abc import Sequence

from limiter_service.store.errors import StoreProtocol
from limiter_service.store.messages import Chain, Claim, Reply, Report, Verdict
from limiter_service.store.packing import doubles, unpack
from limiter_service.store.parcels import Kin

_RETRY = 512  # among the marks of a lease (lua/lib/lease)
_SUCCESS = 1  # a class of outcomes (lua/lib/breaker)
_one = doubles(1)


def kin_of(chain: Chain, claim: Claim) -> Kin | None:
    """With whom an acquire may be decided: a retry goes alone."""
    return None if claim.marks % (2 * _RETRY) >= _RETRY else chain.asking


def kin_of_settle(chain: Chain, report: Report) -> Kin | None:
    """With whom a settle may be decided: what teaches nothing."""
    if report.first_token or report.readings or report.slow or report.outcome_class != _SUCCESS:
        return None
    return chain.settling


def reporting(tag: float, nonce: float, report: Report) -> bytes:
    """A settle."""
    used = report.used
    numbers = doubles(7 + len(used))(
        tag,
        nonce,
        report.first_token + (2 if report.readings else 0),
        report.outcome_class,
        report.kind,
        report.slow,
        report.retry_after,
        *used,
    )
    return numbers + report.readings


def plainly_reporting(tag: float, nonce: float, used: Sequence[float]) -> bytes:
    """A settle that tells of a success, and what was used."""
    return doubles(7 + len(used))(tag, nonce, 0.0, _SUCCESS, 0.0, 0.0, 0.0, *used)


def asking(
    fingerprint: float,
    ttl: float,
    remember: float,
    marks: float,
    amounts: Sequence[float],
    generation: float = 1.0,
) -> bytes:
    """What an acquire asks for, but for the nonce that stands in front of it."""
    count = len(amounts)
    return doubles(8 + count)(
        fingerprint, ttl, remember, 0.0, 0.0, generation, marks, count, *amounts
    )


def named(nonce: float, asked: bytes) -> bytes:
    """What an acquire asks for, under its *nonce*."""
    return _one(nonce) + asked


def claim_in(asked: bytes) -> Claim:
    """What an acquire asks for, read back."""
    nonce, fingerprint, ttl, remember, _, _, _, marks, _, *amounts = unpack(asked)
    return Claim(
        nonce=nonce,
        fingerprint=fingerprint,
        ttl=ttl,
        remember=remember,
        marks=marks,
        amounts=amounts,
    )


def request_of(claim: Claim, generation: float = 1.0) -> bytes:
    """An acquire."""
    told = claim.fingerprint, claim.ttl, claim.remember, claim.marks, claim.amounts
    return named(claim.nonce, asking(*told, generation))


def reply_of(name: str, request: bytes, answer: bytes) -> Reply:
    """What a script answers to a request. Raises StoreProtocol where it is another's."""
    if answer[:8] != request[:8]:
        raise StoreProtocol(f"the answer to {name} belongs to another call")
    return Reply(_VERDICTS[answer[8]], unpack(answer[9:]))


_VERDICTS = {ord(verdict): verdict for verdict in Verdict}
