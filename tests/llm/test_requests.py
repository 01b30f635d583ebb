"""One neutral conversation in the words of each provider."""

from typing import Any

import msgspec
import pytest

from client_sdk.llm.endpoints import target
from client_sdk.llm.options import sorted_options
from client_sdk.llm.requests import as_stream, request

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is this?"}, PICTURE]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "a gate"},
]
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks",
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "integer"}},
            "additionalProperties": False,
        },
    },
}


def body_for(model: str, *, api: str = "chat", stream: bool = False, **options: Any) -> Any:
    """The body for *model*."""
    there = target(model, api=api, environment=lambda _: None)
    sent = request(there, TALK, [LOOK], sorted_options(options), stream=stream)
    assert sent.body is not None
    return msgspec.json.decode(sent.body)


def test_openai_gets_its_own_words():
    """Messages and tools pass as they are; usage of a stream is asked for."""
    body = body_for("gpt-4o", stream=True, max_tokens=9, stop="x", seed=1)
    assert body["messages"] == TALK
    assert body["tools"] == [LOOK]
    assert body["stream_options"] == {"include_usage": True}
    assert (body["max_completion_tokens"], body["stop"], body["seed"]) == (9, ["x"], 1)


def test_responses_get_items():
    """Calls and results stand beside messages."""
    body = body_for("gpt-4o", api="responses", tool_choice="required", max_tokens=9)
    kinds = [item["type"] for item in body["input"]]
    assert kinds == ["message", "message", "function_call", "function_call_output"]
    assert body["input"][1]["content"][1]["image_url"] == "data:image/jpeg;base64,QUJD"
    assert body["input"][2]["call_id"] == body["input"][3]["call_id"] == "c1"
    assert (body["tools"][0]["name"], body["tool_choice"]) == ("look", "required")
    assert body["max_output_tokens"] == 9


def test_anthropic_gets_blocks():
    """The system apart, results as the user's words, and a number of tokens in any case."""
    choice = {"type": "function", "function": {"name": "look"}}
    body = body_for("claude-x", tool_choice=choice, stop=["x"])
    assert (body["system"], body["max_tokens"]) == ("Be brief.", 4096)
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    picture = body["messages"][0]["content"][1]["source"]
    assert picture == {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}}
    ]
    assert body["messages"][2]["content"][0]["tool_use_id"] == "c1"
    assert body["tools"][0]["input_schema"]["properties"] == {"at": {"type": "integer"}}
    assert body["tool_choice"] == {"type": "tool", "name": "look"}
    assert body["stop_sequences"] == ["x"]


def test_gemini_gets_contents():
    """Results name the function, not the call; keywords that it refuses are left out."""
    body = body_for("gemini-x", tool_choice="any", max_tokens=9, temperature=0.5)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][0]["parts"][1]["inlineData"]["data"] == "QUJD"
    assert body["contents"][1]["parts"] == [{"functionCall": {"name": "look", "args": {"at": 1}}}]
    answer = body["contents"][2]["parts"][0]["functionResponse"]
    assert answer == {"name": "look", "response": {"result": "a gate"}}
    (declared,) = body["tools"][0]["functionDeclarations"]
    assert "additionalProperties" not in declared["parameters"]
    assert body["toolConfig"]["functionCallingConfig"]["mode"] == "ANY"
    assert body["generationConfig"] == {"maxOutputTokens": 9, "temperature": 0.5}


def test_ollama_gets_objects():
    """Arguments as an object, pictures beside the text, options together."""
    body = body_for("ollama/llama", max_tokens=9)
    assert body["model"] == "llama"
    assert body["messages"][1]["images"] == ["QUJD"]
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"at": 1}
    assert body["messages"][3]["tool_name"] == "look"
    assert (body["options"], body["stream"]) == ({"num_predict": 9}, False)


