"""The LLM client against a simulated provider: requests, answers, retries and recovery."""

from collections.abc import Callable
from typing import Any

import pytest
from tests_support.provider import WORDS, ProviderThread

from client_sdk import (
    CallFailed,
    Limiter,
    LLMClient,
    NeverFits,
    NotAnEventStream,
    Outcome,
    Provenance,
    ProviderError,
    Restarted,
    RetryPolicy,
    StreamInterrupted,
    StreamOutcome,
    StreamStalled,
    StreamTimeouts,
    UnknownResource,
)
from client_sdk.errors import EmptyStream

Left = Callable[..., float]

ASKED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How high is the water?"},
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TEXT = "The water rises behind"
FOUR = {"x-sim-output-tokens": "4"}
FAST = RetryPolicy(backoff=0.001, max_retry_after=5, budget=None)

SHAPES: dict[str, dict[str, Any]] = {
    "openai": {"model": "gpt-4o", "provider": "openai", "path": "/v1"},
    "responses": {"model": "gpt-4o", "provider": "openai", "path": "/v1", "api": "responses"},
    "compatible": {"model": "some-model", "path": "/v1"},
    "mistral": {"model": "mistral-x", "provider": "mistral", "path": "/mistral/v1"},
    "anthropic": {"model": "claude-x", "provider": "anthropic", "path": ""},
    "gemini": {"model": "gemini-x", "provider": "gemini", "path": "/gemini"},
    "ollama": {"model": "llama", "provider": "ollama", "path": "/ollama"},
}


def client(simulator: ProviderThread, shape: str = "openai", **given: Any) -> LLMClient:
    """A client of the simulator."""
    options = dict(SHAPES[shape])
    base_url = simulator.url + options.pop("path")
    return LLMClient(base_url=base_url, **{"retry": FAST, "api_key": "k", **options, **given})


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_whole_answer(simulator: ProviderThread, shape: str):
    """Text, usage and the provider's finish reason; the outcome is never made up."""
    async with client(simulator, shape) as llm:
        answer = await llm.get_response_with_tools(ASKED, extra_headers=FOUR)
    assert (answer.text, answer.outcome) == (TEXT, StreamOutcome.COMPLETED)
    assert (answer.usage.output_tokens, answer.usage.provenance) == (4, Provenance.FINAL)
    assert answer.usage.input_tokens > 0
    assert answer.finish_reason
    assert answer.resource.endswith(f"/{SHAPES[shape]['model']}")
    assert answer.statistics.flags == ()


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_streamed_answer(simulator: ProviderThread, shape: str):
    """Chunks add up to the result; only the last has usage, reason and outcome together."""
    async with (
        client(simulator, shape) as llm,
        llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR) as stream,
    ):
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.content for chunk in chunks) == TEXT == stream.result.text
    last = chunks[-1]
    assert (last.type, last.outcome) == ("end", StreamOutcome.COMPLETED)
    assert (last.usage, last.finish_reason) == (stream.result.usage, stream.result.finish_reason)
    assert stream.result.usage.provenance is Provenance.FINAL
    assert stream.result.statistics.time_to_first_token is not None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_is_called_and_its_result_is_given_back(
    simulator: ProviderThread, shape: str, streamed: bool
):
    """One neutral shape of tools, calls and results, whoever the provider is."""
    async with client(simulator, shape) as llm:

        async def ask(messages: list[Any]) -> Any:
            if not streamed:
                return await llm.get_response_with_tools(messages, [WEATHER], max_tokens=100)
            return await llm.get_streaming_response_with_tools(
                messages, [WEATHER], max_tokens=100
            ).until_done()

        answer = await ask(ASKED)
        (call,) = answer.tool_calls
        assert (call.name, call.input) == ("weather", {"city": "a city at the gate"})
        assert call.id
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        second = await ask([*ASKED, answer.message, result])
    assert WORDS.startswith(second.text[: len(WORDS)]) or second.text.startswith(WORDS)
    assert second.tool_calls == ()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("shape", ["anthropic", "gemini"])
