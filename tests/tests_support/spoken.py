"""Reading what providers send, written from their documentation and not from our simulator."""

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}


class Heard(msgspec.Struct, kw_only=True):
    """What a caller understands of an answer."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Any]] = []
    usage: tuple[int, int] | None = None
    finish: str | None = None
    ended: bool = True


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider is asked, and understood."""

    name: str
    path: str
    stream_path: str
    body: Callable[[bool], dict[str, Any]]
    tools: dict[str, Any]
    whole: Callable[[dict[str, Any]], Heard]
    stream: Callable[[bytes], Heard]
    finish: tuple[str, str, str]
    """The names of an answer that is complete, cut by its limit, and a call of tools."""


def events(body: bytes) -> list[tuple[str | None, str]]:
    """Server-sent events: name and data."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("event"), fields["data"]))
    return found


def payloads(body: bytes) -> list[dict[str, Any]]:
    """The JSON of each event but the end mark."""
    return [json.loads(data) for _, data in events(body) if data != "[DONE]"]


def is_done(body: bytes) -> bool:
    return body.endswith(b"data: [DONE]\n\n")


def messages(body: bytes) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """The messages of an AWS event stream, whose checksums are right."""
    found, at = [], 0
    while at < len(body):
        total, head, checksum = struct.unpack_from(">III", body, at)
        assert zlib.crc32(body[at : at + 8]) == checksum
        whole = body[at : at + total]
        assert zlib.crc32(whole[:-4]) == struct.unpack(">I", whole[-4:])[0]
        headers, place = {}, 12
        while place < 12 + head:
            size = whole[place]
            name = whole[place + 1 : place + 1 + size].decode()
            kind, length = struct.unpack_from(">BH", whole, place + 1 + size)
            assert kind == 7
            place += 4 + size
            headers[name] = whole[place : place + length].decode()
            place += length
        found.append((headers, json.loads(whole[12 + head : -4])))
        at += total
    return found


def _chat(**fields: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": "How high is the water?"}]
    return {"model": "gpt-4o", "messages": asked, **fields}


_FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}


def _openai_whole(body: dict[str, Any]) -> Heard:
    [choice] = body["choices"]
    message = choice["message"]
    content = message["content"]
    reasoning = message.get("reasoning_content") or ""
    if isinstance(content, list):  # Mistral's thoughts
        reasoning = "".join(t["text"] for p in content for t in p.get("thinking", ()))
        content = "".join(part.get("text", "") for part in content)
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return Heard(
        text=content or "",
        reasoning=reasoning,
        calls=[(call["name"], json.loads(call["arguments"])) for call in calls],
        usage=_openai_usage(body["usage"]),
        finish=choice["finish_reason"],
    )


def _openai_usage(usage: dict[str, Any]) -> tuple[int, int]:
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"]


def _openai_stream(body: bytes) -> Heard:
    heard = Heard(ended=is_done(body))
    calls: dict[int, list[str]] = {}
    for chunk in payloads(body):
        if chunk.get("usage"):
            heard.usage = _openai_usage(chunk["usage"])
        for choice in chunk["choices"]:
            delta = choice["delta"]
            content = delta.get("content")
            if isinstance(content, list):
                heard.reasoning += "".join(t["text"] for p in content for t in p["thinking"])
            else:
                heard.text += content or ""
            heard.reasoning += delta.get("reasoning_content") or ""
            heard.finish = choice["finish_reason"] or heard.finish
            for number, piece in enumerate(delta.get("tool_calls") or ()):
                whole = calls.setdefault(piece.get("index", number), ["", ""])
                whole[0] += piece["function"].get("name") or ""
                whole[1] += piece["function"].get("arguments") or ""
    heard.calls = [(name, json.loads(arguments)) for name, arguments in calls.values()]
    return heard


def _responses_whole(body: dict[str, Any]) -> Heard:
    heard = Heard(usage=(body["usage"]["input_tokens"], body["usage"]["output_tokens"]))
    heard.finish = body["status"]
    for item in body["output"]:
        match item["type"]:
            case "message":
                heard.text += "".join(part["text"] for part in item["content"])
            case "reasoning":
                heard.reasoning += "".join(part["text"] for part in item["summary"])
            case "function_call":
                heard.calls.append((item["name"], json.loads(item["arguments"])))
    return heard


def _responses_stream(body: bytes) -> Heard:
    heard = Heard()
    arguments: dict[str, str] = {}
    names: dict[str, str] = {}
    numbers = []
    for name, data in events(body):
        event = json.loads(data)
        assert event["type"] == name
        numbers.append(event["sequence_number"])
        match name:
            case "response.output_text.delta":
                heard.text += event["delta"]
            case "response.reasoning_summary_text.delta":
                heard.reasoning += event["delta"]
            case "response.output_item.added":
                names[event["item"]["id"]] = event["item"].get("name", "")
            case "response.function_call_arguments.delta":
                item = event["item_id"]
                arguments[item] = arguments.get(item, "") + event["delta"]
            case "response.completed" | "response.incomplete":
                final = _responses_whole(event["response"])
                assert (final.text, final.reasoning) == (heard.text, heard.reasoning)
                heard.usage, heard.finish = final.usage, final.finish
    heard.ended = heard.finish is not None
    assert numbers == list(range(len(numbers)))
    heard.calls = [(names[item], json.loads(text)) for item, text in arguments.items()]
    return heard


def _anthropic_blocks(heard: Heard, blocks: list[dict[str, Any]]) -> Heard:
    for block in blocks:
        match block["type"]:
            case "text":
                heard.text += block["text"]
            case "thinking":
                heard.reasoning += block["thinking"]
            case "tool_use":
                heard.calls.append((block["name"], block["input"]))
    return heard


def _anthropic_usage(usage: dict[str, Any]) -> tuple[int, int]:
    read, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    return usage["input_tokens"] + read + written, usage["output_tokens"]


def _anthropic_whole(body: dict[str, Any]) -> Heard:
    heard = Heard(usage=_anthropic_usage(body["usage"]), finish=body["stop_reason"])
    return _anthropic_blocks(heard, body["content"])


def _anthropic_stream(body: bytes) -> Heard:
    heard = Heard(ended=False)
    blocks: list[dict[str, Any]] = []
    partial = ""
    for name, data in events(body):
        event = json.loads(data)
        assert event["type"] == name
        match name:
            case "content_block_start":
                assert event["index"] == len(blocks)
                blocks.append(event["content_block"])
                partial = ""
            case "content_block_delta":
                delta = event["delta"]
                match delta["type"]:
                    case "text_delta":
                        blocks[-1]["text"] += delta["text"]
                    case "thinking_delta":
                        blocks[-1]["thinking"] += delta["thinking"]
                    case "input_json_delta":
                        partial += delta["partial_json"]
            case "content_block_stop":
                if blocks[-1]["type"] == "tool_use":
                    blocks[-1]["input"] = json.loads(partial) if partial else {}
            case "message_delta":
                heard.usage = _anthropic_usage(event["usage"])
                heard.finish = event["delta"]["stop_reason"]
            case "message_stop":
                heard.ended = True
    return _anthropic_blocks(heard, blocks)


def _gemini_chunks(chunks: list[dict[str, Any]]) -> Heard:
    heard = Heard()
    for chunk in chunks:
        [candidate] = chunk["candidates"]
        for part in candidate["content"]["parts"]:
            if "functionCall" in part:
                heard.calls.append((part["functionCall"]["name"], part["functionCall"]["args"]))
            elif part.get("thought"):
                heard.reasoning += part["text"]
            else:
                heard.text += part["text"]
        heard.finish = candidate.get("finishReason")
        usage = chunk["usageMetadata"]
        output = usage["candidatesTokenCount"] + usage.get("thoughtsTokenCount", 0)
        heard.usage = usage["promptTokenCount"], output
    heard.ended = heard.finish is not None
    return heard


def _cohere_whole(body: dict[str, Any]) -> Heard:
    message, tokens = body["message"], body["usage"]["tokens"]
    calls = [call["function"] for call in message.get("tool_calls", ())]
    return Heard(
        text="".join(part.get("text", "") for part in message["content"]),
        reasoning="".join(part.get("thinking", "") for part in message["content"]),
        calls=[(call["name"], json.loads(call["arguments"])) for call in calls],
        usage=(tokens["input_tokens"], tokens["output_tokens"]),
        finish=body["finish_reason"],
    )


def _cohere_stream(body: bytes) -> Heard:
    heard = Heard(ended=False)
    calls: dict[int, list[str]] = {}
    for name, data in events(body):
        event = json.loads(data)
        assert event["type"] == name
        message = event.get("delta", {}).get("message", {})
        match name:
            case "content-delta":
                heard.text += message["content"].get("text", "")
                heard.reasoning += message["content"].get("thinking", "")
            case "tool-call-start":
                calls[event["index"]] = [message["tool_calls"]["function"]["name"], ""]
            case "tool-call-delta":
                calls[event["index"]][1] += message["tool_calls"]["function"]["arguments"]
            case "message-end":
                heard.finish = event["delta"]["finish_reason"]
                tokens = event["delta"]["usage"]["tokens"]
                heard.usage = tokens["input_tokens"], tokens["output_tokens"]
                heard.ended = True
    heard.calls = [(name, json.loads(text)) for name, text in calls.values()]
    return heard


def _bedrock_usage(usage: dict[str, Any]) -> tuple[int, int]:
    return usage["inputTokens"], usage["outputTokens"]


def _bedrock_whole(body: dict[str, Any]) -> Heard:
    heard = Heard(usage=_bedrock_usage(body["usage"]), finish=body["stopReason"])
    for block in body["output"]["message"]["content"]:
        heard.text += block.get("text", "")
        thoughts = block.get("reasoningContent", {}).get("reasoningText", {})
        heard.reasoning += thoughts.get("text", "")
        if "toolUse" in block:
            heard.calls.append((block["toolUse"]["name"], block["toolUse"]["input"]))
    return heard


def _bedrock_stream(body: bytes) -> Heard:
    heard = Heard(ended=False)
    calls: dict[int, list[str]] = {}
    for headers, payload in messages(body):
        assert headers[":message-type"] == "event"
        index = payload.get("contentBlockIndex", -1)
        match headers[":event-type"]:
            case "contentBlockStart":
                calls[index] = [payload["start"]["toolUse"]["name"], ""]
            case "contentBlockDelta":
                delta = payload["delta"]
                heard.text += delta.get("text", "")
                heard.reasoning += delta.get("reasoningContent", {}).get("text", "")
                if "toolUse" in delta:
                    calls[index][1] += delta["toolUse"]["input"]
            case "messageStop":
                heard.finish = payload["stopReason"]
            case "metadata":
                heard.usage = _bedrock_usage(payload["usage"])
                heard.ended = True
    heard.calls = [(name, json.loads(text)) for name, text in calls.values()]
    return heard


def _ollama_lines(lines: list[dict[str, Any]]) -> Heard:
    heard = Heard()
    for line in lines:
        message = line["message"]
        heard.text += message["content"]
        heard.reasoning += message.get("thinking", "")
        calls = [call["function"] for call in message.get("tool_calls", ())]
        heard.calls += [(call["name"], call["arguments"]) for call in calls]
    last = lines[-1]
    heard.ended = last["done"]
    if heard.ended:
        heard.usage = last["prompt_eval_count"], last["eval_count"]
        heard.finish = last["done_reason"]
    return heard


def _converse(_: bool) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"text": "How high is the water?"}]}]}


def _contents(_: bool) -> dict[str, Any]:
    thinking = {"thinkingConfig": {"includeThoughts": True}}
    asked = [{"role": "user", "parts": [{"text": "How high is the water?"}]}]
    return {"contents": asked, "generationConfig": thinking}


def _openai_body(stream: bool) -> dict[str, Any]:
    options = {"stream_options": {"include_usage": True}} if stream else {}
    return {**_chat(stream=stream, **options), "model": "deep-think"}


_OPENAI_FINISH = ("stop", "length", "tool_calls")
_GEMINI = "/gemini/v1beta/models/gemini-x"

PROVIDERS = [
    Provider(
        name="openai-chat",
        path="/v1/chat/completions",
        stream_path="/v1/chat/completions",
        body=_openai_body,
        tools={"tools": [_FUNCTION]},
        whole=_openai_whole,
        stream=_openai_stream,
        finish=_OPENAI_FINISH,
    ),
    Provider(
        name="openai-responses",
        path="/v1/responses",
        stream_path="/v1/responses",
        body=lambda stream: {"model": "gpt-5", "input": "How high?", "stream": stream},
        tools={"tools": [{"type": "function", "name": "weather", "parameters": WEATHER}]},
        whole=_responses_whole,
        stream=_responses_stream,
        finish=("completed", "incomplete", "completed"),
    ),
    Provider(
        name="azure-chat",
        path="/azure/openai/deployments/deep/chat/completions?api-version=2025-01-01",
        stream_path="/azure/openai/deployments/deep/chat/completions?api-version=2025-01-01",
        body=_openai_body,
        tools={"tools": [_FUNCTION]},
        whole=_openai_whole,
        stream=_openai_stream,
        finish=_OPENAI_FINISH,
    ),
    Provider(
        name="anthropic",
        path="/v1/messages",
        stream_path="/v1/messages",
        body=lambda stream: {**_chat(stream=stream), "model": "claude-x", "max_tokens": 1000},
        tools={"tools": [{"name": "weather", "input_schema": WEATHER}]},
        whole=_anthropic_whole,
        stream=_anthropic_stream,
        finish=("end_turn", "max_tokens", "tool_use"),
    ),
    Provider(
        name="gemini",
        path=f"{_GEMINI}:generateContent",
        stream_path=f"{_GEMINI}:streamGenerateContent?alt=sse",
        body=_contents,
        tools={"tools": [{"functionDeclarations": [{"name": "weather", "parameters": WEATHER}]}]},
        whole=lambda body: _gemini_chunks([body]),
        stream=lambda body: _gemini_chunks(payloads(body)),
        finish=("STOP", "MAX_TOKENS", "STOP"),
    ),
    Provider(
        name="cohere",
        path="/v2/chat",
        stream_path="/v2/chat",
        body=lambda stream: {**_chat(stream=stream), "model": "command-x"},
        tools={"tools": [_FUNCTION]},
        whole=_cohere_whole,
        stream=_cohere_stream,
        finish=("COMPLETE", "MAX_TOKENS", "TOOL_CALL"),
    ),
    Provider(
        name="mistral",
        path="/mistral/v1/chat/completions",
        stream_path="/mistral/v1/chat/completions",
        body=lambda stream: {**_chat(stream=stream), "model": "mistral-x"},
        tools={"tools": [_FUNCTION]},
        whole=_openai_whole,
        stream=_openai_stream,
        finish=_OPENAI_FINISH,
    ),
    Provider(
        name="bedrock",
        path="/bedrock/model/anthropic.claude-x-v1%3A0/converse",
        stream_path="/bedrock/model/anthropic.claude-x-v1%3A0/converse-stream",
        body=_converse,
        tools={
            "toolConfig": {
                "tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": WEATHER}}}]
            }
        },
        whole=_bedrock_whole,
        stream=_bedrock_stream,
        finish=("end_turn", "max_tokens", "tool_use"),
    ),
    Provider(
        name="ollama",
        path="/api/chat",
        stream_path="/api/chat",
        body=lambda stream: {**_chat(), "model": "llama", **({} if stream else {"stream": False})},
        tools={"tools": [_FUNCTION]},
        whole=lambda body: _ollama_lines([body]),
        stream=lambda body: _ollama_lines([json.loads(line) for line in body.splitlines()]),
        finish=("stop", "length", "stop"),
    ),
]
