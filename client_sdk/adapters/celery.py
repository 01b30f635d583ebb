"""Celery: a task that comes back when there is room, and blocks no worker meanwhile.

    @app.task(bind=True, max_retries=None)
    @limited(limiter, "openai/gpt-4o", tokens=1200)
    def summarise(self, lease, text): ...

Celery's own `rate_limit` counts for each worker alone.
"""

import functools
from collections.abc import Callable
from typing import Any

from client_sdk import Refused, ServiceUnavailable, SyncLease, SyncLimiter

_WITHOUT_A_TIME = 5.0


def limited(
    limiter: SyncLimiter | Callable[[], SyncLimiter],
    resource: str | Callable[..., str],
    **options: Any,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run the task under a lease, which it gets behind `self`; *options* are those of `acquire`.

    What has no room now is retried by Celery when it fits. *limiter* may be a function, so
    that each worker process makes its own; *resource* a function of the task's arguments.
    """

    def decorate(task: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(task)
        def run(self: Any, *arguments: Any, **named: Any) -> Any:
            name = resource(*arguments, **named) if callable(resource) else resource
            with _lease(self, limiter, name, options) as lease:
                return task(self, lease, *arguments, **named)

        return run

    return decorate


def _lease(
    task: Any,
    limiter: SyncLimiter | Callable[[], SyncLimiter],
    resource: str,
    options: dict[str, Any],
) -> SyncLease:
    chosen = limiter if isinstance(limiter, SyncLimiter) else limiter()
    try:
        return chosen.acquire(resource, **options)
    except (Refused, ServiceUnavailable) as error:
        if not error.retryable:
            raise
        wait = error.retry_after if error.retry_after is not None else _WITHOUT_A_TIME
        raise task.retry(countdown=wait, exc=error) from error