async def test_what_a_provider_has_sealed_comes_back_to_it(
    simulator: ProviderThread, shape: str, streamed: bool
):
    """Thoughts before a call, which providers insist on; without them they refuse."""
    asks = {
        "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        "gemini": {},
    }[shape]
    model = {"anthropic": "claude-x", "gemini": "gemini-3-x"}[shape]
    sizes = {"x-sim-reasoning-tokens": "6"}
    async with client(simulator, shape, model=model) as llm:

        async def ask(messages: list[Any]) -> Any:
            given = {"max_tokens": 2000, "extra_headers": sizes, **asks}
            if not streamed:
                return await llm.get_response_with_tools(messages, [WEATHER], **given)
            stream = llm.get_streaming_response_with_tools(messages, [WEATHER], **given)
            return await stream.until_done()

        answer = await ask(ASKED)
        (thought,), (call,) = answer.thoughts, answer.tool_calls
        assert thought.signature
        assert thought.text == (answer.reasoning if shape == "anthropic" else "")
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        assert (await ask([*ASKED, answer.message, result])).text
        bare = {k: v for k, v in answer.message.items() if k != "thoughts"}
        with pytest.raises(ProviderError) as refused:
            await ask([*ASKED, bare, result])
    assert refused.value.category == "invalid_request"


async def test_another_provider_gets_no_foreign_thoughts(simulator: ProviderThread):
    """A conversation that goes on elsewhere leaves the seals behind."""
    sealed = {"role": "assistant", "content": "Hm.", "thoughts": [{"signature": "s"}]}
    async with client(simulator) as llm:
        answer = await llm.get_response_with_tools([*ASKED, sealed, ASKED[-1]])
    assert answer.text


async def test_calls_come_only_with_the_last_chunk(simulator: ProviderThread):
    """Before the end there are deltas, and nothing to execute."""
    async with client(simulator) as llm:
        stream = llm.get_streaming_response_with_tools(ASKED, [WEATHER])
        chunks = [chunk async for chunk in stream]
    assert any(chunk.tool_call_delta for chunk in chunks)
    assert [len(chunk.tool_calls) for chunk in chunks[:-1]] == [0] * (len(chunks) - 1)
    assert chunks[-1].tool_calls == stream.result.tool_calls


BEFORE_CONTENT = [
    "drop-before-headers",
    "drop-before-headers; reset",
    "overloaded",
    "status=502",
    "drop-after-chunks=0",
    "truncate-after-chunks=0",
    "error-after-chunks=0; kind=overloaded",
    "garbage-after-chunks=0",
    "html",
    "error-body=rate-limit",
    "rate-limit; retry-after=0.01",
]


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        *(("openai", fault) for fault in BEFORE_CONTENT),
        *((shape, "truncate-after-chunks=0") for shape in ("responses", "gemini", "ollama")),
        ("anthropic", "error-after-chunks=0; kind=overloaded"),
    ],
)
async def test_a_fault_before_content_is_not_seen(
    simulator: ProviderThread, shape: str, fault: str
):
    """The request is sent again, and the consumer gets one answer."""
    simulator.hit(fault)
    async with client(simulator, shape) as llm:
        stream = llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR)
        text = "".join([chunk.content async for chunk in stream])
        assert text == stream.result.text == TEXT
        assert stream.result.attempts == 2
        assert llm.get_statistics().retries == 1
    assert simulator.counts()["requests"] == 2


async def test_a_whole_answer_is_tried_again_too(simulator: ProviderThread):
    """Nothing of it has been delivered, however far it had come."""
    simulator.hit("html", "drop-after-bytes=100")
    async with client(simulator) as llm:
        answer = await llm.get_response_with_tools(ASKED, extra_headers=FOUR)
    assert (answer.text, answer.attempts) == (TEXT, 3)


async def test_what_cannot_succeed_is_not_tried_again(simulator: ProviderThread):
    """A wrong key stays wrong."""
    simulator.hit("bad-key", count=9)
    async with client(simulator) as llm:
        with pytest.raises(ProviderError) as caught:
            await llm.get_response_with_tools(ASKED)
    assert (caught.value.status, caught.value.category) == (401, Outcome.AUTH)
    assert simulator.counts()["requests"] == 1


