"""Who is not served, and why: counted where it is decided, by reasons that are few."""

from enum import StrEnum

from limiter_service.engine.refusals import Refusal, refuse
from limiter_wire import ErrorCode


class Why(StrEnum):
    """Why a caller is turned away."""

    NO_KEY = "no_key"
    """It sent none, and one is needed."""
    NOT_A_KEY = "not_a_key"
    """What it sent does not look like one."""
    INVALID = "invalid"
    """Nobody made it, or its secret is wrong."""
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNHEARD = "unheard"
    """The store does not answer, so nobody knows."""
    FOREIGN_PAGE = "foreign_page"
    """A browser asks for a page of another site."""
    ROLE = "role"
    """The key has none of the roles."""
    BOUNDS = "bounds"
    """The key is bound to other pools or tenants."""


_CODES = {
    Why.UNHEARD: ErrorCode.STORE_UNAVAILABLE,
    Why.FOREIGN_PAGE: ErrorCode.FORBIDDEN,
    Why.ROLE: ErrorCode.FORBIDDEN,
    Why.BOUNDS: ErrorCode.FORBIDDEN,
}


class Turnstile:
    """Counts whom one replica turns away."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = dict.fromkeys(map(str, Why), 0)

    def bar(self, why: Why, detail: str) -> Refusal:
        """Count a caller that is turned away; the refusal to raise."""
        self.counts[why] += 1
        retry_after = 1.0 if why is Why.UNHEARD else None
        code = _CODES.get(why, ErrorCode.UNAUTHENTICATED)
        return refuse(code, detail, retry_after=retry_after)
