"""Spans of OpenTelemetry around acquires, where the program has set it up; else nothing is done.

The package is no dependency: it is used where it is installed and a tracer provider is set.
Attributes say what was decided; nothing of a request's text is in them.
"""

import importlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from client_sdk._answers import Given
from client_sdk.errors import SluicegateError
from limiter_wire import Acquire, Granted

_UNASKED: Final = object()
_found: Any = _UNASKED
_named = False


def provided() -> Any:
    """The tracing API when there is a provider that makes spans, else None."""
    global _found, _named  # noqa: PLW0603  # looked for once
    if _found is _UNASKED:
        _named = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ  # noqa: TID251  # as the API does
        try:
            _found = importlib.import_module("opentelemetry.trace")
        except ImportError:
            _found = None
    if _found is None:
        return None
    # Nobody has set one, as nearly always. To ask the API costs ten times as much, since it looks
    # into the environment each time; what it does not call by this name any more is asked.
    if not _named and getattr(_found, "_TRACER_PROVIDER", _found) is None:
        return None
    # The API alone has a provider, too, whose spans are nothing and cost as much as others.
    provider = _found.get_tracer_provider()
    return None if type(provider).__module__.startswith("opentelemetry.trace") else _found


def traceparent(trace: Any) -> str | None:
    """The context of the caller in W3C's words, as *trace*, what `provided` has found, knows it;
    None where there is none.
    """
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class Acquiring:
    """The span of one acquire: the current one while it lasts. What comes of it is told to the
    caller's span, too.
    """

    def __init__(self, trace: Any, request: Acquire) -> None:
        self._trace = trace
        self._caller = trace.get_current_span()
        told = {
            "limiter.resource": request.resource,
            "limiter.tenant": request.tenant,
            "limiter.tokens": request.tokens or request.input_tokens,
            "limiter.attempt": request.attempt,
        }
        self._span = trace.get_tracer("sluicegate").start_span(
            "sluicegate.acquire",
            kind=trace.SpanKind.CLIENT,
            attributes={name: value for name, value in told.items() if value is not None},
        )
        self._current = trace.use_span(
            self._span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        )

    def __enter__(self) -> Self:
        self._current.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            known = isinstance(error, SluicegateError) and error.code is not None
            name = str(error.code) if known else type(error).__name__  # type: ignore[attr-defined]  # known
            self._span.set_attribute("error.type", name)
            self._span.set_status(self._trace.StatusCode.ERROR)
            limit = getattr(error, "limit", None)
            self._tell({"limiter.refused": name, "limiter.limit": limit})
        self._current.__exit__(None, None, None)

    def granted(self, granted: Given | Granted) -> None:
        """The lease is there."""
        self._tell(
            {
                "limiter.wait": granted.waited,
                "limiter.lease": granted.lease,
                "breaker.state": granted.breaker,
                "limiter.degraded": granted.degraded is True or None,
            }
        )

    def _tell(self, told: Mapping[str, Any]) -> None:
        for name, value in told.items():
            if value is not None:
                self._span.set_attribute(name, value)
                self._caller.set_attribute(name, value)