async def test_attempts_end(simulator: ProviderThread):
    """The last failure is the caller's, with the number of requests."""
    simulator.hit("overloaded", count=9)
    async with client(simulator) as llm:
        with pytest.raises(ProviderError) as caught:
            await llm.get_response_with_tools(ASKED)
    assert (caught.value.attempts, simulator.counts()["requests"]) == (3, 3)
    assert caught.value.category is Outcome.OVERLOADED


async def test_a_long_wait_is_the_callers(simulator: ProviderThread):
    """More than the policy waits for is said at once."""
    simulator.hit("rate-limit; retry-after=600", count=9)
    async with client(simulator) as llm:
        with pytest.raises(ProviderError) as caught:
            await llm.get_response_with_tools(ASKED)
    assert (caught.value.retry_after, caught.value.attempts) == (600, 1)


async def test_retries_have_a_budget(simulator: ProviderThread):
    """When everything fails, retries do not multiply the traffic."""
    simulator.hit("overloaded", count=999)
    policy = RetryPolicy(backoff=0.0, budget=0.1, budget_floor=0.0)
    async with client(simulator, retry=policy) as llm:
        for _ in range(20):
            with pytest.raises(ProviderError):
                await llm.get_response_with_tools(ASKED)
        assert llm.get_statistics().retries <= 12
    assert simulator.counts()["requests"] <= 32


@pytest.mark.parametrize(
    ("fault", "outcome", "kind"),
    [
        ("drop-after-chunks=3", StreamOutcome.INTERRUPTED, StreamInterrupted),
        ("truncate-after-chunks=3", StreamOutcome.TRUNCATED, StreamInterrupted),
        ("error-after-chunks=3; kind=overloaded", StreamOutcome.PROVIDER_ERROR, ProviderError),
        ("garbage-after-chunks=3", StreamOutcome.PROTOCOL_ERROR, CallFailed),
    ],
)
@pytest.mark.parametrize("shape", ["openai", "anthropic"])
async def test_a_fault_behind_content_is_an_error_with_what_came(
    simulator: ProviderThread,
    shape: str,
    fault: str,
    outcome: StreamOutcome,
    kind: type[CallFailed],
):
    """What was delivered is in the error; nothing is sent again by itself."""
    simulator.hit(fault)
    delivered = ""
    async with client(simulator, shape) as llm:
        stream = llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR)
        with pytest.raises(kind) as caught:  # noqa: PT012  # what is delivered comes before
            async for chunk in stream:
                delivered += chunk.content
        assert llm.get_statistics().failure_rate == 1
    error = caught.value
    assert error.outcome is outcome
    assert error.partial == delivered == "The water rises"[: len(delivered)]
    assert delivered
    assert (error.retryable, error.phase) == (False, "mid_content")
    assert error.response is not None
    assert error.response.text == delivered
    assert error.usage is not None
    assert error.chunks >= 1
    assert error.bytes > 0
    assert simulator.counts()["requests"] == 1
    with pytest.raises(RuntimeError, match="no result"):
        _ = stream.result


async def test_restart_announces_itself(simulator: ProviderThread):
    """What was delivered before the `Restarted` chunk counts no more."""
    simulator.hit("drop-after-chunks=2")
    async with client(simulator, recovery="restart") as llm:
        stream = llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR)
        text, discarded = "", None
        async for chunk in stream:
            if isinstance(chunk, Restarted):
                assert text == chunk.discarded
                text, discarded = "", chunk
            text += chunk.content
    assert text == stream.result.text == TEXT
    assert discarded is not None
    assert discarded.reason is StreamOutcome.INTERRUPTED
    assert stream.result.attempts == 2


async def test_what_was_delivered_is_kept_when_a_restart_fails(simulator: ProviderThread):
    """The error has the text of the stream that had some, and says that it was delivered."""
    simulator.hit("drop-after-chunks=2", "bad-key")
    async with client(simulator, recovery="restart") as llm:
        with pytest.raises(ProviderError) as caught:
            await llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR).until_done()
    assert (caught.value.partial, caught.value.phase) == ("The water", "mid_content")
    assert (caught.value.category, caught.value.attempts) == (Outcome.AUTH, 2)


