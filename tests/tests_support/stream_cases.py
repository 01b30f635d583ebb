"""Streams as providers, gateways and broken networks really send them, and what they mean.

Each case is a body and what must come out of it, whichever way it is cut. Bodies are our
own, written after the behaviour that is described.
"""

import base64
import json
from typing import Any

import msgspec

from client_sdk.streaming import StreamOutcome
from client_sdk.streaming.eventstream import encode
from limiter_wire import Outcome

END = b"data: [DONE]\n\n"
Call = tuple[str, str, str]
"""Id, name and arguments."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A body and its meaning; None is not compared."""

    name: str
    dialect: str
    body: bytes
    outcome: StreamOutcome
    text: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    finish_reason: str | None = None
    """Empty: there must be none."""
    calls: tuple[Call, ...] | None = None
    problems: tuple[str | None, ...] | None = None
    tokens: tuple[int, int] | None = None
    cached: int | None = None
    provenance: str | None = None
    category: Outcome | None = None
    status: int | None = None
    flags: tuple[str, ...] = ()
    heartbeats: int | None = None
    ignored: int | None = None
    invalid_utf8: int | None = None
    choices: dict[int, str] | None = None
    broken: bool = False
    """The transport fails at the end of the body."""


def sse(*payloads: Any, event: str | None = None) -> bytes:  # JSON, or text
    """A frame for each payload."""
    head = f"event: {event}\n" if event else ""
    return b"".join(
        f"{head}data: {p if isinstance(p, str) else json.dumps(p)}\n\n".encode() for p in payloads
    )


def chat(
    content: Any = None,  # text or parts
    *,
    finish: str | None = None,
    index: int | None = 0,
    extra: dict[str, Any] | None = None,
    **delta: Any,  # JSON
) -> bytes:
    """A frame of chat completions."""
    inside = ({"content": content} if content is not None else {}) | delta
    choice = {"index": index, "delta": inside, "finish_reason": finish}
    head = {"id": "c1", "object": "chat.completion.chunk"}
    return sse(head | {"choices": [choice]} | (extra or {}))


def tool(*calls: dict[str, Any]) -> bytes:
    """A frame with pieces of tool calls."""
    return chat(tool_calls=list(calls))


def piece(
    arguments: Any = None,  # text, null or an object
    *,
    name: str | None = None,
    **place: Any,  # id and index
) -> dict[str, Any]:
    """A piece of a call."""
    function = {"arguments": arguments} | ({"name": name} if name is not None else {})
    return place | {"type": "function", "function": function}


def usage(given: int, said: int, **more: Any) -> dict[str, Any]:  # JSON
    """Usage of chat completions."""
    counts = {"prompt_tokens": given, "completion_tokens": said, "total_tokens": given + said}
    return {"usage": counts | more}


def anthropic(*events: dict[str, Any], named: bool = True) -> bytes:
    """Frames of Anthropic, with or without their names."""
    return b"".join(sse(e, event=e["type"] if named else None) for e in events)


def started(given: int = 10, said: int = 1, id_: str = "m1") -> dict[str, Any]:
    """The start of a message."""
    counts = {"input_tokens": given, "output_tokens": said}
    return {"type": "message_start", "message": {"id": id_, "content": [], "usage": counts}}


def block(index: int, **block_: Any) -> dict[str, Any]:  # JSON
    """The start of a block."""
    return {"type": "content_block_start", "index": index, "content_block": block_}


def delta(index: int, **delta_: Any) -> dict[str, Any]:  # JSON
    """A piece of a block."""
    return {"type": "content_block_delta", "index": index, "delta": delta_}


def said(text: str, index: int = 0) -> dict[str, Any]:
    """A piece of text."""
    return delta(index, type="text_delta", text=text)


def stopped(index: int) -> dict[str, Any]:
    """The end of a block."""
    return {"type": "content_block_stop", "index": index}


