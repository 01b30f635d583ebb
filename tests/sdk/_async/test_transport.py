"""An HTTP client under a limiter: real service, simulated provider, every kind of end."""

import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from tests_support.reports import Reporting

from client_sdk import Outcome, Provenance, RateLimited
from client_sdk.transports import refusal_of

Left = Callable[..., float]
ASK = {"role": "user", "content": "How high is the water?"}
BODY = {"model": "m", "max_tokens": 50, "messages": [ASK]}
STREAM = BODY | {"stream": True, "stream_options": {"include_usage": True}}
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}
CHAT = "/openai/v1/chat/completions"


@pytest.fixture
async def limiter(url: str) -> AsyncIterator[Reporting]:
    """A limiter whose reports can be looked at."""
    async with Reporting(url) as connected:
        yield connected


@pytest.fixture
async def http(limiter: Reporting, provider: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the provider, under the limiter."""
    transport = limiter.transport(httpx.AsyncHTTPTransport(), pool="p")
    async with httpx.AsyncClient(transport=transport, base_url=provider) as client:
        yield client


def left_of_the_team(url: str) -> float:
    """What remains of the limit of the tenant `team`."""
    levels = httpx.get(f"{url}/v1/resources/p/m", params={"tenant": "team"}).json()["limits"]
    found: dict[str, float] = {each["name"]: each["remaining"] for each in levels}
    return found["team.own"]


async def test_a_whole_answer_settles_with_its_usage(
    http: httpx.AsyncClient, limiter: Reporting, left: Left
):
    """Estimate and max_tokens are reserved, and replaced by what the provider counted."""
    answer = await http.post(CHAT, json=BODY, headers=FIVE)
    assert answer.json()["usage"]["total_tokens"] == 25
    assert left() == 975
    [report] = limiter.reports
    assert report.outcome is Outcome.SUCCESS
    assert report.usage is not None
    assert report.usage.provenance is Provenance.FINAL
    assert (report.usage.input_tokens, report.usage.output_tokens) == (20, 5)
    assert report.headers is not None
    assert "x-ratelimit-limit-tokens" in report.headers
    assert report.latency is not None


async def test_a_stream_passes_as_it_is_and_settles_at_its_end(
    http: httpx.AsyncClient, limiter: Reporting, left: Left, provider: str
):
    """The bytes are those of a client without a limiter; the time to the first token is known."""
    async with httpx.AsyncClient(base_url=provider) as plain:
        wanted = len((await plain.post(CHAT, json=STREAM, headers=FIVE)).content)
    async with http.stream("POST", CHAT, json=STREAM, headers=FIVE) as answer:
        assert left() < 950
        raw = b"".join([data async for data in answer.aiter_raw()])
        assert left() == 975
    assert len(raw) == wanted
    assert raw.endswith(b"data: [DONE]\n\n")
    [report] = limiter.reports
    assert report.usage is not None
    assert report.usage.output_tokens == 5
    assert report.ttft is not None


async def test_a_compressed_stream_stays_compressed_and_is_understood(
    http: httpx.AsyncClient, limiter: Reporting, left: Left
):
    """The client gets the encoded bytes; usage is found in them."""
    headers = {**FIVE, "x-sim-fault": "gzip"}
    async with http.stream("POST", CHAT, json=STREAM, headers=headers) as answer:
        raw = b"".join([data async for data in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert b"[DONE]" in gzip.decompress(raw)
    assert left() == 975
    [report] = limiter.reports
    assert report.outcome is Outcome.SUCCESS


async def test_other_dialects_are_read_as_well(
    http: httpx.AsyncClient, limiter: Reporting, left: Left
):
    """Anthropic, Gemini, the responses of OpenAI, Cohere, Ollama, Bedrock: whole and streamed."""
    conversation = {"contents": [{"parts": [{"text": "Hi"}]}]}
    turn = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    calls: list[tuple[str, dict[str, object]]] = [
        ("/anthropic/v1/messages", BODY),
        ("/anthropic/v1/messages", STREAM),
        ("/gemini/v1beta/models/m:generateContent", conversation),
        ("/gemini/v1beta/models/m:streamGenerateContent?alt=sse", conversation),
        ("/openai/v1/responses", {"model": "m", "input": "Hi"}),
        ("/openai/v1/responses", {"model": "m", "input": "Hi", "stream": True}),
        ("/cohere/v2/chat", BODY),
        ("/cohere/v2/chat", BODY | {"stream": True}),
        ("/ollama/api/chat", BODY | {"stream": False}),
        ("/ollama/api/chat", BODY),
        ("/bedrock/model/m/converse", turn),
        ("/bedrock/model/m/converse-stream", turn),
    ]
    for path, body in calls:
        answer = await http.post(path, json=body, headers=FIVE)
        assert answer.status_code == 200, path
    assert len(limiter.reports) == len(calls)
    for (path, _), report in zip(calls, limiter.reports, strict=True):
        assert report.outcome is Outcome.SUCCESS, path
        assert report.usage is not None, path
        assert report.usage.provenance is Provenance.FINAL, path
        assert (report.usage.input_tokens, report.usage.output_tokens) == (20, 5), path
    assert left() == 1000 - 25 * len(calls)


async def test_a_providers_error_reaches_the_caller_and_the_budget(
    http: httpx.AsyncClient, limiter: Reporting, left: Left
):
    """Its body is the provider's, its tokens go back, and its wait is reported."""
    headers = {"x-sim-fault": "rate-limit; retry-after=7"}
    answer = await http.post(CHAT, json=BODY, headers=headers)
    assert answer.status_code == 429
    assert "rate_limit" in json.dumps(answer.json())
    assert left() == 1000
    [report] = limiter.reports
    assert report.outcome is Outcome.RATE_LIMITED
    assert report.retry_after == 7


async def test_an_error_is_understood_also_when_its_body_is_never_read(
    http: httpx.AsyncClient, limiter: Reporting
):
    """An SDK that tries again closes the response unread; a spent quota is known by its body."""
    headers = {"x-sim-fault": "insufficient-quota"}
    async with http.stream("POST", CHAT, json=STREAM, headers=headers):
        pass
    [report] = limiter.reports
    assert report.outcome is Outcome.QUOTA_EXHAUSTED


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("drop-before-headers", Outcome.CANCELLED),
        ("drop-after-chunks=2", Outcome.STREAM_INTERRUPTED),
        ("truncate", Outcome.STREAM_INTERRUPTED),
        ("error-after-chunks=2; kind=overloaded", Outcome.OVERLOADED),
        ("html", Outcome.MALFORMED_STREAM),
        ("garbage-after-chunks=2", Outcome.MALFORMED_STREAM),
    ],
)
async def test_a_stream_that_ends_badly_is_reported_as_it_ended(
    http: httpx.AsyncClient, limiter: Reporting, left: Left, fault: str, outcome: Outcome
):
    """The caller sees what it would see without a limiter; the lease is settled."""
    headers = {**FIVE, "x-sim-fault": fault}
    try:
        await http.post(CHAT, json=STREAM, headers=headers)
    except httpx.TransportError:
        assert fault.startswith("drop")
    [report] = limiter.reports
    assert report.outcome is outcome
    assert left("m.slots") == 50