@pytest.mark.parametrize("shape", ["anthropic", "ollama", "mistral"])
@pytest.mark.parametrize("fault", ["drop-after-chunks=2; reset", "truncate-after-chunks=3"])
async def test_continue_goes_on_where_the_text_broke(
    simulator: ProviderThread, shape: str, fault: str
):
    """The text so far is given back as the begin of the answer; the consumer sees one text."""
    simulator.hit(fault)
    async with client(simulator, shape, recovery="continue") as llm:
        stream = llm.get_streaming_response_with_tools(
            ASKED, extra_headers={"x-sim-output-tokens": "9"}
        )
        text = "".join([chunk.content async for chunk in stream])
    assert text == stream.result.text == "The water rises behind the gate until it opens"
    assert stream.result.attempts == 2


@pytest.mark.parametrize("fault", ["drop-after-chunks=5; reset", "drop-after-bytes=2500"])
async def test_resume_reads_the_rest_of_a_kept_response(simulator: ProviderThread, fault: str):
    """It is the same response, under the same reservation; only what is missing is sent."""
    simulator.hit(fault)
    async with client(simulator, "responses", recovery="resume") as llm:
        stream = llm.get_streaming_response_with_tools(
            ASKED, extra_headers={"x-sim-output-tokens": "9"}
        )
        text = "".join([chunk.content async for chunk in stream])
        assert llm.get_statistics().recoveries == 1
    assert text == stream.result.text == "The water rises behind the gate until it opens"
    assert stream.result.usage.provenance is Provenance.FINAL
    assert "reopened" in stream.result.statistics.flags


async def test_what_cannot_be_resumed_begins_again(simulator: ProviderThread):
    """Several ways of recovery are tried in their order."""
    simulator.hit("error-after-chunks=5; kind=overloaded")
    async with client(simulator, "responses", recovery=("resume", "restart")) as llm:
        stream = llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR)
        kinds = [chunk.type async for chunk in stream]
    assert "restarted" in kinds
    assert stream.result.text == TEXT


async def test_resume_of_a_call_keeps_its_arguments_whole(simulator: ProviderThread):
    """A call that broke within its arguments is one call in the end."""
    simulator.hit("drop-after-chunks=6; reset")
    async with client(simulator, "responses", recovery="resume") as llm:
        answer = await llm.get_streaming_response_with_tools(ASKED, [WEATHER]).until_done()
    (call,) = answer.tool_calls
    assert (call.name, call.input) == ("weather", {"city": "a city at the gate"})
    assert answer.attempts == 2


def test_what_a_provider_cannot_do_is_refused_at_once():
    """Recovery, provider and api are checked when the client is made."""
    with pytest.raises(ValueError, match="allows none, restart"):
        LLMClient("gpt-4o", api_key="k", recovery="continue")
    with pytest.raises(ValueError, match="responses"):
        LLMClient("claude-x", api_key="k", api="responses")
    with pytest.raises(ValueError, match="allowed are none, resume"):
        LLMClient("gpt-4o", recovery="pray")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="say where"):
        LLMClient("m", provider="vllm")


async def test_another_model_takes_over(simulator: ProviderThread):
    """Nothing was delivered, and the first model does not come back."""
    simulator.hit("model-not-found")
    async with client(simulator, fallbacks=["gpt-4o-mini"]) as llm:
        answer = await llm.get_response_with_tools(ASKED, extra_headers=FOUR)
        assert llm.get_statistics().fallbacks == 1
    assert (answer.text, answer.model) == (TEXT, "gpt-4o-mini")


async def test_another_client_takes_over(simulator: ProviderThread):
    """A fallback may be at another provider."""
    simulator.hit("overloaded", count=3)
    other = client(simulator, "anthropic")
    async with other, client(simulator, fallbacks=[other]) as llm:
        answer = await llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR).until_done()
    assert (answer.text, answer.resource) == (TEXT, "anthropic/claude-x")