def ending(reason: str = "end_turn", **counts: int) -> dict[str, Any]:
    """The delta of a message."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": counts}


STOP = {"type": "message_stop"}
TEXT = block(0, type="text", text="")


def frames(*pairs: tuple[str, Any]) -> bytes:
    """Frames of Bedrock."""
    return b"".join(encode(name, json.dumps(payload).encode()) for name, payload in pairs)


def lines(*payloads: Any) -> bytes:  # JSON
    """Lines of Ollama."""
    return b"".join(json.dumps(payload).encode() + b"\n" for payload in payloads)


HELLO = chat(role="assistant", content="") + chat("He") + chat("llo")
WHOLE = HELLO + chat(finish="stop")
O = StreamOutcome  # noqa: E741  # a column of the table
COMPLETED, TRUNCATED, BROKE = O.COMPLETED, O.TRUNCATED, O.INTERRUPTED
FAILED, GARBLED = O.PROVIDER_ERROR, O.PROTOCOL_ERROR
WEATHER = ("a", "weather", '{"city":"Rome"}')


def openai(name: str, body: bytes, outcome: StreamOutcome = COMPLETED, **more: Any) -> Case:
    """A case of chat completions."""
    return Case(
        name=f"openai-chat: {name}", dialect="openai-chat", body=body, outcome=outcome, **more
    )


def claude(name: str, body: bytes, outcome: StreamOutcome = COMPLETED, **more: Any) -> Case:
    """A case of Anthropic."""
    return Case(name=f"anthropic: {name}", dialect="anthropic", body=body, outcome=outcome, **more)


def other(
    dialect: str,
    name: str,
    body: bytes,
    outcome: StreamOutcome = COMPLETED,
    **more: Any,
) -> Case:
    """A case of another dialect."""
    return Case(name=f"{dialect}: {name}", dialect=dialect, body=body, outcome=outcome, **more)


FRAMING = [
    openai("well formed", WHOLE + END, text="Hello", finish_reason="stop"),
    openai("a BOM in front", b"\xef\xbb\xbf" + WHOLE + END, text="Hello"),
    openai("CR LF throughout", (WHOLE + END).replace(b"\n", b"\r\n"), text="Hello"),
    openai("CR throughout", (WHOLE + END).replace(b"\n", b"\r"), text="Hello"),
    openai(
        "a byte that is no UTF-8 in the content",
        WHOLE.replace(b"He", b"H\xff") + END,
        text="H\ufffdllo",
        invalid_utf8=1,
    ),
    openai(
        "half a surrogate pair in the content",
        sse('{"choices":[{"delta":{"content":"x\\ud83d"}}]}') + WHOLE + END,
        text="x\ufffdHello",
        invalid_utf8=1,
    ),
    openai(
        "NaN in a field that nobody needs",
        sse('{"choices":[{"delta":{"content":"x"},"logprobs":NaN}]}') + WHOLE + END,
        text="xHello",
    ),
    openai(
        "JSON on two data lines",
        b'data: {"choices":[{"delta":\ndata: {"content":"x"}}]}\n\n' + WHOLE + END,
        text="xHello",
    ),
    *(
        openai(
            f"the last frame ends with {end!r} and the stream",
            HELLO + chat(finish="stop").rstrip(b"\n") + end,
            text="Hello",
            finish_reason="stop",
            flags=("eof_flush", "missing_terminator"),
        )
        for end in (b"", b"\n", b"\r\n")
    ),
    openai(
        "the terminator lacks its end",
        WHOLE + END.rstrip(),
        text="Hello",
        flags=("eof_flush",),
    ),
    openai(
        "pings of all kinds between",
        b": keep-alive\n\n"
        + HELLO
        + b"event: ping\n\nid: 1\ndata:\n\n: ping\n\n"
        + chat(finish="stop")
        + END,
        text="Hello",
        heartbeats=4,
    ),
    openai("separators of Unicode", chat("a\u2028b\x85c") + WHOLE + END, text="a\u2028b\x85cHello"),
    openai(
        "frames that are no objects",
        sse("null", "[]", "1", '"x"') + WHOLE + END,
        text="Hello",
        ignored=4,
    ),
    openai(
        "fields of unexpected types",
        sse({"id": 7, "choices": [{"index": "0", "delta": {"content": "x", "refusal": 5}}]})
        + sse({"choices": [{"delta": {"tool_calls": "none", "content": "y"}}, "odd"]})
        + WHOLE
        + END,
        text="xyHello",
        flags=("odd_fields",),
    ),
]

LIFE = [
    openai(
        "a finish reason and no terminator",
        WHOLE,
        text="Hello",
        flags=("missing_terminator",),
    ),
    openai("neither finish reason nor terminator", HELLO, TRUNCATED, text="Hello"),
    openai(
        "a terminator and no finish reason",
        HELLO + END,
        text="Hello",
        flags=("missing_finish",),
    ),
    openai(
        "cut in the middle of a frame",
        HELLO + chat("gone")[:40],
        TRUNCATED,
        text="Hello",
        flags=("cut_frame",),
    ),
    openai(
        "cut in a frame behind the finish reason",
        WHOLE + b'data: {"choices":[],"usa',
        text="Hello",
        flags=("cut_frame", "missing_terminator"),
    ),
    openai("frames behind the terminator", WHOLE + END + chat("no") + END, text="Hello"),
    openai("an error behind the terminator", WHOLE + END + sse({"error": "x"}), text="Hello"),
    openai(
        "the terminator as text",
        chat("[DONE]") + chat("data: [DONE]\n\n") + chat(finish="stop") + END,
        text="[DONE]data: [DONE]\n\n",
    ),
    openai(
        "a second finish reason",
        WHOLE + chat(finish="length") + END,
        O.LENGTH,
        text="Hello",
        finish_reason="length",
        flags=("repeated_finish",),
    ),
    openai(
        "content behind the finish reason",
        WHOLE + chat("!") + END,
        text="Hello!",
        flags=("content_after_finish",),
    ),
    openai("length", HELLO + chat(finish="length") + END, O.LENGTH, text="Hello"),
    openai(
        "filtered",
        HELLO + chat(finish="content_filter") + END,
        O.CONTENT_FILTER,
        text="Hello",
        category=Outcome.CONTENT_FILTERED,
    ),
    openai("nothing at all", b"", O.EMPTY, text=""),
    openai("only pings", b": ping\n\n" * 3, O.EMPTY, heartbeats=3),
    openai("only the terminator", END, O.EMPTY),
    openai("only a role", chat(role="assistant", content=""), TRUNCATED, text=""),
    openai("a finish reason without content", chat(finish="stop") + END, text=""),
    openai(
        "the connection breaks before content",
        chat(role="assistant"),
        BROKE,
        broken=True,
        category=Outcome.STREAM_INTERRUPTED,
    ),
    openai("the connection breaks in the text", HELLO, BROKE, text="Hello", broken=True),
    openai(
        "the connection breaks behind the finish reason",
        WHOLE,
        text="Hello",
        broken=True,
        flags=("ended_by_transport",),
    ),
    openai(
        "the connection breaks in a frame",
        HELLO + b'data: {"cho',
        BROKE,
        text="Hello",
        broken=True,
    ),
]

RATE = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}
ERRORS = [
    openai(
        "an error as a frame",
        HELLO + sse(RATE) + END,
        FAILED,
        text="Hello",
        status=429,
        category=Outcome.RATE_LIMITED,
    ),
    openai(
        "an error as a word",
        sse({"error": "overloaded"}),
        FAILED,
        status=529,
        category=Outcome.OVERLOADED,
    ),
    openai(
        "an error as a text",
        sse({"error": "the engine is gone"}),
        FAILED,
        category=Outcome.SERVER_ERROR,
    ),
    *(
        openai(
            f"an event named error with {payload}",
            HELLO + b"event: error\ndata: " + payload.encode() + b"\n\n",
            FAILED,
            text="Hello",
            category=Outcome.SERVER_ERROR,
        )
        for payload in ("null", '"text"', "42", "{}", "[]", '{"message":"x"}')
    ),
    openai(
        "an event named error with an error",
        sse(RATE, event="error"),
        FAILED,
        status=429,
        category=Outcome.RATE_LIMITED,
    ),
    openai(
        "an object that is an error",
        sse({"object": "error", "message": "no", "code": 400}),
        FAILED,
        status=400,
        category=Outcome.INVALID_REQUEST,
    ),
    openai(
        "an error without a wrapper",
        sse({"message": "x", "type": "too_many_requests_error", "code": "request_quota_exceeded"}),
        FAILED,
        status=429,
        category=Outcome.RATE_LIMITED,
    ),
    openai(
        "a choice that is an error",
        HELLO
        + sse({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "x"}}]}),
        FAILED,
        text="Hello",
        status=502,
        category=Outcome.SERVER_ERROR,
    ),
    openai("a finish reason of failure", HELLO + chat(finish="error") + END, FAILED, text="Hello"),
    openai(
        "an aborted choice",
        HELLO + chat(finish="abort") + END,
        FAILED,
        category=Outcome.STREAM_INTERRUPTED,
    ),
    openai(
        "an error and a terminator behind it",
        sse({"error": {"message": "x", "type": "BadRequestError", "code": 400}}) + END,
        FAILED,
        status=400,
        category=Outcome.INVALID_REQUEST,
    ),
    openai("error: null is none", chat("x", extra={"error": None}) + WHOLE + END, text="xHello"),
    openai(
        "a body of JSON with an error",
        json.dumps(RATE, indent=1).encode(),
        FAILED,
        status=429,
        category=Outcome.RATE_LIMITED,
    ),
    openai(
        "a body of JSON with an error in a list",
        json.dumps([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}]).encode(),
        FAILED,
        status=429,
        category=Outcome.RATE_LIMITED,
    ),
    openai("a body of JSON without one", b'{"choices":[{"message":{}}]}', O.NOT_AN_EVENT_STREAM),
    openai(
        "a page",
        b"\r\n<!doctype html><html><body>502 Bad Gateway</body></html>",
        O.NOT_AN_EVENT_STREAM,
        category=Outcome.MALFORMED_STREAM,
    ),
    openai("words", b"upstream connect error\n", O.NOT_AN_EVENT_STREAM),
    openai("words without a line end", b"upstream connect error", O.NOT_AN_EVENT_STREAM),
    openai(
        "an error without the form of a frame behind the text",
        HELLO + json.dumps(RATE).encode(),
        FAILED,
        text="Hello",
        status=429,
    ),
    openai(
        "a frame that is no JSON",
        HELLO + sse("{oops}") + chat("!"),
        GARBLED,
        text="Hello",
        category=Outcome.MALFORMED_STREAM,
    ),
    openai("a frame nested without end", HELLO + sse("[" * 1500), GARBLED, text="Hello"),
]

CHAT = [
    openai(
        "no choices first",
        sse({"id": "", "choices": [], "prompt_filter_results": []}) + WHOLE + END,
        text="Hello",
    ),
    openai(
        "choices or delta null or absent",
        sse({"choices": None}, {"choices": [{"delta": None}]}, {"choices": [{"index": 0}]})
        + sse({"id": "c1", "object": "chat.completion.chunk"})
        + WHOLE
        + END,
        text="Hello",
    ),
    openai(
        "usage, and then a frame without",
        WHOLE
        + sse({"choices": []} | usage(7, 9, prompt_tokens_details={"cached_tokens": 4}))
        + sse({"choices": [], "usage": None})
        + END,
        tokens=(7, 9),
        cached=4,
        provenance="final",
    ),
    openai(
        "cumulative usage in each frame",
        chat("a", extra=usage(7, 1)) + chat("b", finish="stop", extra=usage(7, 2)) + END,
        tokens=(7, 2),
        provenance="final",
    ),
    openai(
        "a last usage of zeros",
        chat("a", finish="stop", extra=usage(7, 3)) + sse({"choices": []} | usage(0, 0)) + END,
        tokens=(7, 3),
    ),
    openai(
        "usage of zeros only",
        chat("a", finish="stop", extra=usage(0, 0)) + END,
        provenance="unknown",
    ),
    openai(
        "usage and then the end is missing",
        chat("a", extra=usage(7, 1)) + chat("b") + chat("c"),
        TRUNCATED,
        tokens=(7, 3),
        provenance="partial",
    ),
    openai(
        "usage inside a choice",
        sse({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"} | usage(3, 4)]})
        + END,
        tokens=(3, 4),
    ),
    openai(
        "reasoning that the completion leaves out",
        WHOLE
        + sse(
            {
                "choices": [],
                "usage": {
                    "prompt_tokens": 12,
                    "completion_tokens": 1,
                    "total_tokens": 303,
                    "completion_tokens_details": {"reasoning_tokens": 290},
                },
            }
        )
        + END,
        tokens=(12, 291),
    ),
    openai(
        "usage of an odd type",
        WHOLE + sse({"choices": [], "usage": {"prompt_tokens": 5.0, "completion_tokens": "6"}}),
        tokens=(5, 6),
    ),
    openai(
        "reasoning under three names",
        chat(reasoning_content="a", reasoning="a")
        + chat(reasoning="b")
        + chat(thinking="c")
        + WHOLE
        + END,
        reasoning="abc",
        text="Hello",
    ),
    openai("a refusal", chat(refusal="No.") + chat(finish="stop") + END, refusal="No.", text=""),
    openai(
        "several choices, the second first",
        chat("B", index=1) + chat("A") + chat(finish="stop", index=1) + chat(finish="length") + END,
        O.LENGTH,
        text="A",
        choices={0: "A", 1: "B"},
    ),
    openai(
        "one of two choices never ends",
        chat("A") + chat("B", index=1) + chat(finish="stop"),
        TRUNCATED,
        text="A",
    ),
    openai(
        "indexes far away",
        chat("A", index=10**9) + chat("B", index=-1) + chat(finish="stop", index=-1) + END,
        choices={10**9: "A", -1: "B"},
    ),
    openai("index null", chat("A", index=None) + chat(finish="stop", index=None) + END, text="A"),
    openai(
        "a message instead of a delta",
        sse({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}) + END,
        text="Hi",
    ),
    openai(
        "old completions",
        sse({"choices": [{"text": "Hi"}]}, {"choices": [{"text": "", "finish_reason": "stop"}]}),
        text="Hi",
    ),
    openai("something unknown", sse({"session": 1}) + WHOLE + END, text="Hello"),
]

TOOLS = [
    openai(
        "a call in pieces",
        tool(piece("", name="weather", id="a", index=0))
        + tool(piece('{"city":', index=0))
        + tool(piece('"Rome"}', index=0))
        + chat(finish="tool_calls")
        + END,
        calls=(WEATHER,),
        text="",
    ),
    openai(
        "no index at all",
        tool(piece("", name="weather", id="a"))
        + tool(piece('{"city":'))
        + tool(piece('"Rome"}', index=None))
        + chat(finish="tool_calls")
        + END,
        calls=(WEATHER,),
    ),
    openai(
        "two calls without index",
        tool(piece('{"city":"Rome"}', name="weather", id="a"))
        + tool(piece("{}", name="clock", id="b"))
        + chat(finish="tool_calls")
        + END,
        calls=(WEATHER, ("b", "clock", "{}")),
    ),
    openai(
        "two calls of one name at one index",
        tool(piece('{"city":"Rome"}', name="weather", id="a", index=0))
        + tool(piece('{"city":"Bonn"}', name="weather", id="b", index=0))
        + chat(finish="tool_calls")
        + END,
        calls=(WEATHER, ("b", "weather", '{"city":"Bonn"}')),
    ),
    openai(
        "two calls without id and index",
        tool(piece('{"city":"Rome"}', name="weather"), piece('{"city":"Bonn"}', name="weather"))
        + chat(finish="tool_calls"),
        calls=(("", "weather", '{"city":"Rome"}'), ("", "weather", '{"city":"Bonn"}')),
    ),
    openai(
        "pieces of two calls mixed, by id",
        tool(piece('{"city":', name="weather", id="a", index=0))
        + tool(piece('{"zone"', name="clock", id="b", index=1))
        + tool(piece('"Rome"}', id="a"))
        + tool(piece(":1}", id="b"))
        + chat(finish="tool_calls"),
        calls=(WEATHER, ("b", "clock", '{"zone":1}')),
    ),
    openai(
        "the name in each piece",
        tool(piece('{"city":', name="weather", id="a", index=0))
        + tool(piece('"Rome"}', name="weather", id="a", index=0))
        + chat(finish="tool_calls"),
        calls=(WEATHER,),
    ),
    openai(
        "the name in pieces",
        tool(piece(None, name="weat", id="a", index=0))
        + tool(piece(None, name="her", index=0))
        + tool(piece('{"city":"Rome"}', index=0))
        + chat(finish="tool_calls"),
        calls=(WEATHER,),
    ),
    openai(
        "empty id and name in later pieces",
        tool(piece('{"city":', name="weather", id="a", index=0))
        + tool(piece('"Rome"}', name="", id="", index=0))
        + chat(finish="tool_calls"),
        calls=(WEATHER,),
    ),
    openai(
        "a new id for each piece",
        tool(piece('{"city":', name="weather", id="a", index=0))
        + tool(piece('"Ro', id="b", index=0))
        + tool(piece('me"}', id="c"))
        + chat(finish="tool_calls"),
        calls=(WEATHER,),
    ),
    openai(
        "a new id and the name for each piece",
        tool(piece('{"city":', name="weather", id="a", index=0))
        + tool(piece('"Ro', name="weather", id="b", index=0))
        + tool(piece('me"}', name="weather", id="c", index=0))
        + chat(finish="tool_calls"),
        calls=(WEATHER,),
    ),
    openai(
        "the first index is 1, and then 4",
        tool(piece('{"city":"Rome"}', name="weather", id="a", index=1))
        + tool(piece("{}", name="clock", id="b", index=4))
        + chat(finish="tool_calls"),
        calls=(WEATHER, ("b", "clock", "{}")),
    ),
    openai(
        "arguments before the name",
        tool(piece('{"city":', id="a", index=0))
        + tool(piece('"Rome"}', name="weather", index=0))
        + chat(finish="tool_calls"),
        calls=(WEATHER,),
    ),
    *(
        openai(
            f"arguments {arguments!r}",
            tool(piece(arguments, name="now", id="a", index=0)) + chat(finish="tool_calls"),
            calls=(("a", "now", expected),),
            problems=(None,),
        )
        for arguments, expected in ((None, "{}"), ("", "{}"), ({"a": 1}, '{"a":1}'))
    ),
    openai(
        "arguments that parse too early",
        tool(piece('{"a":1}', name="f", id="a", index=0))
        + tool(piece(" ", index=0))
        + chat(finish="tool_calls"),
        calls=(("a", "f", '{"a":1} '),),
        problems=(None,),
    ),
    openai(
        "two documents in one call",
        tool(piece('{"a":1}', name="f", id="a", index=0))
        + tool(piece('{"b":2}', index=0))
        + chat(finish="tool_calls"),
        calls=(("a", "f", '{"a":1}{"b":2}'),),
        problems=("concatenated_json",),
        flags=("concatenated_json",),
    ),
    openai(
        "arguments that are no JSON",
        tool(piece('{"a":', name="f", id="a", index=0)) + chat(finish="tool_calls"),
        problems=("invalid_json",),
        flags=("invalid_json",),
    ),
    openai(
        "a call without a name",
        tool(piece('{"a":1}', id="a", index=0)) + chat(finish="tool_calls"),
        problems=("missing_name",),
    ),
    openai(
        "calls and finish reason stop",
        tool(piece('{"city":"Rome"}', name="weather", id="a", index=0)) + chat(finish="stop"),
        calls=(WEATHER,),
    ),
    openai(
        "tool_calls null in each frame",
        chat("x", tool_calls=None) + chat(finish="stop", tool_calls=[]),
        text="x",
        calls=(),
    ),
    openai(
        "the function call of old",
        chat(function_call={"name": "weather", "arguments": '{"city":'})
        + chat(function_call={"arguments": '"Rome"}'})
        + chat(finish="function_call"),
        calls=(("", "weather", '{"city":"Rome"}'),),
    ),
    openai(
        "a call that is cut is none",
        tool(piece('{"city":"Rome"}', name="weather", id="a", index=0)),
        TRUNCATED,
        calls=(),
    ),
]

USE = block(1, type="tool_use", id="a", name="weather", input={})
CLAUDE = [
    claude(
        "well formed",
        anthropic(
            started(),
            TEXT,
            {"type": "ping"},
            said("He"),
            said("llo"),
            stopped(0),
            ending(output_tokens=5),
            STOP,
        ),
        text="Hello",
        tokens=(10, 5),
        provenance="final",
        finish_reason="end_turn",
        heartbeats=1,
    ),
    claude(
        "no names of events",
        anthropic(started(), TEXT, said("Hello"), stopped(0), ending(), STOP, named=False),
        text="Hello",
    ),
    claude(
        "types in the name only",
        b"".join(
            sse({k: v for k, v in e.items() if k != "type"}, event=e["type"])
            for e in (started(), TEXT, said("Hello"), stopped(0), ending(), STOP)
        ),
        text="Hello",
    ),
    claude(
        "started twice",
        anthropic(started(), started(), TEXT, said("Hello"), stopped(0), ending(), STOP),
        text="Hello",
        tokens=(10, 1),
        flags=("repeated_start",),
    ),
    claude(
        "a tool is stopped twice",
        anthropic(
            started(),
            USE,
            delta(1, type="input_json_delta", partial_json='{"city":"Rome"}'),
            stopped(1),
            stopped(1),
            ending("tool_use"),
            STOP,
        ),
        calls=(WEATHER,),
    ),
    claude(
        "a tool is started twice",
        anthropic(
            started(),
            USE,
            USE,
            delta(1, type="input_json_delta", partial_json='{"city":"Rome"}'),
            stopped(1),
            ending("tool_use"),
            STOP,
        ),
        calls=(WEATHER,),
    ),
    claude(
        "a tool without arguments",
        anthropic(
            started(),
            USE,
            delta(1, type="input_json_delta", partial_json=""),
            stopped(1),
            ending("tool_use"),
            STOP,
        ),
        calls=(("a", "weather", "{}"),),
    ),
    claude(
        "a tool that has all in its start",
        anthropic(
            started(),
            block(1, type="tool_use", id="a", name="weather", input={"city": "Rome"}),
            stopped(1),
            ending("tool_use"),
            STOP,
        ),
        calls=(WEATHER,),
    ),
    claude(
        "text for a block that never started",
        anthropic(started(), said("Hello", 3), ending(), STOP),
        text="Hello",
        flags=("implicit_block",),
    ),
    claude(
        "unknown events, blocks and deltas",
        anthropic(
            started(),
            {"type": "news", "x": 1},
            block(0, type="hologram"),
            delta(0, type="hologram_delta", light=1),
            stopped(0),
            TEXT,
            said("Hello"),
            stopped(0),
            ending(),
            STOP,
        ),
        text="Hello",
    ),
    claude(
        "no message_stop",
        anthropic(started(), TEXT, said("Hello"), stopped(0), ending(output_tokens=4)),
        text="Hello",
        flags=("missing_terminator",),
    ),
    claude(
        "neither message_delta nor message_stop",
        anthropic(started(), TEXT, said("Hello"), stopped(0)),
        TRUNCATED,
        text="Hello",
        provenance="partial",
    ),
    claude("nothing but the start", anthropic(started()), TRUNCATED, text=""),
    claude("nothing but a ping", anthropic({"type": "ping"}), O.EMPTY, heartbeats=1),
    claude(
        "a tool with bad JSON",
        anthropic(
            started(),
            USE,
            delta(1, type="input_json_delta", partial_json='{"city": Rome}'),
            stopped(1),
            ending("tool_use"),
            STOP,
        ),
        calls=(("a", "weather", '{"city": Rome}'),),
        problems=("invalid_json",),
    ),
    claude(
        "a tool of the provider is no call",
        anthropic(
            started(),
            block(0, type="server_tool_use", id="s", name="search", input={}),
            delta(0, type="input_json_delta", partial_json='{"q":1}'),
            stopped(0),
            block(1, type="web_search_tool_result", content=[]),
            stopped(1),
            block(2, type="text", text=""),
            said("Hello", 2),
            stopped(2),
            ending(),
            STOP,
        ),
        text="Hello",
        calls=(),
    ),
    claude(
        "input and cache in the last usage only",
        anthropic(
            started(0, 0),
            TEXT,
            said("Hello"),
            stopped(0),
            ending(input_tokens=20, cache_read_input_tokens=5, output_tokens=6),
            STOP,
        ),
        tokens=(25, 6),
        cached=5,
    ),
    claude(
        "calls that the provider made add up",
        anthropic(
            started(600, 5),
            TEXT,
            said("Hello"),
            stopped(0),
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {
                    "input_tokens": 12,
                    "output_tokens": 30,
                    "iterations": [
                        {"input_tokens": 600, "output_tokens": 8},
                        {"input_tokens": 12, "output_tokens": 30},
                    ],
                },
            },
            STOP,
        ),
        tokens=(612, 38),
    ),
    claude(
        "thinking",
        anthropic(
            started(),
            block(0, type="thinking", thinking=""),
            delta(0, type="thinking_delta", thinking="Hm."),
            delta(0, type="signature_delta", signature="x"),
            stopped(0),
            block(1, type="text", text=""),
            said("Hello", 1),
            stopped(1),
            ending(),
            STOP,
        ),
        text="Hello",
        reasoning="Hm.",
    ),
    claude("length", anthropic(started(), TEXT, said("He"), ending("max_tokens"), STOP), O.LENGTH),
    claude(
        "refused",
        anthropic(started(), ending("refusal"), STOP),
        O.CONTENT_FILTER,
        category=Outcome.CONTENT_FILTERED,
    ),
    claude(
        "a rate limit in the stream",
        anthropic(
            started(),
            TEXT,
            said("Hello"),
            {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}},
        ),
        FAILED,
        text="Hello",
        status=429,
        category=Outcome.RATE_LIMITED,
    ),
    claude(
        "overloaded before the start, no name",
        anthropic({"type": "error", "error": {"type": "overloaded_error"}}, named=False),
        FAILED,
        status=529,
        category=Outcome.OVERLOADED,
    ),
    claude(
        "a spend limit by its detail",
        anthropic(
            {
                "type": "error",
                "error": {
                    "type": "rate_limit_error",
                    "details": {"error_code": "enforced_spend_limit_reached"},
                },
            }
        ),
        FAILED,
        status=429,
        category=Outcome.QUOTA_EXHAUSTED,
    ),
    claude(
        "a body of JSON",
        b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}',
        FAILED,
        status=529,
    ),
    claude(
        "a byte that is no UTF-8",
        anthropic(started(), TEXT, said("Hello"), ending(), STOP).replace(b"Hello", b"He\xfflo"),
        text="He\ufffdlo",
        invalid_utf8=1,
    ),
    claude(
        "the connection breaks",
        anthropic(started(), TEXT, said("Hello")),
        BROKE,
        text="Hello",
        broken=True,
    ),
]


def response(kind: str, **fields: Any) -> dict[str, Any]:  # JSON
    """An event of responses."""
    return {"type": f"response.{kind}"} | fields


def item(index: int, kind: str, **fields: Any) -> dict[str, Any]:  # JSON
    """The start or end of an output item."""
    return response(f"output_item.{kind}", output_index=index, item=fields)


DONE = response(
    "completed",
    response={
        "id": "r1",
        "status": "completed",
        "usage": {
            "input_tokens": 8,
            "output_tokens": 6,
            "input_tokens_details": {"cached_tokens": 2},
            "output_tokens_details": {"reasoning_tokens": 3},
        },
    },
)
BEGUN = response("created", response={"id": "r1", "status": "in_progress", "output": []})
CALL = {"type": "function_call", "id": "f1", "call_id": "a", "name": "weather"}
ROME = '{"city":"Rome"}'
RESPONSES = [
    other(
        "openai-responses",
        "well formed",
        sse(
            BEGUN,
            response("in_progress"),
            item(0, "added", type="reasoning", id="x"),
            response("reasoning_summary_text.delta", delta="Hm."),
            item(1, "added", type="message", id="y"),
            response("output_text.delta", delta="He"),
            response("output_text.delta", delta="llo"),
            DONE,
        ),
        text="Hello",
        reasoning="Hm.",
        tokens=(8, 6),
        cached=2,
        finish_reason="completed",
        provenance="final",
    ),
    other(
        "openai-responses",
        "a call whose ids change on the way",
        sse(
            BEGUN,
            item(0, "added", **CALL, arguments=""),
            response("function_call_arguments.delta", item_id="q", output_index=0, delta=ROME[:5]),
            response("function_call_arguments.delta", item_id="z", output_index=0, delta=ROME[5:]),
            response("function_call_arguments.done", item_id="k", output_index=0, arguments=ROME),
            item(0, "done", **CALL | {"id": "other"}, arguments=ROME),
            DONE,
        ),
        calls=(WEATHER,),
    ),
    other(
        "openai-responses",
        "a call without deltas",
        sse(BEGUN, item(0, "added", **CALL), item(0, "done", **CALL, arguments=ROME), DONE),
        calls=(WEATHER,),
    ),
    other(
        "openai-responses",
        "a call that is only done",
        sse(BEGUN, item(2, "done", **CALL, arguments=ROME), DONE),
        calls=(WEATHER,),
    ),
    other(
        "openai-responses",
        "nothing but the whole response",
        sse(
            response(
                "completed",
                response={
                    "status": "completed",
                    "output": [
                        {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
                        CALL | {"arguments": ROME},
                    ],
                },
            )
        ),
        text="Hi",
        calls=(WEATHER,),
    ),
    other(
        "openai-responses",
        "a custom tool takes text",
        sse(
            item(0, "added", type="custom_tool_call", call_id="a", name="sql", input=""),
            response("custom_tool_call_input.delta", output_index=0, delta="SELECT "),
            response("custom_tool_call_input.delta", output_index=0, delta="1"),
            item(0, "done", type="custom_tool_call", call_id="a", name="sql", input="SELECT 1"),
            DONE,
        ),
        calls=(("a", "sql", "SELECT 1"),),
        problems=(None,),
    ),
    other(
        "openai-responses",
        "incomplete by length",
        sse(
            response("output_text.delta", delta="Hi"),
            response(
                "incomplete", response={"incomplete_details": {"reason": "max_output_tokens"}}
            ),
        ),
        O.LENGTH,
        text="Hi",
        finish_reason="max_output_tokens",
    ),
    other(
        "openai-responses",
        "incomplete by the filter",
        sse(response("incomplete", response={"incomplete_details": {"reason": "content_filter"}})),
        O.CONTENT_FILTER,
    ),
    other(
        "openai-responses",
        "an error, and then a failed response",
        sse(
            BEGUN,
            {"type": "error", "code": "insufficient_quota", "message": "x", "param": None},
            response("failed", response={"error": {"code": "insufficient_quota"}}),
        ),
        FAILED,
        category=Outcome.QUOTA_EXHAUSTED,
    ),
    other(
        "openai-responses",
        "a failed response",
        sse(response("failed", response={"error": {"code": "server_is_overloaded"}})),
        FAILED,
        status=503,
        category=Outcome.OVERLOADED,
    ),
    other(
        "openai-responses",
        "cut",
        sse(BEGUN, response("output_text.delta", delta="Hi")),
        TRUNCATED,
        text="Hi",
    ),
    other(
        "openai-responses",
        "a refusal",
        sse(response("refusal.delta", delta="No."), DONE),
        refusal="No.",
    ),
]


def gemini(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """An answer of Gemini."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})]} | more