def test_what_nobody_knows_goes_to_the_provider():
    """At the top of the body, and into objects that are there."""
    body = body_for(
        "gemini-x", max_tokens=9, safetySettings=[], extra_body={"generationConfig": {"topK": 3}}
    )
    assert body["safetySettings"] == []
    assert body["generationConfig"] == {"maxOutputTokens": 9, "topK": 3}


def test_streaming_is_no_option():
    """It is chosen by the method."""
    with pytest.raises(TypeError, match="chosen by the method"):
        sorted_options({"stream": True})


KEYS = {"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a", "GOOGLE_API_KEY": "g"}


@pytest.mark.parametrize(
    ("model", "given", "provider", "url", "header"),
    [
        ("gpt-4o", {}, "openai", "https://api.openai.com/v1", ("authorization", "Bearer o")),
        ("claude-x", {}, "anthropic", "https://api.anthropic.com", ("x-api-key", "a")),
        (
            "gemini-x",
            {},
            "google",
            "https://generativelanguage.googleapis.com",
            ("x-goog-api-key", "g"),
        ),
        (
            "anthropic/claude-x",
            {"api_key": "mine"},
            "anthropic",
            "https://api.anthropic.com",
            ("x-api-key", "mine"),
        ),
        ("m", {"base_url": "http://here:1"}, "generic", "http://here:1/v1", None),
        (
            "gpt-4o",
            {"base_url": "http://here:1/v1/"},
            "openai",
            "http://here:1/v1",
            ("authorization", "Bearer o"),
        ),
        (
            "a/b",
            {"base_url": "https://openrouter.ai/api/v1"},
            "openrouter",
            "https://openrouter.ai/api/v1",
            None,
        ),
        (
            "c",
            {"provider": "anthropic", "base_url": "http://here/v1"},
            "anthropic",
            "http://here",
            ("x-api-key", "a"),
        ),
    ],
)
def test_a_model_is_found(
    model: str,
    given: dict[str, Any],
    provider: str,
    url: str,
    header: tuple[str, str] | None,
):
    """Who serves it, where, and with which key."""
    found = target(model, environment=KEYS.get, **given)
    assert (found.provider, found.base_url) == (provider, url)
    if header is None:
        assert "authorization" not in found.headers
    else:
        assert found.headers[header[0]] == header[1]


def test_what_is_no_answer_stays_as_it_is():
    """Errors, pages and other bodies are judged by who reads the stream."""
    endpoint = target("gpt-4o", environment=lambda _: None).endpoint
    for body in (b"<html>", b"[]", b'{"error":{"message":"x"}}', b'{"odd":1}', b""):
        assert as_stream(endpoint, body) == body


def test_sealed_thoughts_stand_where_they_stood():
    """Before the calls that they led to; a seal without text is that of the call."""
    thoughts = [
        {"text": "First this.", "signature": "s0"},
        {"redacted": "sealed"},
        {"text": "Then", "signature": "s3", "before": 1},
        {"signature": "g1", "before": 1},
    ]
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        for n in range(2)
    ]
    said = {"role": "assistant", "content": "Hm.", "tool_calls": calls, "thoughts": thoughts}

    def sent(model: str) -> Any:
        there = target(model, api="chat", environment=lambda _: None)
        talk = [{"role": "user", "content": "?"}, said]
        body = request(there, talk, None, sorted_options({}), stream=False).body
        assert body is not None
        return msgspec.json.decode(body)

    blocks = sent("claude-x")["messages"][1]["content"]
    assert [block["type"] for block in blocks] == [
        "thinking", "redacted_thinking", "text", "tool_use", "thinking", "tool_use",
    ]  # fmt: skip
    assert blocks[0] == {"type": "thinking", "thinking": "First this.", "signature": "s0"}
    assert blocks[1] == {"type": "redacted_thinking", "data": "sealed"}
    parts = sent("gemini-x")["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, None, "g1"]
    assert "thoughts" not in sent("gpt-4o")["messages"][1]