async def test_a_stream_that_is_closed_early_is_the_callers_doing(
    http: httpx.AsyncClient, limiter: Reporting, left: Left
):
    """Nobody is blamed, and what came is estimated."""
    headers = {**FIVE, "x-sim-fault": "stall-after-chunks=3"}
    async with http.stream("POST", CHAT, json=STREAM, headers=headers) as answer:
        async for _data in answer.aiter_raw():
            break
    [report] = limiter.reports
    assert report.outcome is Outcome.CANCELLED
    assert report.usage is not None
    assert report.usage.provenance is not Provenance.FINAL
    assert left("m.slots") == 50


async def test_what_calls_no_model_passes(
    http: httpx.AsyncClient, left: Left, caplog: pytest.LogCaptureFixture
):
    """Lists, other methods, bodies that nobody understands: untouched and free."""
    assert (await http.get("/openai/v1/models")).status_code == 200
    assert (await http.post(CHAT, content=b"{")).status_code == 400
    assert (await http.post(CHAT, json={"messages": [ASK]})).status_code == 400
    assert left() == 1000
    assert caplog.records == []


async def test_a_resource_that_the_service_does_not_know_passes_with_one_warning(
    limiter: Reporting, provider: str, caplog: pytest.LogCaptureFixture
):
    """Nothing breaks when a model is not configured."""
    caplog.set_level(logging.WARNING, "sluicegate")
    transport = limiter.transport(httpx.AsyncHTTPTransport(), pool="nowhere")
    async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
        for _ in range(3):
            assert (await http.post(CHAT, json=BODY, headers=FIVE)).status_code == 200
    [record] = caplog.records
    assert "nowhere/m" in record.message


async def test_the_resource_may_be_a_name_or_a_function(
    limiter: Reporting, provider: str, left: Left
):
    """A function sees the request; None of it lets the call pass."""

    def chosen(request: httpx.Request) -> str | None:
        return None if b"free" in request.content else "p/m"

    for resource in ("p/m", chosen):
        transport = limiter.transport(httpx.AsyncHTTPTransport(), resource=resource)
        async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
            await http.post(CHAT, json=BODY | {"model": "other"}, headers=FIVE)
            await http.post(CHAT, json=BODY | {"model": "free"}, headers=FIVE)
    assert left() == 1000 - 3 * 25


