"""Celery: tasks that come back when there is room, on a real worker."""

from collections.abc import Callable
from typing import Any

import pytest
from tests_support.packages import installed

from client_sdk import NeverFits, SyncLease, SyncLimiter

Used = Callable[..., tuple[int, int]]


def application() -> Any:
    celery = installed("celery")
    app = celery.Celery("t", broker="memory://", backend="cache+memory://")
    app.conf.task_always_eager = False
    app.conf.worker_hijack_root_logger = False
    app.conf.broker_connection_retry_on_startup = True
    return app


def test_a_task_waits_in_the_broker(url: str, used: Used):
    """All run in the end, each with a lease; refused ones were retried."""
    app = application()
    worker = installed("celery.contrib.testing.worker")
    from client_sdk.adapters.celery import limited

    with SyncLimiter(url) as limiter:

        @app.task(bind=True, max_retries=None)
        @limited(lambda: limiter, "p/quick-celery", tokens=10)
        def summarise(self: Any, lease: SyncLease, text: str) -> list[Any]:
            lease.used(output_tokens=3)
            return [text, self.request.retries]

        with worker.start_worker(app, perform_ping_check=False, pool="solo"):
            results = [summarise.delay(text) for text in ("a", "b", "c")]
            answers = [result.get(timeout=30) for result in results]
    assert [text for text, _ in answers] == ["a", "b", "c"]
    assert sum(retries for _, retries in answers) >= 1


def test_what_never_fits_fails(url: str):
    """Retrying would not help."""
    installed("celery")
    from client_sdk.adapters.celery import limited

    with SyncLimiter(url) as limiter:

        @limited(limiter, lambda text: f"p/{text}", tokens=10**9)
        def task(self: Any, lease: SyncLease, text: str) -> None:
            raise AssertionError("called")

        with pytest.raises(NeverFits):
            task(None, "m")
