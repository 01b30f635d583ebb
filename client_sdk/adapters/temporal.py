"""Temporal: activities under leases; what has no room now is retried when it fits.

    worker = Worker(client, ..., interceptors=[LimiterInterceptor(limiter, wanted)])

where `wanted(input)` gives the options of `acquire` for an activity, or None.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from client_sdk import Lease, Limiter, Refused

Wanted = Callable[[ExecuteActivityInput], Mapping[str, Any] | None]

_current: ContextVar[Lease | None] = ContextVar("sluicegate-temporal", default=None)


def current_lease() -> Lease | None:
    """The lease of the activity that runs here, to tell it what was used."""
    return _current.get()


class LimiterInterceptor(Interceptor):  # type: ignore[misc]  # mypy does not see the package
    """Takes a lease before an activity runs, and settles it afterwards."""

    def __init__(self, limiter: Limiter, wanted: Wanted) -> None:
        self._limiter, self._wanted = limiter, wanted

    def intercept_activity(self, next: Any) -> Any:
        """Stand before the activity."""
        return _Inbound(next, self._limiter, self._wanted)


class _Inbound(ActivityInboundInterceptor):  # type: ignore[misc]  # as above
    def __init__(self, following: Any, limiter: Limiter, wanted: Wanted) -> None:
        super().__init__(following)
        self._limiter, self._wanted = limiter, wanted

    async def execute_activity(self, input: Any) -> Any:
        """Run the activity under a lease."""
        options = self._wanted(input)
        if options is None:
            return await super().execute_activity(input)
        try:
            lease = await self._limiter.acquire(**options)
        except Refused as error:
            raise _failure(error) from error
        async with lease:
            token = _current.set(lease)
            try:
                return await super().execute_activity(input)
            finally:
                _current.reset(token)


def _failure(error: Refused) -> Exception:
    wait = error.retry_after
    failure: Exception = ApplicationError(
        str(error),
        type=type(error).__name__,
        non_retryable=not error.retryable,
        next_retry_delay=None if wait is None else timedelta(seconds=wait),
    )
    return failure