async def test_a_host_of_ones_own_is_nobodys_budget(
    limiter: Reporting, provider: str, left: Left, caplog: pytest.LogCaptureFixture
):
    """The form of an API does not say whose account pays: without a pool the call passes."""
    transport = limiter.transport(httpx.AsyncHTTPTransport())
    async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
        answers = [await http.post(CHAT, json=BODY, headers=FIVE) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len([r for r in caplog.records if "set `pool`" in r.getMessage()]) == 1
    assert left() == 1000


async def test_a_tenant_has_its_own_budget(limiter: Reporting, provider: str, url: str):
    """The tenant of the transport goes before that of the limiter."""
    transport = limiter.transport(httpx.AsyncHTTPTransport(), pool="p", tenant="team")
    async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
        await http.post(CHAT, json=BODY, headers=FIVE)
    assert left_of_the_team(url) == 475


async def test_a_client_is_limited_in_place(limiter: Reporting, provider: str, left: Left):
    """Its proxies, timeouts and class stay what they are."""
    client = httpx.AsyncClient(base_url=provider)
    assert limiter.transport(client, pool="p") is client
    async with client:
        await client.post(CHAT, json=BODY, headers=FIVE)
    assert left() == 975


async def test_a_refusal_looks_like_the_providers(limiter: Reporting, provider: str):
    """429 with a time, in the dialect of the call; the provider is not called."""
    transport = limiter.transport(httpx.AsyncHTTPTransport(), resource="p/quick")
    async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
        answers = [await http.post(CHAT, json=BODY, headers=FIVE) for _ in range(5)]
        other = await http.post("/anthropic/v1/messages", json=BODY)
    assert answers[0].status_code == 200
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["x-sluicegate-code"] == "rate_limited"
    assert int(refused.headers["retry-after-ms"]) <= 334
    assert refused.json()["error"]["code"] == "rate_limited"
    with pytest.raises(httpx.HTTPStatusError) as caught:
        refused.raise_for_status()
    error = refusal_of(caught.value)
    assert isinstance(error, RateLimited)
    assert error.resource == "p/quick"
    if other.status_code == 429:
        assert other.json()["error"]["type"] == "rate_limit_error"


async def test_who_may_wait_waits(limiter: Reporting, provider: str):
    """With `max_wait` the budget's own time is kept; longer than that is said at once."""
    transport = limiter.transport(httpx.AsyncHTTPTransport(), resource="p/quick", max_wait=5)
    async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
        answers = [await http.post(CHAT, json=BODY, headers=FIVE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    lease = await limiter.acquire("p/slot-transport", tokens=1)
    transport = limiter.transport(
        httpx.AsyncHTTPTransport(), resource="p/slot-transport", max_wait=0.01
    )
    async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
        answer = await http.post(CHAT, json=BODY, headers=FIVE)
    await lease.settle()
    assert answer.status_code == 429
    assert answer.headers["x-should-retry"] == "false"
    assert answer.extensions["sluicegate"].code in {"wait_too_long", "wait_timeout"}


async def test_each_attempt_says_which_it_is(limiter: Reporting, provider: str):
    """By the SDK's own header, or by how often the same request was sent."""
    seen: list[int] = []
    acquire = limiter.acquire

    def counting(resource: str, **options: object) -> object:
        seen.append(options["attempt"])  # type: ignore[arg-type]  # a number
        return acquire(resource, **options)  # type: ignore[arg-type]  # as they came

    limiter.acquire = counting  # type: ignore[method-assign,assignment]  # listens in
    transport = limiter.transport(httpx.AsyncHTTPTransport(), pool="p")
    async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
        await http.post(CHAT, json=BODY, headers={**FIVE, "x-stainless-retry-count": "2"})
        request = http.build_request("POST", CHAT, json=BODY, headers=FIVE)
        await http.send(request)
        await http.send(request)
    assert seen == [3, 1, 2]


async def test_without_a_service_the_answer_is_503(provider: str):
    """An SDK waits and tries again, as when its provider is away."""
    async with Reporting("http://127.0.0.1:9") as alone:
        transport = alone.transport(httpx.AsyncHTTPTransport(), pool="p")
        async with httpx.AsyncClient(transport=transport, base_url=provider) as http:
            answer = await http.post(CHAT, json=BODY)
    assert answer.status_code == 503
    assert refusal_of(httpx.HTTPStatusError("", request=answer.request, response=answer))


async def test_only_transports_and_clients_of_a_known_family_are_taken(limiter: Reporting):
    """A mistake is said where it is made."""
    with pytest.raises(TypeError, match="is no AsyncBaseTransport"):
        limiter.transport(object())
