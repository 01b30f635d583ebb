"""Spans of OpenTelemetry, where `SLUICEGATE_TRACES` asks for them; else nothing is loaded or done.

The context of a caller comes in the operation (`traceparent`), or in the header of that name.
A span says what was decided, never what a request said.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from limiter_service.engine.admission import Engine
from limiter_service.engine.begun import BegunAcquire, BegunSettle
from limiter_service.engine.queueing import Tell
from limiter_service.engine.refusals import Refusal
from limiter_service.front import Handler
from limiter_service.http import Media, Scope, header
from limiter_service.store.posted import Listener
from limiter_wire import (
    Acquire,
    Checked,
    ErrorCode,
    Granted,
    Renew,
    Renewed,
    Settle,
    Settled,
    Waiting,
)

_PROBES = {"/livez", "/readyz", "/metrics"}
_BILLION = 1_000_000_000


class NoOpenTelemetry(Exception):
    """The packages that send spans are not installed."""


def provider(version: str) -> Any:
    """A tracer provider that sends spans over OTLP, as the usual `OTEL_...` variables say where."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise NoOpenTelemetry(
            "SLUICEGATE_TRACES=otlp needs OpenTelemetry: pip install 'sluicegate[otel]'"
        ) from error
    named = {"service.name": "sluicegate", "service.version": version}
    made = TracerProvider(resource=Resource.create(named))
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


def of_routes(provider: Any) -> dict[str, Any]:
    """How FastAPI traces the routes that are not hot; without a provider, not at all."""
    if provider is None:
        return {"tracing": False, "metrics": False, "logs": False}
    return {
        "tracer_provider": provider,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope.get("path") in _PROBES,
    }


class Spans:
    """Makes spans with one provider."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import context, trace  # noqa: PLC0415  # only where spans are asked for
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

        self._context, self._trace = context, trace
        self._propagator = tracecontext.TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer("sluicegate.service")

    @contextmanager
    def of(self, name: str, parent: str | None, told: Mapping[str, Any]) -> Iterator[Any]:
        """The span of one operation. A refusal is an answer: only our own failures are errors."""
        above = None if parent is None else self._propagator.extract({"traceparent": parent})
        with self._tracer.start_as_current_span(
            name,
            context=above,
            kind=self._trace.SpanKind.SERVER,
            attributes={key: value for key, value in told.items() if value is not None},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Refusal as refusal:
                problem = refusal.problem
                span.set_attribute("limiter.code", str(problem.code))
                if problem.limit is not None:
                    span.set_attribute("limiter.limit", problem.limit)
                if problem.reason is not None:
                    span.set_attribute("breaker.reason", problem.reason)
                if problem.code in {ErrorCode.STORE_UNAVAILABLE, ErrorCode.INTERNAL}:
                    span.set_attribute("error.type", str(problem.code))
                    span.set_status(self._trace.StatusCode.ERROR)
                raise
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(self._trace.StatusCode.ERROR)
                raise

    def within(self, handler: Handler) -> Handler:
        """*handler* in the context that the header of its request names."""

        async def run(body: bytes, kind: Media, scope: Scope) -> Any:
            parent = header(scope, b"traceparent")
            if parent is None:
                return await handler(body, kind, scope)
            token = self._context.attach(self._propagator.extract({"traceparent": parent}))
            try:
                return await handler(body, kind, scope)
            finally:
                self._context.detach(token)

        return run

    def called(self, script: str, took: float, good: bool, _calls: int = 1) -> None:  # noqa: FBT001  # Watch
        """Make a span of a script call that is over, if it was made for an operation."""
        if not self._trace.get_current_span().is_recording():
            return
        end = time.time_ns()
        span = self._tracer.start_span(
            f"store {script}",
            kind=self._trace.SpanKind.CLIENT,
            start_time=end - int(took * _BILLION),
            attributes={
                "db.system.name": "redis",
                "db.operation.name": "EVALSHA",
                "db.stored_procedure.name": script,
            },
        )
        if not good:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(end)


class TracedEngine(Engine):
    """An engine whose operations are spans."""

    spans: Spans

    def begin(self, request: Acquire, listener: Listener) -> None:
        """Nothing begins before its span."""

    def begin_settle(self, report: Settle, listener: Listener) -> None:
        """Likewise."""

    async def acquire(
        self,
        request: Acquire,
        hold: float | None = None,
        tell: Tell | None = None,
        begun: BegunAcquire | None = None,
    ) -> Granted | Waiting:
        told = _asked(request) | {"limiter.max_wait": request.max_wait or None}
        with self.spans.of("sluicegate.acquire", request.traceparent, told) as span:
            answer = await super().acquire(request, hold, tell, begun)
            if isinstance(answer, Granted):
                span.set_attribute("limiter.lease", answer.lease)
                span.set_attribute("limiter.wait", answer.waited)
                span.set_attribute("breaker.state", answer.breaker)
                span.set_attribute("limiter.code", "granted")
            else:
                span.set_attribute("limiter.code", "waiting")
            return answer

    async def check(self, request: Acquire) -> Checked:
        with self.spans.of("sluicegate.check", request.traceparent, _asked(request)) as span:
            answer = await super().check(request)
            span.set_attribute("limiter.would_grant", answer.would_grant)
            return answer

    async def settle(self, report: Settle, begun: BegunSettle | None = None) -> Settled:
        told = {"limiter.lease": report.lease, "limiter.outcome": str(report.outcome)}
        with self.spans.of("sluicegate.settle", report.traceparent, told) as span:
            answer = await super().settle(report, begun)
            span.set_attribute("breaker.state", answer.breaker)
            return answer

    async def renew(self, report: Renew) -> Renewed:
        told = {"limiter.lease": report.lease}
        with self.spans.of("sluicegate.renew", report.traceparent, told):
            return await super().renew(report)


def _asked(request: Acquire) -> dict[str, Any]:
    return {
        "limiter.resource": request.resource,
        "limiter.tenant": request.tenant,
        "limiter.tokens": request.tokens or request.input_tokens,
        "limiter.attempt": request.attempt,
    }