@pytest.mark.parametrize(
    ("fault", "timeouts", "outcome"),
    [
        ("stall-before-headers", {"first_byte": 0.2}, StreamOutcome.STALLED_FIRST_TOKEN),
        ("stall-before-token", {"first_token": 0.2}, StreamOutcome.STALLED_FIRST_TOKEN),
        ("ping-only", {"first_token": 0.3}, StreamOutcome.STALLED_FIRST_TOKEN),
        ("stall-after-chunks=2", {"idle_bytes": 0.2}, StreamOutcome.STALLED_BYTES),
        ("stall-after-chunks=2", {"idle_content": 0.2}, StreamOutcome.STALLED_CONTENT),
    ],
)
async def test_a_stream_that_is_stuck_ends(
    simulator: ProviderThread, fault: str, timeouts: dict[str, float], outcome: StreamOutcome
):
    """Two clocks: pings keep the connection alive, and not the answer."""
    simulator.hit(fault)
    limits = StreamTimeouts(**timeouts)
    async with client(simulator, retry=RetryPolicy(attempts=1), timeouts=limits) as llm:
        with pytest.raises((StreamStalled, StreamInterrupted)) as caught:
            await llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR).until_done()
    assert caught.value.outcome is outcome
    simulator.wait_until_quiet()


async def test_errors_tell_everything_and_quote_nothing(simulator: ProviderThread):
    """Data of the error: who, what, when again. Its text has no word of the provider's."""
    simulator.hit("context-length")
    async with client(simulator, resource="team/gpt") as llm:
        with pytest.raises(ProviderError) as caught:
            await llm.get_response_with_tools(ASKED, request_id="mine")
    error = caught.value
    assert (error.provider, error.model, error.resource) == ("team", "gpt", "team/gpt")
    assert (error.request_id, error.provider_request_id) == ("mine", "req_sim_fault")
    assert (error.status, error.category) == (400, Outcome.CONTEXT_LENGTH_EXCEEDED)
    assert (error.retryable, error.phase) == (False, "pre_content")
    assert error.token_limits is not None
    assert error.token_limits.context_limit
    assert error.provider_message
    assert error.provider_message not in str(error)
    assert "reduce" not in repr(error)


async def test_a_page_is_no_stream(simulator: ProviderThread):
    """A proxy's page with status 200."""
    simulator.hit("html", count=9)
    async with client(simulator) as llm:
        with pytest.raises(NotAnEventStream) as caught:
            await llm.get_streaming_response_with_tools(ASKED).until_done()
    assert "Bad gateway" in caught.value.excerpt


async def test_an_empty_stream_is_no_answer(simulator: ProviderThread):
    """Not a word, and no reason."""
    simulator.hit("truncate-after-chunks=0", count=9)
    async with client(simulator, "ollama") as llm:
        with pytest.raises(EmptyStream):
            await llm.get_streaming_response_with_tools(ASKED).until_done()


async def test_a_stream_is_read_once(simulator: ProviderThread):
    """Who wants another answer asks again."""
    async with client(simulator) as llm:
        stream = llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR)
        await stream.until_done()
        with pytest.raises(RuntimeError, match="has been read"):
            await stream.until_done()


async def test_length_is_an_outcome_and_no_error(simulator: ProviderThread):
    """Cut by max_tokens: whole as far as it was asked for."""
    async with client(simulator) as llm:
        answer = await llm.get_response_with_tools(ASKED, max_tokens=2, extra_headers=FOUR)
        assert llm.get_statistics().outcomes == {"length": 1}
    assert (answer.text, answer.outcome) == ("The water", StreamOutcome.LENGTH)


async def test_a_call_runs_under_a_reservation(
    simulator: ProviderThread, limiter: Limiter, left: Left
):
    """Reserved before, settled with what the provider counted."""
    async with client(simulator, limiter=limiter, resource="p/m") as llm:
        seen = set()
        async with llm.get_streaming_response_with_tools(
            ASKED, extra_headers=FOUR, max_tokens=200
        ) as stream:
            async for chunk in stream:
                if chunk.type == "content":
                    seen.add((left() < 800, left("m.slots")))
    assert seen
    assert seen <= {(True, 49), (False, 50)}  # the settle may come before the last chunk
    usage = stream.result.usage
    assert left() == 1000 - usage.input_tokens - usage.output_tokens
    assert (left("m.calls"), left("m.slots")) == (999, 50)


