"""Traces: an acquire is a span, its trace goes on in the service, and nothing secret is in it."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from tests_support.calls import ask, refused
from tests_support.packages import installed
from tests_support.servers import Server
from tests_support.service import ServiceProcess, http_client
from tests_support.waiting import until

from client_sdk import Limiter, LimiterOptions, RateLimited, SyncLimiter, _tracing
from limiter_service.app import create_app
from limiter_service.front import Front
from limiter_service.pools import Pools
from limiter_service.settings import Settings

CONFIG = """
pools:
  p:
    models: {m: {limits: [{name: budget, meter: tokens, limit: 1000, per: 366d}]}}
"""
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331

installed("opentelemetry.sdk")

from opentelemetry import trace  # noqa: E402  # skipped where it is not installed
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: E402
    InMemorySpanExporter,
)


class Spans:
    """What one provider has made."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of that name that are over."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one."""
        (span,) = self.named(name)
        return span


@pytest.fixture
async def service(db: redis.Redis, server: Server, write_config: Callable[[str], Path]) -> Any:
    """The application with a provider that keeps its spans."""
    config, spans = write_config(CONFIG), Spans()
    settings = Settings(config=config, connect_timeout=20, command_timeout=20)
    app = create_app(settings, server.url, Pools(config), spans.provider)
    async with app._inner.router.lifespan_context(app._inner):  # type: ignore[attr-defined]  # FastAPI
        yield app, spans


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The program that uses the SDK traces, too: it has set a provider for all."""
    spans = Spans()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans.provider)
    return spans


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program traces nothing, whatever else has run in this process: a provider that was set
    once, as the page about tracing does, is set for good.
    """
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.delenv("OTEL_PYTHON_TRACER_PROVIDER", raising=False)
    monkeypatch.setattr(_tracing, "_found", _tracing._UNASKED)
    monkeypatch.setattr(_tracing, "_named", False)


async def test_operations_are_spans_of_the_callers_trace(service: tuple[Front, Spans]):
    """Named by the header, or in the body; the script calls are below."""
    app, spans = service
    async with http_client(app) as client:
        body = {"resource": "p/m", "tokens": 10, "tenant": "team"}
        answer = await client.post("/v1/acquire", json=body, headers={"traceparent": PARENT})
        lease = answer.json()["lease"]
        await ask(client, "settle", lease=lease, traceparent=PARENT)
        await client.get("/v1/resources/p/m", headers={"traceparent": PARENT})
    acquire, settle = spans.one("sluicegate.acquire"), spans.one("sluicegate.settle")
    for span in (acquire, settle):
        assert span.context is not None
        assert span.parent is not None
        assert (span.context.trace_id, span.parent.span_id) == (TRACE, SPAN)
    told = dict(acquire.attributes or {})
    assert told["limiter.resource"] == "p/m"
    assert told["limiter.tenant"] == "team"
    assert (told["limiter.code"], told["breaker.state"], told["limiter.wait"]) == (
        "granted", "closed", 0.0,
    )  # fmt: skip
    stored = spans.one("store acquire")
    assert stored.parent is not None
    assert acquire.context is not None
    assert stored.parent.span_id == acquire.context.span_id
    assert (stored.end_time or 0) >= (stored.start_time or 0)
    (route,) = [span for span in spans.exporter.get_finished_spans() if "resources" in span.name]
    assert route.context is not None
    assert route.context.trace_id == TRACE


async def test_a_refusal_is_an_answer_and_no_error(service: tuple[Front, Spans]):
    """With the limit that was binding."""
    app, spans = service
    async with http_client(app) as client:
        await ask(client, "acquire", resource="p/m", tokens=900)
        await refused(client, "acquire", 429, "rate_limited", resource="p/m", tokens=200)
    _, span = spans.named("sluicegate.acquire")
    told = dict(span.attributes or {})
    assert (told["limiter.code"], told["limiter.limit"]) == ("rate_limited", "m.budget")
    assert span.status.is_unset
    assert span.events == ()


async def test_background_work_makes_no_spans(service: tuple[Front, Spans]):
    """Reports of counts, and probes, belong to no call."""
    app, spans = service
    async with http_client(app) as client:
        await ask(client, "acquire", resource="p/m", tokens=1)
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        await app._inner.state.counting.flush()  # type: ignore[attr-defined]  # FastAPI
    assert {span.name for span in spans.exporter.get_finished_spans()} == {
        "sluicegate.acquire", "store acquire",
    }  # fmt: skip


async def test_a_trace_that_is_none_refuses_nothing(service: tuple[Front, Spans]):
    """Tracing is never a reason to fail."""
    app, spans = service
    async with http_client(app) as client:
        for bad in ("nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-1-2-3"):
            body = {"resource": "p/m", "tokens": 1, "traceparent": bad}
            answer = await client.post("/v1/acquire", json=body, headers={"traceparent": bad})
            assert answer.status_code == 200
    assert all(span.parent is None for span in spans.named("sluicegate.acquire"))


async def test_one_trace_runs_from_the_caller_through_both_sides(
    service: tuple[Front, Spans], ours: Spans
):
    """The caller's span is told what came of it, the acquire is a span below it."""
    app, spans = service
    transport = httpx.ASGITransport(app)
    async with Limiter("http://test", http_transport=transport) as limiter:
        with trace.get_tracer("program").start_as_current_span("answer a question"):
            async with limiter.acquire("p/m", tokens=100) as lease:
                lease.used(input_tokens=10, output_tokens=10)
            with pytest.raises(RateLimited):
                await limiter.acquire("p/m", tokens=990)
    caller = ours.one("answer a question")
    granted, denied = ours.named("sluicegate.acquire")
    for span in (granted, denied):
        assert span.parent is not None
        assert caller.context is not None
        assert span.parent.span_id == caller.context.span_id
    theirs = spans.named("sluicegate.acquire")
    assert [s.parent.span_id for s in theirs if s.parent] == [
        s.context.span_id for s in (granted, denied) if s.context
    ]
    settle = spans.one("sluicegate.settle")
    assert settle.parent is not None
    assert caller.context is not None
    assert settle.parent.span_id == caller.context.span_id
    told = dict(caller.attributes or {})
    assert (told["limiter.lease"], told["limiter.wait"]) == (lease.id, 0.0)
    assert (told["breaker.state"], told["limiter.refused"]) == ("closed", "rate_limited")
    assert dict(denied.attributes or {})["error.type"] == "rate_limited"


