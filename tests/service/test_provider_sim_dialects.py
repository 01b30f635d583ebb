"""Every dialect over real HTTP: plain, streaming, thoughts, tool calls, errors."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests_support.simulator import simulator
from tests_support.spoken import PROVIDERS, Provider, messages, payloads

from limiter_service.provider_sim import SimOptions

FAST = SimOptions(rpm=1_000_000, tpm=1_000_000_000, latency=0, tokens_per_second=1e9)
TEXT = "The water rises behind the gate until"
THOUGHTS = "First, how"
CALL = ("weather", {"city": "a city at the gate", "days": 3})
SIZES = {"x-sim-input-tokens": "40", "x-sim-output-tokens": "7"}
CAPTURES = Path(__file__).parents[3] / "shared" / "data" / "streams"

# One simulator serves them all: no test of this file depends on what another has asked.
pytestmark = pytest.mark.asyncio(loop_scope="module")

each_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda one: one.name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with simulator(FAST) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def ask(
    http: httpx.AsyncClient, provider: Provider, *, stream: bool, **headers: str
) -> httpx.Response:
    """A call with tools on offer where its headers ask for their use."""
    body = provider.body(stream)
    if "tool_calls" in headers:
        body |= provider.tools
    path = provider.stream_path if stream else provider.path
    sent = {f"x-sim-{name.replace('_', '-')}": value for name, value in headers.items()}
    return await http.post(path, json=body, headers=SIZES | sent)


@each_provider
async def test_plain(http: httpx.AsyncClient, provider: Provider) -> None:
    """A plain answer has text, the reason of its end, and usage."""
    answer = await ask(http, provider, stream=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    heard = provider.whole(answer.json())
    assert (heard.text, heard.reasoning, heard.calls) == (TEXT, "", [])
    assert heard.usage == (40, 7)
    assert heard.finish == provider.finish[0]


@each_provider
async def test_stream(http: httpx.AsyncClient, provider: Provider) -> None:
    """A stream has the same text, a piece per token, and ends as its dialect ends."""
    answer = await ask(http, provider, stream=True)
    assert answer.status_code == 200
    kinds = {"bedrock": "application/vnd.amazon.eventstream", "ollama": "application/x-ndjson"}
    assert answer.headers["content-type"] == kinds.get(provider.name, "text/event-stream")
    heard = provider.stream(answer.content)
    assert (heard.text, heard.reasoning, heard.calls) == (TEXT, "", [])
    assert heard.usage == (40, 7)
    assert heard.finish == provider.finish[0]
    assert heard.ended


@each_provider
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_thoughts(http: httpx.AsyncClient, provider: Provider, stream: bool) -> None:
    """Thoughts come apart from the text, and are counted."""
    answer = await ask(http, provider, stream=stream, reasoning_tokens="3")
    heard = provider.stream(answer.content) if stream else provider.whole(answer.json())
    assert (heard.text, heard.reasoning) == (TEXT, THOUGHTS)
    assert heard.usage == (40, 10)


@each_provider
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("count", [1, 3])
async def test_calls(http: httpx.AsyncClient, provider: Provider, stream: bool, count: int) -> None:
    """One call of a tool, and several in parallel, with arguments that its schema allows."""
    answer = await ask(http, provider, stream=stream, tool_calls=str(count))
    heard = provider.stream(answer.content) if stream else provider.whole(answer.json())
    assert heard.calls == [CALL] * count
    assert heard.finish == provider.finish[2]


@each_provider
async def test_limit_of_output(http: httpx.AsyncClient, provider: Provider) -> None:
    """An answer that its limit cuts says so, in a stream as well."""
    limits: dict[str, dict[str, Any]] = {
        "openai-responses": {"max_output_tokens": 3},
        "gemini": {"generationConfig": {"maxOutputTokens": 3}},
        "bedrock": {"inferenceConfig": {"maxTokens": 3}},
        "ollama": {"options": {"num_predict": 3}},
    }
    limit = limits.get(provider.name, {"max_tokens": 3})
    whole = await http.post(provider.path, json=provider.body(False) | limit, headers=SIZES)
    stream = await http.post(provider.stream_path, json=provider.body(True) | limit, headers=SIZES)
    for heard in (provider.whole(whole.json()), provider.stream(stream.content)):
        assert heard.text == "The water rises"
        assert heard.usage == (40, 3)
        assert heard.finish == provider.finish[1]


@each_provider
async def test_hard_words(http: httpx.AsyncClient, provider: Provider) -> None:
    """Text that parsers stumble over is the same in a stream as in one body."""
    heard = []
    for stream in (False, True):
        answer = await ask(http, provider, stream=stream, words="hard", output_tokens="40")
        parsed = provider.stream(answer.content) if stream else provider.whole(answer.json())
        heard.append(parsed.text)
    assert heard[0] == heard[1]
    assert "\u2028" in heard[0]
    assert "data: [DONE]" in heard[0]


@each_provider
async def test_bodies_that_are_no_requests(http: httpx.AsyncClient, provider: Provider) -> None:
    """A body that cannot be read gets an error of the dialect."""
    answer = await http.post(provider.path, content=b"{")
    assert answer.status_code in {400, 422}
    body = answer.json()
    message = body["error"] if provider.name == "ollama" else body.get("error", body)
    assert "could not parse the JSON" in str(message)


@each_provider
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("rate-limit; retry-after=7", 429),
        ("insufficient-quota", 429),
        ("overloaded", 503),
        ("server-error", 500),
        ("bad-key", 401),
        ("permission", 403),
        ("model-not-found", 404),
        ("context-length", 400),
        ("content-filter", 400),
        ("timeout", 504),
    ],
)
async def test_errors(http: httpx.AsyncClient, provider: Provider, fault: str, status: int) -> None:
    """Each kind of error has the status that the provider gives it, and its body."""
    own = {
        ("anthropic", "overloaded"): 529,
        ("azure-chat", "overloaded"): 429,
        ("mistral", "overloaded"): 429,
        ("bedrock", "insufficient-quota"): 400,
        ("cohere", "insufficient-quota"): 402,
        ("mistral", "insufficient-quota"): 402,
        ("ollama", "insufficient-quota"): 402,
        ("ollama", "rate-limit; retry-after=7"): 503,
        ("gemini", "bad-key"): 400,
        ("bedrock", "bad-key"): 403,
        ("mistral", "model-not-found"): 400,
        ("bedrock", "timeout"): 408,
        ("cohere", "content-filter"): 422,
        ("mistral", "content-filter"): 403,
    }
    answer = await ask(http, provider, stream=True, fault=fault)
    assert answer.status_code == own.get((provider.name, fault), status)
    assert answer.headers["content-type"] == "application/json"
    assert error_text(provider, answer.json())
    if fault.startswith("rate-limit") and provider.name not in {"gemini", "bedrock", "ollama"}:
        assert answer.headers["retry-after"] == "7"


def error_text(provider: Provider, body: dict[str, Any]) -> str:
    """The message of an error, which stands where the provider puts it."""
    match provider.name:
        case "openai-chat" | "openai-responses" | "azure-chat" | "gemini":
            return str(body["error"]["message"])
        case "anthropic":
            assert body["type"] == "error"
            return str(body["error"]["message"])
        case "mistral":
            assert body["object"] == "error"
            return str(body["message"])
        case "ollama":
            return str(body["error"])
        case _:
            return str(body["message"])


class TestDialects:
    """What only one dialect has."""

    async def test_openai_hides_thoughts(self, http: httpx.AsyncClient) -> None:
        """OpenAI's own models count their thoughts and do not show them."""
        body = {"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]}
        headers = SIZES | {"x-sim-reasoning-tokens": "3"}
        answer = (await http.post("/v1/chat/completions", json=body, headers=headers)).json()
        assert "reasoning_content" not in answer["choices"][0]["message"]
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3
        assert answer["usage"]["completion_tokens"] == 10

    async def test_openai_splits_arguments(self, http: httpx.AsyncClient) -> None:
        """Id and name stand in the first piece of a call alone; arguments follow."""
        body = PROVIDERS[0].body(True) | PROVIDERS[0].tools
        answer = await http.post("/v1/chat/completions", json=body)
        deltas = [c["choices"][0]["delta"] for c in payloads(answer.content) if c["choices"]]
        first, *rest = [d["tool_calls"][0] for d in deltas if "tool_calls" in d]
        assert first["id"].startswith("call_")
        assert first["function"] == {"name": "weather", "arguments": ""}
        assert len(rest) > 3
        assert all(set(piece) == {"index", "function"} for piece in rest)

    async def test_mistral_splits_a_single_call(self, http: httpx.AsyncClient) -> None:
        """Later pieces have an empty name and no id; parallel calls come whole."""
        provider = next(one for one in PROVIDERS if one.name == "mistral")
        answer = await ask(http, provider, stream=True, tool_calls="1")
        deltas = [c["choices"][0]["delta"] for c in payloads(answer.content)]
        first, *rest = [d["tool_calls"][0] for d in deltas if d.get("tool_calls")]
        assert first["id"]
        assert all(piece["function"]["name"] == "" and "id" not in piece for piece in rest)
        parallel = await ask(http, provider, stream=True, tool_calls="2")
        deltas = [c["choices"][0]["delta"] for c in payloads(parallel.content)]
        [calls] = [d["tool_calls"] for d in deltas if d.get("tool_calls")]
        assert [call["function"]["name"] for call in calls] == ["weather"] * 2

    async def test_anthropic_tool_without_arguments(self, http: httpx.AsyncClient) -> None:
        """A call without arguments has one empty delta."""
        provider = next(one for one in PROVIDERS if one.name == "anthropic")
        tools = {"tools": [{"name": "now", "input_schema": {"type": "object"}}]}
        answer = await http.post(provider.path, json=provider.body(True) | tools)
        deltas = [e["delta"] for e in payloads(answer.content) if e["type"].endswith("_delta")]
        partial = [d["partial_json"] for d in deltas if "partial_json" in d]
        assert partial == [""]
        assert provider.stream(answer.content).calls == [("now", {})]

    async def test_anthropic_cached_input(self, http: httpx.AsyncClient) -> None:
        """What was read from and written to the cache is counted apart."""
        provider = next(one for one in PROVIDERS if one.name == "anthropic")
        answer = await ask(
            http, provider, stream=False, cache_read_tokens="20", cache_write_tokens="5"
        )
        usage = answer.json()["usage"]
        assert usage["input_tokens"] == 15
        assert usage["cache_read_input_tokens"] == 20
        assert usage["cache_creation_input_tokens"] == 5

    @pytest.mark.parametrize("given", ["The wa", "The water", "The water rises behind the gate"])
    async def test_prefill_is_continued(self, http: httpx.AsyncClient, given: str) -> None:
        """An answer whose beginning the caller gives is the rest of it."""
        provider = next(one for one in PROVIDERS if one.name == "anthropic")
        body = provider.body(True)
        body["messages"] = [*body["messages"], {"role": "assistant", "content": given}]
        answer = await http.post(provider.path, json=body, headers=SIZES)
        assert given + provider.stream(answer.content).text == TEXT

    async def test_gemini_array(self, http: httpx.AsyncClient) -> None:
        """Without `alt=sse` a stream is one array in JSON."""
        provider = next(one for one in PROVIDERS if one.name == "gemini")
        path = provider.stream_path.removesuffix("?alt=sse")
        answer = await http.post(path, json=provider.body(True), headers=SIZES)
        assert answer.headers["content-type"] == "application/json"
        parts = [c["candidates"][0]["content"]["parts"] for c in answer.json()]
        assert "".join(part["text"] for [part] in parts) == TEXT

    async def test_gemini_partial_arguments(self, http: httpx.AsyncClient) -> None:
        """Arguments come in pieces where the caller asks for that."""
        provider = next(one for one in PROVIDERS if one.name == "gemini")
        calling = {"functionCallingConfig": {"streamFunctionCallArguments": True}}
        body = provider.body(True) | provider.tools | {"toolConfig": calling}
        answer = await http.post(provider.stream_path, json=body)
        parts = [c["candidates"][0]["content"]["parts"][0] for c in payloads(answer.content)]
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        assert calls[0] == {"name": "weather", "willContinue": True}
        assert calls[-1] == {}
        pieces = [piece for call in calls for piece in call.get("partialArgs", ())]
        city = [p["stringValue"] for p in pieces if p["jsonPath"] == "$.city"]
        assert "".join(city) == "a city at the gate"
        assert {"jsonPath": "$.days", "numberValue": 3} in pieces

    async def test_bedrock_exception_frames(self, http: httpx.AsyncClient) -> None:
        """An error within a stream is a frame of its own type."""
        provider = next(one for one in PROVIDERS if one.name == "bedrock")
        fault = "error-after-chunks=1; kind=rate-limit"
        answer = await ask(http, provider, stream=True, fault=fault)
        headers, payload = messages(answer.content)[-1]
        assert headers[":message-type"] == "exception"
        assert headers[":exception-type"] == "throttlingException"
        assert "Too many requests" in payload["message"]

    async def test_responses_are_read_again(self, http: httpx.AsyncClient) -> None:
        """A response is there afterwards, whole, and as a stream from an event on."""
        provider = next(one for one in PROVIDERS if one.name == "openai-responses")
        first = payloads((await ask(http, provider, stream=True)).content)
        path = f"/v1/responses/{first[0]['response']['id']}"
        assert (await http.get(path)).json() == first[-1]["response"]
        rest = await http.get(path, params={"stream": "true", "starting_after": 4})
        assert payloads(rest.content) == first[5:]
        assert (await http.get("/v1/responses/resp_other")).status_code == 404

    async def test_agents_come_to_an_end(self, http: httpx.AsyncClient) -> None:
        """Tools on offer are called, and the answer to their results is text."""
        provider = PROVIDERS[0]
        body = provider.body(False) | provider.tools
        called = provider.whole((await http.post(provider.path, json=body)).json())
        assert called.calls == [CALL]
        body["messages"] = [*body["messages"], {"role": "tool", "content": "42"}]
        told = provider.whole((await http.post(provider.path, json=body)).json())
        assert told.calls == []
        assert told.text


@pytest.mark.parametrize(
    ("name", "capture"),
    [
        ("openai-responses", "openai__responses__openai-phase.1"),
        ("anthropic", "anthropic__anthropic-json-tool.2"),
        ("gemini", "google__google-reasoning"),
        ("cohere", "cohere__cohere-tool-call"),
        ("mistral", "mistral__mistral-incremental-tool-call"),
        ("ollama", ""),
    ],
)
@pytest.mark.skipif(not CAPTURES.exists(), reason="captured streams are not on this machine")
async def test_every_event_is_of_a_kind_that_was_captured(
    http: httpx.AsyncClient, name: str, capture: str
) -> None:
    """The types of events that a dialect sends are among those that its provider sends."""
    if not capture:
        pytest.skip("no stream of this provider was captured")
    provider = next(one for one in PROVIDERS if one.name == name)
    answer = await ask(http, provider, stream=True)
    whole = CAPTURES / f"{capture}.chunks.txt"
    groups = [CAPTURES.glob(f"{capture.split('__', 1)[0]}__*.chunks.txt"), [whole]]
    captured = {event.get("type") for group in groups for event in lines(group)}
    assert {event.get("type") for event in payloads(answer.content)} <= captured


def lines(paths: Any) -> Iterator[dict[str, Any]]:
    for path in paths:
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)