async def test_figures_of_a_client_stand_beside_those_of_the_fleet(
    simulator: ProviderThread, limiter: Limiter, left: Left
):
    """For its own models; without a limiter there is no fleet."""
    async with client(simulator, limiter=limiter, resource="p/m") as llm:
        await llm.get_response_with_tools(ASKED, extra_headers=FOUR, max_tokens=200)
        found = await llm.stats("minute")
    assert found.client.calls == 1
    (fleet,) = found.fleet
    assert fleet.resource == "p/m"
    assert fleet.latency is not None
    assert {each.resource for each in found.tenants} == {"p/m"}
    async with client(simulator) as llm:
        found = await llm.stats()
    assert (found.fleet, found.degraded) == ([], False)


async def test_a_retry_keeps_the_reservation_and_counts_a_request(
    simulator: ProviderThread, limiter: Limiter, left: Left
):
    """The tokens are reserved once; the provider counts each request, and so does the limit."""
    simulator.hit("overloaded", count=2)
    async with client(simulator, limiter=limiter, resource="p/m") as llm:
        answer = await llm.get_response_with_tools(ASKED, extra_headers=FOUR, max_tokens=200)
    assert answer.attempts == 3
    assert left() == 1000 - answer.usage.input_tokens - answer.usage.output_tokens
    assert (left("m.calls"), left("m.slots")) == (997, 50)


async def test_the_last_slot_can_be_tried_again(simulator: ProviderThread, limiter: Limiter):
    """The slot that a retry needs is the one that its call holds."""
    simulator.hit("overloaded")
    async with client(simulator, limiter=limiter, resource="p/slot-retry") as llm:
        answer = await llm.get_response_with_tools(ASKED, extra_headers=FOUR, max_wait=0)
    assert (answer.text, answer.attempts) == (TEXT, 2)


async def test_a_refusal_is_the_callers(simulator: ProviderThread, limiter: Limiter):
    """No budget: the provider is not asked."""
    async with client(simulator, limiter=limiter, resource="p/m") as llm:
        with pytest.raises(NeverFits):
            await llm.get_response_with_tools(ASKED, max_tokens=5000, max_wait=0)
        assert llm.get_statistics().outcomes == {"refused": 1}
    assert simulator.counts()["requests"] == 0


async def test_an_unknown_resource_is_said(simulator: ProviderThread, limiter: Limiter):
    """The service does not know the model: nothing is sent, and no other model is asked."""
    async with client(simulator, limiter=limiter, resource="q/m", fallbacks=["x"]) as llm:
        with pytest.raises(UnknownResource):
            await llm.get_response_with_tools(ASKED)
        assert llm.get_statistics().refused == 1
    assert simulator.counts()["requests"] == 0


async def test_a_refused_model_has_a_fallback(
    simulator: ProviderThread, limiter: Limiter, left: Left
):
    """The budget of another model is asked."""
    async with client(simulator, limiter=limiter, resource="p/m", fallbacks=["slot-other"]) as llm:
        answer = await llm.get_response_with_tools(ASKED, max_tokens=5000, max_wait=0)
    assert answer.resource == "p/slot-other"
    assert left("m.slots") == 50


async def test_who_stops_early_gives_everything_back(
    simulator: ProviderThread, limiter: Limiter, left: Left
):
    """The connection ends at once, the lease is settled with an estimate."""
    simulator.hit("stall-after-chunks=2")
    async with client(simulator, limiter=limiter, resource="p/m") as llm:
        async with llm.get_streaming_response_with_tools(ASKED, extra_headers=FOUR) as stream:
            async for chunk in stream:
                if chunk.content:
                    break
        simulator.wait_until_quiet()
        assert left("m.slots") == 50
        assert 0 < 1000 - left() < 100
        assert llm.get_statistics().cancelled == 1
