"""Sealed reasoning: providers want it back as it was, where it was."""

import msgspec

from client_sdk.streaming import StreamAccumulator, Thought


def anthropic(*events: dict[str, object]) -> bytes:
    """A stream of these events."""
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)


def start(index: int, **block: object) -> dict[str, object]:
    """A block begins."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **fields: object) -> dict[str, object]:
    """A piece of a block."""
    return {"type": "content_block_delta", "index": index, "delta": fields}


def call(index: int) -> list[dict[str, object]]:
    """A tool call without arguments."""
    return [
        start(index, type="tool_use", id=f"t{index}", name="look", input={}),
        {"type": "content_block_stop", "index": index},
    ]


def test_thoughts_of_anthropic_keep_their_places_between_calls():
    """Each has its own text and seal, and the number of the call that it stands before."""
    stream = StreamAccumulator("anthropic")
    data = anthropic(
        start(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="First "),
        delta(0, type="thinking_delta", thinking="this."),
        delta(0, type="signature_delta", signature="s0"),
        start(1, type="redacted_thinking", data="sealed"),
        *call(2),
        start(3, type="thinking", thinking="Then", signature="s3"),
        *call(4),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    )
    stream.feed(data, 0.0)
    assert stream.thoughts == (
        Thought(text="First this.", signature="s0"),
        Thought(redacted="sealed"),
        Thought(text="Then", signature="s3", before=1),
    )
    assert stream.reasoning == "First this.Then"
    assert [each.id for each in stream.tool_calls] == ["t2", "t4"]


def test_seals_of_gemini_belong_to_their_calls():
    """Also of one whose arguments come piece by piece."""
    look = {"name": "look", "args": {"at": 1}}
    begun = {"name": "look", "willContinue": True}
    more = {"partialArgs": [{"jsonPath": "$.at", "numberValue": 2}]}
    parts = [
        {"text": "Hm.", "thought": True},
        {"functionCall": look},
        {"functionCall": begun, "thoughtSignature": "s1"},
        {"functionCall": more},
        {"functionCall": look, "thoughtSignature": "s2"},
    ]
    stream = StreamAccumulator("gemini")
    chunk = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    stream.feed(b"data: " + msgspec.json.encode(chunk) + b"\n\n", 0.0)
    stream.finish(0.0)
    assert [(each.signature, each.before) for each in stream.thoughts] == [("s1", 1), ("s2", 2)]
    assert [each.arguments for each in stream.tool_calls] == ['{"at":1}', '{"at":2}', '{"at":1}']
