"""The providers' own clients talk to the simulator, where they are installed.

They are no dependency of ours: in an environment without one, its test is skipped.
"""

import asyncio
import warnings
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import pytest
from tests_support.simulator import simulator

from limiter_service.provider_sim import SimOptions

TEXT = "The water rises behind the"
FIVE = {"x-sim-output-tokens": "5"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CITY = {"city": "a city at the gate"}
ASK = [{"role": "user", "content": "How high is the water?"}]
FAST = SimOptions(latency=0, tokens_per_second=1e9)


def installed(name: str) -> ModuleType:
    """The module, whose own warnings are not ours; skips the test where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


class TestOpenAI:
    """openai-python."""

    async def test_chat(self) -> None:
        """Plain, streaming with usage, and a tool call that arrives in pieces."""
        openai = installed("openai")
        tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
        async with simulator(FAST) as url:
            sdk = openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key="k", max_retries=0)
            async with sdk:
                chat = sdk.chat.completions
                whole = await chat.create(model="gpt-4o", messages=ASK, extra_headers=FIVE)
                assert whole.choices[0].message.content == TEXT
                assert whole.usage.completion_tokens == 5
                usage = {"include_usage": True}
                stream = await chat.create(
                    model="gpt-4o",
                    messages=ASK,
                    stream=True,
                    stream_options=usage,
                    extra_headers=FIVE,
                )
                chunks = [chunk async for chunk in stream]
                assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == TEXT
                assert chunks[-1].usage.completion_tokens == 5
                async with chat.stream(model="gpt-4o", messages=ASK, tools=[tool]) as events:
                    final = await events.get_final_completion()
                [call] = final.choices[0].message.tool_calls
                assert (call.function.name, call.id[:5]) == ("weather", "call_")
                assert call.function.arguments == '{"city":"a city at the gate"}'

    async def test_responses(self) -> None:
        """A stream of typed events, its final response, and the rest of it once more."""
        openai = installed("openai")
        async with simulator(FAST) as url:
            sdk = openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key="k", max_retries=0)
            async with sdk:
                tool = {"type": "function", "name": "weather", "parameters": WEATHER}
                thinking = {**FIVE, "x-sim-reasoning-tokens": "3"}
                async with sdk.responses.stream(
                    model="gpt-5", input="Hi", tools=[tool], extra_headers=thinking
                ) as events:
                    seen = [event async for event in events]
                    final = await events.get_final_response()
                assert final.output_text == TEXT
                assert final.usage.output_tokens_details.reasoning_tokens == 3
                assert [item.type for item in final.output] == [
                    "reasoning",
                    "message",
                    "function_call",
                ]
                rest = await sdk.responses.retrieve(final.id, stream=True, starting_after=10)
                numbers = [event.sequence_number async for event in rest]
                assert numbers == list(range(11, seen[-1].sequence_number + 1))

    async def test_errors(self) -> None:
        """Refusals and faults become the client's own exceptions."""
        openai = installed("openai")
        async with simulator(SimOptions(rpm=1, latency=0, tokens_per_second=1e9)) as url:
            sdk = openai.AsyncOpenAI(base_url=f"{url}/openai/v1", api_key="k", max_retries=0)
            async with sdk:
                await sdk.chat.completions.create(model="gpt-4o", messages=ASK)
                with pytest.raises(openai.RateLimitError) as caught:
                    await sdk.chat.completions.create(model="gpt-4o", messages=ASK)
                assert caught.value.code == "rate_limit_exceeded"
                fault = {"x-sim-fault": "bad-key"}
                with pytest.raises(openai.AuthenticationError):
                    await sdk.chat.completions.create(
                        model="gpt-4o", messages=ASK, extra_headers=fault
                    )

    async def test_azure(self) -> None:
        """The Azure client finds its deployment."""
        openai = installed("openai")
        async with simulator(FAST) as url:
            sdk = openai.AsyncAzureOpenAI(
                azure_endpoint=f"{url}/azure", api_key="k", api_version="2025-01-01"
            )
            async with sdk:
                stream = await sdk.chat.completions.create(
                    model="mine", messages=ASK, stream=True, extra_headers=FIVE
                )
                chunks = [chunk async for chunk in stream]
        assert chunks[0].choices == []
        text = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(text) == TEXT


class TestAnthropic:
    """anthropic-sdk-python."""

    async def test_messages(self) -> None:
        """Plain and streaming: thoughts, text and a tool call."""
        anthropic = installed("anthropic")
        tool = {"name": "weather", "input_schema": WEATHER}
        thinking = {**FIVE, "x-sim-reasoning-tokens": "3"}
        async with simulator(FAST) as url:
            sdk = anthropic.AsyncAnthropic(base_url=f"{url}/anthropic", api_key="k")
            async with sdk:
                common = {"model": "claude-x", "max_tokens": 100, "messages": ASK}
                whole = await sdk.messages.create(**common, extra_headers=FIVE)
                assert whole.content[0].text == TEXT
                assert whole.stop_reason == "end_turn"
                async with sdk.messages.stream(
                    **common, tools=[tool], extra_headers=thinking
                ) as stream:
                    final = await stream.get_final_message()
        assert [block.type for block in final.content] == ["thinking", "text", "tool_use"]
        assert final.content[1].text == TEXT
        assert final.content[2].input == CITY
        assert final.stop_reason == "tool_use"
        assert final.usage.output_tokens == 5 + 3 + 1 + 8

    async def test_errors(self) -> None:
        """An overloaded provider, before and within a stream."""
        anthropic = installed("anthropic")
        async with simulator(FAST) as url:
            sdk = anthropic.AsyncAnthropic(base_url=f"{url}/anthropic", api_key="k", max_retries=0)
            async with sdk:
                common = {"model": "claude-x", "max_tokens": 100, "messages": ASK}
                with pytest.raises(anthropic.APIStatusError) as caught:
                    await sdk.messages.create(**common, extra_headers={"x-sim-fault": "overloaded"})
                assert caught.value.status_code == 529
                fault = {**FIVE, "x-sim-fault": "error-after-chunks=3"}
                with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
                    async with sdk.messages.stream(**common, extra_headers=fault) as stream:
                        await stream.get_final_message()


async def in_thread(call: Callable[[], Any]) -> Any:
    """Run a client that blocks beside the simulator."""
    running: Awaitable[Any] = asyncio.to_thread(call)
    return await running


async def test_google() -> None:
    """google-genai: plain, streaming, and a function call."""
    genai = installed("google.genai")
    declaration = {"name": "weather", "parameters_json_schema": WEATHER}
    async with simulator(FAST) as url:
        options = {"base_url": f"{url}/gemini", "headers": FIVE}
        sdk = genai.Client(api_key="k", http_options=options)

        def calls() -> tuple[Any, Any, Any]:
            whole = sdk.models.generate_content(model="gemini-x", contents="Hi")
            pieces = list(sdk.models.generate_content_stream(model="gemini-x", contents="Hi"))
            tools = {
                "tools": [{"function_declarations": [declaration]}],
                "automatic_function_calling": {"disable": True},
            }
            called = sdk.models.generate_content(model="gemini-x", contents="Hi", config=tools)
            sdk.close()
            return whole, pieces, called

        whole, pieces, called = await in_thread(calls)
    assert whole.text == TEXT
    assert "".join(piece.text or "" for piece in pieces) == TEXT
    assert pieces[-1].usage_metadata.candidates_token_count == 5
    assert called.function_calls[0].args == CITY


async def test_mistral() -> None:
    """mistralai: plain, streaming, and a tool call in pieces."""
    installed("mistralai")
    client = installed("mistralai.client")
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    async with simulator(FAST) as url:

        def calls() -> tuple[Any, Any, Any]:
            with client.Mistral(api_key="k", server_url=f"{url}/mistral") as sdk:
                common = {"model": "mistral-x", "messages": ASK, "http_headers": FIVE}
                whole = sdk.chat.complete(**common)
                with sdk.chat.stream(**common) as stream:
                    pieces = [event.data for event in stream]
                called = sdk.chat.complete(model="mistral-x", messages=ASK, tools=[tool])
                return whole, pieces, called

        whole, pieces, called = await in_thread(calls)
    assert whole.choices[0].message.content == TEXT
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == TEXT
    assert pieces[-1].usage.completion_tokens == 5
    [call] = called.choices[0].message.tool_calls
    assert call.function.name == "weather"


async def test_cohere() -> None:
    """Cohere: plain and streaming."""
    cohere = installed("cohere")
    async with simulator(FAST) as url:

        def calls() -> tuple[Any, Any]:
            options = {"additional_headers": FIVE}
            common = {"model": "command-x", "messages": ASK, "request_options": options}
            with cohere.ClientV2(api_key="k", base_url=f"{url}/cohere") as sdk:
                return sdk.chat(**common), list(sdk.chat_stream(**common))

        whole, pieces = await in_thread(calls)
    assert whole.message.content[0].text == TEXT
    deltas = [p.delta.message.content.text for p in pieces if p.type == "content-delta"]
    assert "".join(deltas) == TEXT
    assert pieces[-1].delta.usage.tokens.output_tokens == 5


async def test_ollama() -> None:
    """Ollama: plain, streaming, and a tool call."""
    ollama = installed("ollama")
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    async with simulator(FAST) as url:
        sdk = ollama.AsyncClient(host=f"{url}/ollama", headers=FIVE)
        whole = await sdk.chat(model="llama", messages=ASK)
        pieces = [one async for one in await sdk.chat(model="llama", messages=ASK, stream=True)]
        called = await sdk.chat(model="llama", messages=ASK, tools=[tool])
        await sdk._client.aclose()
    assert whole.message.content == TEXT
    assert "".join(piece.message.content or "" for piece in pieces) == TEXT
    assert pieces[-1].eval_count == 5
    assert called.message.tool_calls[0].function.arguments == CITY


async def test_bedrock_frames() -> None:
    """botocore reads every event of a converse stream, and checks its checksums."""
    eventstream = installed("botocore.eventstream")
    httpx = installed("httpx")
    body = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
    async with simulator(FAST) as url, httpx.AsyncClient(base_url=f"{url}/bedrock") as http:
        answer = await http.post("/model/claude/converse-stream", json=body, headers=FIVE)
    buffer = eventstream.EventStreamBuffer()
    buffer.add_data(answer.content)
    kinds = [event.headers[":event-type"] for event in buffer]
    assert kinds == [
        "messageStart",
        *["contentBlockDelta"] * 5,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]


async def test_bedrock() -> None:
    """boto3 converses, and streams a tool call."""
    boto3 = installed("boto3")
    spec = {"name": "weather", "inputSchema": {"json": WEATHER}}
    message = {"role": "user", "content": [{"text": "Hi"}]}
    async with simulator(FAST) as url:

        def calls() -> tuple[Any, Any]:
            sdk = boto3.client(
                "bedrock-runtime",
                region_name="us-east-1",
                endpoint_url=f"{url}/bedrock",
                aws_access_key_id="k",
                aws_secret_access_key="s",
            )
            whole = sdk.converse(modelId="anthropic.claude-v1:0", messages=[message])
            stream = sdk.converse_stream(
                modelId="anthropic.claude-v1:0",
                messages=[message],
                toolConfig={"tools": [{"toolSpec": spec}]},
            )
            events = list(stream["stream"])
            sdk.close()
            return whole, events

        whole, events = await in_thread(calls)
    assert whole["stopReason"] == "end_turn"
    assert {name for event in events for name in event} >= {"contentBlockStart", "metadata"}