def growing(path: str | None = None, *, go_on: bool = True, **value: Any) -> dict[str, Any]:
    """A part of a call that comes path by path."""
    call: dict[str, Any] = {"partialArgs": [{"jsonPath": path} | value]} if path else {}
    return {"functionCall": call | ({"willContinue": True} if go_on else {})}


COUNTS = {"promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 4}
OTHERS = [
    other(
        "gemini",
        "well formed",
        sse(
            gemini({"text": "Hm.", "thought": True}, usageMetadata=COUNTS),
            gemini({"text": "He"}),
            gemini({"text": "llo"}, finish="STOP", usageMetadata=COUNTS, responseId="g"),
        ),
        text="Hello",
        reasoning="Hm.",
        tokens=(9, 7),
        provenance="final",
    ),
    other("gemini", "no finish reason", sse(gemini({"text": "He"})), TRUNCATED, text="He"),
    other("gemini", "length", sse(gemini({"text": "He"}, finish="MAX_TOKENS")), O.LENGTH),
    other("gemini", "filtered", sse(gemini(finish="SAFETY")), O.CONTENT_FILTER),
    other(
        "gemini",
        "the prompt is blocked",
        sse({"promptFeedback": {"blockReason": "OTHER"}}),
        O.CONTENT_FILTER,
    ),
    other(
        "gemini",
        "a malformed call",
        sse(gemini(finish="MALFORMED_FUNCTION_CALL")),
        FAILED,
        category=Outcome.MALFORMED_STREAM,
    ),
    other(
        "gemini",
        "whole calls",
        sse(
            gemini(
                {"functionCall": {"name": "weather", "args": {"city": "Rome"}, "id": "a"}},
                {"functionCall": {"name": "now"}},
                finish="STOP",
            )
        ),
        calls=(WEATHER, ("", "now", "{}")),
    ),
    other(
        "gemini",
        "a call path by path, and its last part is missing",
        sse(
            gemini({"functionCall": {"name": "put", "willContinue": True}}),
            gemini(growing("$.items[0].name", stringValue="ap", willContinue=True)),
            gemini(growing("$.items[0].name", stringValue="ple")),
            gemini(growing("$.items[0].price", numberValue=0.5)),
            gemini(growing("$.items[1].fresh", boolValue=True)),
            gemini(growing("$.items[1]['best before']", nullValue=None)),
            gemini({"text": ""}, finish="STOP"),
        ),
        calls=(
            (
                "",
                "put",
                '{"items":[{"name":"apple","price":0.5},{"fresh":true,"best before":null}]}',
            ),
        ),
    ),
    other(
        "gemini",
        "two calls path by path",
        sse(
            gemini({"functionCall": {"name": "weather", "willContinue": True}}),
            gemini(growing("$.city", stringValue="Rome")),
            gemini(growing(go_on=False)),
            gemini({"functionCall": {"name": "weather", "willContinue": True}}),
            gemini(growing("$.city", go_on=False, stringValue="Bonn"), finish="STOP"),
        ),
        calls=(("", "weather", ROME), ("", "weather", '{"city":"Bonn"}')),
    ),
    other(
        "gemini",
        "an error",
        sse({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}),
        FAILED,
        status=429,
        category=Outcome.RATE_LIMITED,
    ),
    other(
        "gemini",
        "errors in a list",
        b'[{"error":{"code":503,"status":"UNAVAILABLE"}}]',
        FAILED,
        status=503,
        category=Outcome.OVERLOADED,
    ),
    other(
        "gemini",
        "the interactions interface",
        sse(
            {"event_type": "interaction.created", "interaction": {"status": "in_progress"}},
            {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
            {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "Hello"}},
            {"event_type": "step.stop", "index": 0},
            {
                "event_type": "step.start",
                "index": 1,
                "step": {"type": "function_call", "id": "a", "name": "weather", "arguments": {}},
            },
            {
                "event_type": "step.delta",
                "index": 1,
                "delta": {"type": "arguments_delta", "arguments": ROME},
            },
            {
                "event_type": "interaction.completed",
                "interaction": {
                    "status": "requires_action",
                    "usage": {"total_input_tokens": 5, "total_output_tokens": 2},
                },
            },
        ),
        text="Hello",
        calls=(WEATHER,),
        tokens=(5, 2),
    ),
    other(
        "cohere",
        "well formed",
        sse(
            {"type": "message-start", "id": "k"},
            {
                "type": "content-start",
                "index": 0,
                "delta": {"message": {"content": {"type": "text", "text": ""}}},
            },
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"thinking": "Hm."}}},
            },
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": "Hello"}}},
            },
            {"type": "content-end", "index": 0},
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "COMPLETE",
                    "usage": {
                        "billed_units": {"input_tokens": 1, "output_tokens": 1},
                        "tokens": {"input_tokens": 30, "output_tokens": 4},
                        "cached_tokens": 6,
                    },
                },
            },
        ),
        text="Hello",
        reasoning="Hm.",
        tokens=(30, 4),
        cached=6,
    ),
    other(
        "cohere",
        "tools",
        sse(
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will"}}},
            {
                "type": "tool-call-start",
                "index": 0,
                "delta": {
                    "message": {
                        "tool_calls": {"id": "a", "function": {"name": "weather", "arguments": ""}}
                    }
                },
            },
            {
                "type": "tool-call-delta",
                "index": 0,
                "delta": {"message": {"tool_calls": {"function": {"arguments": ROME}}}},
            },
            {"type": "tool-call-end", "index": 0},
            {
                "type": "tool-call-start",
                "index": 1,
                "delta": {
                    "message": {
                        "tool_calls": {"id": "b", "function": {"name": "now", "arguments": ""}}
                    }
                },
            },
            {"type": "tool-call-end", "index": 1},
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
        ),
        reasoning="I will",
        calls=(WEATHER, ("b", "now", "{}")),
    ),
    other(
        "cohere",
        "an error at the end",
        sse(
            {
                "type": "message-end",
                "delta": {"finish_reason": "ERROR", "error": "the engine is gone"},
            }
        ),
        FAILED,
    ),
    other(
        "cohere",
        "out of time",
        sse({"type": "message-end", "delta": {"finish_reason": "TIMEOUT"}}),
        FAILED,
        category=Outcome.TIMEOUT,
        status=504,
    ),
    other("cohere", "cut", sse({"type": "message-start", "id": "k"}), TRUNCATED),
    other(
        "mistral",
        "parts, and a call without index whose id and name are empty later",
        chat([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}])
        + chat([{"type": "text", "text": "Hello"}])
        + tool(piece('{"city":', name="weather", id="a"))
        + tool(piece('"Rome"}', name=""))
        + chat("", finish="tool_calls", extra=usage(4, 5))
        + END,
        text="Hello",
        reasoning="Hm.",
        calls=(WEATHER,),
        tokens=(4, 5),
    ),
    other("mistral", "length of the model", chat("x", finish="model_length") + END, O.LENGTH),
    other("mistral", "an error", chat("x", finish="error") + END, FAILED),
    other(
        "bedrock",
        "well formed",
        frames(
            ("messageStart", {"role": "assistant"}),
            (
                "contentBlockDelta",
                {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm."}}},
            ),
            ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Hello"}}),
            ("contentBlockStop", {"contentBlockIndex": 1}),
            (
                "contentBlockStart",
                {
                    "contentBlockIndex": 2,
                    "start": {"toolUse": {"toolUseId": "a", "name": "weather"}},
                },
            ),
            ("contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": ROME}}}),
            ("contentBlockStop", {"contentBlockIndex": 2}),
            ("messageStop", {"stopReason": "tool_use"}),
            (
                "metadata",
                {
                    "usage": {
                        "inputTokens": 20,
                        "outputTokens": 7,
                        "totalTokens": 32,
                        "cacheReadInputTokens": 5,
                    }
                },
            ),
        ),
        text="Hello",
        reasoning="Hm.",
        calls=(WEATHER,),
        tokens=(25, 7),
        cached=5,
    ),
    other(
        "bedrock",
        "usage before the stop",
        frames(
            ("contentBlockDelta", {"delta": {"text": "Hello"}}),
            ("metadata", {"usage": {"inputTokens": 2, "outputTokens": 3, "totalTokens": 5}}),
            ("messageStop", {"stopReason": "max_tokens"}),
        ),
        O.LENGTH,
        text="Hello",
        tokens=(2, 3),
    ),
    other(
        "bedrock",
        "an exception",
        frames(("contentBlockDelta", {"delta": {"text": "Hello"}}))
        + encode("throttlingException", b'{"message":"slow"}', message_type="exception"),
        FAILED,
        text="Hello",
        status=429,
        category=Outcome.RATE_LIMITED,
    ),
    other(
        "bedrock",
        "events of Anthropic inside",
        frames(
            *(
                (
                    "chunk",
                    {"bytes": base64.b64encode(json.dumps(e).encode()).decode()},
                )
                for e in (started(), TEXT, said("Hello"), stopped(0), ending(), STOP)
            )
        ),
        text="Hello",
    ),
    other(
        "bedrock",
        "a damaged message",
        frames(("contentBlockDelta", {"delta": {"text": "Hello"}}))
        + frames(("contentBlockDelta", {"delta": {"text": "damage"}})).replace(b"dam", b"dAm"),
        GARBLED,
        text="Hello",
    ),
    other(
        "bedrock",
        "cut in a message",
        frames(
            ("contentBlockDelta", {"delta": {"text": "Hi"}}),
            ("messageStop", {"stopReason": "end_turn"}),
        )[:-9],
        TRUNCATED,
        text="Hi",
    ),
    other(
        "bedrock",
        "a body of JSON",
        b'{"message":"no","code":"validationException"}',
        FAILED,
        status=400,
    ),
    other(
        "bedrock",
        "filtered",
        frames(("messageStop", {"stopReason": "guardrail_intervened"}), ("metadata", {})),
        O.CONTENT_FILTER,
    ),
    other(
        "bedrock",
        "garbled by the model",
        frames(("messageStop", {"stopReason": "malformed_tool_use"})),
        FAILED,
        category=Outcome.MALFORMED_STREAM,
    ),
    other(
        "ollama",
        "well formed",
        lines(
            {"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False},
            {"message": {"content": "He"}, "done": False},
            {
                "message": {
                    "content": "llo",
                    "tool_calls": [
                        {"function": {"name": "weather", "arguments": {"city": "Rome"}}},
                        {"function": {"name": "weather", "arguments": {"city": "Bonn"}}},
                    ],
                }
            },
            {
                "message": {"content": ""},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 11,
                "eval_count": 4,
            },
        ),
        text="Hello",
        reasoning="Hm.",
        calls=(("", "weather", ROME), ("", "weather", '{"city":"Bonn"}')),
        tokens=(11, 4),
        provenance="final",
    ),
    other(
        "ollama",
        "generate, and no last line end",
        lines({"response": "Hi"}, {"response": "", "done": True}).rstrip(),
        text="Hi",
        flags=("eof_flush",),
    ),
    other(
        "ollama",
        "CR LF and empty lines",
        b"\r\n" + lines({"response": "Hi"}, {"done": True}).replace(b"\n", b"\r\n\r\n"),
        text="Hi",
    ),
    other(
        "ollama",
        "an error",
        lines({"response": "Hi"}, {"error": "out of memory"}),
        FAILED,
        text="Hi",
        category=Outcome.SERVER_ERROR,
    ),
    other(
        "ollama",
        "cut",
        lines({"response": "Hi"}) + b'{"respo',
        TRUNCATED,
        text="Hi",
        flags=("cut_frame",),
    ),
    other(
        "ollama",
        "length",
        lines({"response": "Hi", "done": True, "done_reason": "length"}),
        O.LENGTH,
    ),
    other("ollama", "a page", b"<html>\n<body>\n</body></html>\n", O.NOT_AN_EVENT_STREAM),
    other("ollama", "words", b"upstream connect error\nretry\n", O.NOT_AN_EVENT_STREAM),
    other(
        "ollama", "garbage in between", lines({"response": "Hi"}) + b"{oops\n", GARBLED, text="Hi"
    ),
    other("bedrock", "only line ends", b"\n" * 20, GARBLED),
    other("ollama", "only line ends", b"\n" * 3, O.EMPTY, heartbeats=3),
    openai("only line ends", b"\r\n" * 20, O.EMPTY),
    other("unknown", "anything", b"any bytes \xff\n\n that come", text=""),
    other("unknown", "nothing", b"", O.EMPTY),
]