class Collector(ThreadingHTTPServer):
    """Takes spans over OTLP, as a collector does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    def spans(self) -> dict[str, Any]:
        """Every span that came, by name."""
        from opentelemetry.proto.collector.trace.v1 import (  # noqa: PLC0415  # as above
            trace_service_pb2,
        )

        found = {}
        for body in self.bodies:
            request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    found |= {span.name: span for span in scope.spans}
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    with Collector() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("server", ["valkey"], indirect=True)
async def test_spans_reach_a_collector_and_traces_go_over_the_channel(
    server: Server, db: redis.Redis, ours: Spans, collector: Collector,
    write_config: Callable[[str], Path],
):  # fmt: skip
    """A service in a process of its own, told by its environment; both SDKs."""
    env = {
        "SLUICEGATE_TRACES": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    arguments = ("--config", str(write_config(CONFIG)), "--redis-url", server.url)
    options = LimiterOptions(channel="only", timeout=30)
    with ServiceProcess(*arguments, env=env) as service:
        async with Limiter(service.url, options=options) as limiter:
            await limiter.acquire("p/m", tokens=10)

        async def came() -> bool:
            return "store acquire" in collector.spans()

        await until(came, "no span came")
        found = collector.spans()
        (mine,) = ours.named("sluicegate.acquire")
        assert mine.context is not None
        theirs = found["sluicegate.acquire"]
        assert int.from_bytes(theirs.trace_id, "big") == mine.context.trace_id
        assert int.from_bytes(theirs.parent_span_id, "big") == mine.context.span_id
        assert found["store acquire"].parent_span_id == theirs.span_id
        with SyncLimiter(service.url, options=options) as sync:
            sync.acquire("p/m", tokens=10)
        last = ours.named("sluicegate.acquire")[-1].context
        assert last is not None

        async def came_too() -> bool:
            ids = {int.from_bytes(s.trace_id, "big") for s in collector.spans().values()}
            return last.trace_id in ids

        await until(came_too, "no span of the sync limiter came")


@pytest.mark.usefixtures("nobody")
async def test_without_a_provider_nothing_is_made_or_sent(serve: Any):
    """The package alone traces nothing: the operation has no word of it."""
    heard: list[bytes] = []
    client = await serve(CONFIG)
    inner = client._transport

    class Listening(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            heard.append(await request.aread() + repr(request.headers).encode())
            answer: httpx.Response = await inner.handle_async_request(request)
            return answer

    async with Limiter("http://test", http_transport=Listening()) as limiter:
        await limiter.acquire("p/m", tokens=10)
    assert heard
    assert not any(b"traceparent" in each for each in heard)


def test_without_the_package_the_sdk_does_not_miss_it():
    """It is no dependency, and importing the SDK loads nothing of it."""
    code = """
import sys
sys.modules["opentelemetry"] = None
sys.modules["opentelemetry.trace"] = None
from client_sdk import _tracing, SyncLimiter
assert _tracing.provided() is None
assert _tracing.traceparent(_tracing.provided()) is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = "import client_sdk, sys; assert not [m for m in sys.modules if 'opentelemetry' in m]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_traces_without_the_packages_are_refused_at_the_start(tmp_path: Path):
    """With the cure."""
    code = """
import sys
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None
from limiter_service.serving import ServeError, run
from limiter_service.settings import Settings
try:
    run(Settings(traces="otlp", port=0, redis_url="unix:///nowhere"))
except ServeError as error:
    assert "sluicegate[otel]" in str(error)
else:
    raise SystemExit("it started")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
