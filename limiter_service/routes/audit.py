"""The log of what admins do: one line for each thing that was done."""

import structlog
from fastapi import Request

from limiter_service.door import caller_of

_log = structlog.get_logger()


def audit(request: Request, action: str, target: str, reason: str) -> None:
    """Say who did what, and why. Events, which the store keeps, say the same."""
    _log.info(
        "admin action",
        action=action,
        target=target,
        actor=caller_of(request.scope).actor,
        reason=reason,
        request_id=getattr(request.state, "request_id", None),
    )