RARE = [
    claude(
        "a smaller figure later",
        anthropic(started(600, 5), TEXT, said("Hello"), ending(input_tokens=12), STOP),
        tokens=(600, 5),
    ),
    other(
        "openai-responses",
        "a call with nothing but an id that changes",
        sse(
            item(0, "added", type="function_call", id="f1", name="weather"),
            item(0, "done", type="function_call", id="f2", name="weather", arguments=ROME),
            DONE,
        ),
        calls=(("f1", "weather", ROME),),
    ),
    other(
        "bedrock",
        "a stop without a reason",
        frames(("contentBlockDelta", {"delta": {"text": "Hi"}}), ("messageStop", {})),
        text="Hi",
        finish_reason="",
        flags=("missing_finish",),
    ),
    other(
        "ollama",
        "the end without a reason",
        lines({"response": "Hi"}, {"done": True}),
        text="Hi",
        finish_reason="",
        flags=("missing_finish",),
    ),
    openai("content as texts in a list", chat(["a", "b"]) + chat(finish="stop") + END, text="ab"),
    openai("audio", chat(audio={"data": "AA=="}) + chat(finish="stop") + END, text=""),
    openai(
        "usage of Groq beside the rest",
        WHOLE + sse({"choices": [], "x_groq": usage(5, 6)}) + END,
        tokens=(5, 6),
    ),
    openai(
        "an error of Groq beside the rest",
        HELLO + sse({"choices": [], "x_groq": {"error": "over_capacity"}}),
        FAILED,
        text="Hello",
    ),
    openai("a frame without choices", sse({"x": 1}) + WHOLE + END, text="Hello"),
    claude(
        "text and thinking in the start of a block",
        anthropic(
            started(),
            block(0, type="thinking", thinking="Hm."),
            block(1, type="text", text="Hello"),
            delta(1, type="text_delta", text=""),
            ending(),
            STOP,
        ),
        text="Hello",
        reasoning="Hm.",
    ),
    claude(
        "a start without a message, an error without a type",
        sse({"type": "message_start"}, {"error": {"type": "api_error"}}),
        FAILED,
        status=500,
    ),
    other(
        "openai-responses",
        "keepalives, sound, work and news",
        sse(
            {"type": "keepalive"},
            response("audio.delta", delta="AA=="),
            response("mcp_call_arguments.delta", delta="{"),
            response("output_text.annotation.added", annotation={}),
            response("rate.noted"),
            {"type": "news"},
            item(0, "added", type="web_search_call"),
            item(0, "done", type="web_search_call"),
            response("output_text.delta", delta=""),
            response("function_call_arguments.done", arguments="{}"),
            DONE,
        ),
        text="",
        heartbeats=1,
        calls=(),
    ),
    other(
        "gemini",
        "pictures, code and its result",
        sse(
            gemini(
                {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
                {"executableCode": {"code": "1"}},
                {"codeExecutionResult": {"output": "1"}},
                {"functionCall": {}},
            ),
            gemini(growing("nothing", stringValue="x")),
            gemini(growing("$.a", stringValue="x")),
            gemini(growing("$.a.b", stringValue="y"), finish="STOP"),
        ),
        text="",
    ),
    *(
        other(
            "gemini",
            f"an interaction that is {status}",
            sse({"event_type": "news"})
            + sse({"event_type": "interaction.completed", "interaction": {"status": status}}),
            outcome,
        )
        for status, outcome in (("incomplete", O.LENGTH), ("failed", FAILED))
    ),
    other(
        "gemini",
        "an interaction with an error",
        sse({"event_type": "error", "code": 429}),
        FAILED,
        status=429,
    ),
    other(
        "gemini",
        "thoughts and other steps of an interaction",
        sse(
            {"event_type": "step.start", "index": 0, "step": {"type": "thought"}},
            {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "Hm."}},
            {"event_type": "step.delta", "index": 1, "delta": {"type": "google_search_call"}},
        ),
        TRUNCATED,
        reasoning="Hm.",
    ),
    other("cohere", "an error without a type", sse({"message": "too many", "id": "x"}), FAILED),
    other(
        "cohere",
        "pings, citations and news",
        sse(
            {"type": "ping"},
            {"type": "citation-start", "index": 0},
            {"type": "citation-end"},
            {"type": "news"},
            {"type": "content-delta", "delta": {"message": {"content": []}}},
            {"type": "tool-call-delta", "delta": {"message": {"tool_calls": []}}},
            {"type": "message-end", "delta": {"finish_reason": "STOP_SEQUENCE"}},
        ),
        text="",
        heartbeats=1,
    ),
    other(
        "bedrock",
        "an exception that is no JSON",
        encode("internalServerException", b"oops", message_type="exception"),
        FAILED,
        status=500,
    ),
    other("bedrock", "a chunk that is no base64", frames(("chunk", {"bytes": "?"})), GARBLED),
    other("bedrock", "a frame that is no object", frames(("metadata", [])), O.EMPTY, ignored=1),
    other(
        "bedrock",
        "frames that nobody knows",
        frames(("news", {}), ("contentBlockDelta", {"delta": {"x": 1}}), ("messageStop", {})),
        O.EMPTY,
        flags=("missing_terminator",),
    ),
    other(
        "ollama",
        "a line that is no object",
        lines(None, {"response": "Hi", "done": True}),
        text="Hi",
        ignored=1,
    ),
]

CASES = [*RARE, *FRAMING, *LIFE, *ERRORS, *CHAT, *TOOLS, *CLAUDE, *RESPONSES, *OTHERS]
