"""Gemini: contents of parts, functions under declarations, the model in the path."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from client_sdk.llm.endpoints import Endpoint
from client_sdk.llm.messages import (
    Picture,
    calls_of,
    chosen,
    foreign,
    functions,
    names_of_calls,
    parts,
    system_of,
    text_of,
    thoughts_of,
    turns,
)
from client_sdk.llm.options import Generation, Message, Tool, given, merged

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "one": "ANY"}
# Keywords of JSON Schema that its schemas do not have, and refuse.
_NOT_OF_SCHEMA = frozenset({"$schema", "$id", "$defs", "additionalProperties", "strict"})


def path(model: str, *, stream: bool) -> str:
    """Where a model is asked."""
    name = model.removeprefix("models/")
    if stream:
        return f"/v1beta/models/{name}:streamGenerateContent?alt=sse"
    return f"/v1beta/models/{name}:generateContent"


def body(
    endpoint: Endpoint,  # noqa: ARG001  # as all dialects
    model: str,  # noqa: ARG001  # it stands in the path
    messages: Sequence[Message],
    tools: Sequence[Tool] | None,
    how: Generation,
    *,
    stream: bool,  # noqa: ARG001  # so does this
) -> dict[str, Any]:
    """The body of a request."""
    sent: dict[str, Any] = {"contents": _contents(messages)}
    if system := system_of(messages):
        sent["systemInstruction"] = {"parts": [{"text": system}]}
    if tools:
        declared = [_declaration(function) for function in functions(tools)]
        own = [{"functionDeclarations": declared}] if declared else []
        sent["tools"] = [*own, *foreign(tools)]
    config = given(
        maxOutputTokens=how.max_tokens,
        temperature=how.temperature,
        topP=how.top_p,
        stopSequences=list(how.stop) if how.stop else None,
        seed=how.seed,
    )
    if config:
        sent["generationConfig"] = config
    if how.tool_choice is not None:
        word, name = chosen(how.tool_choice)
        calling: dict[str, Any] = {"mode": _MODES.get(word, word.upper())}
        if name is not None:
            calling["allowedFunctionNames"] = [name]
        sent["toolConfig"] = {"functionCallingConfig": calling}
    return merged(sent, how.extra)


def _declaration(function: Mapping[str, Any]) -> dict[str, Any]:
    declared = given(name=function.get("name"), description=function.get("description"))
    schema = _schema(function.get("parameters") or {})
    if schema.get("properties"):
        declared["parameters"] = schema
    return declared


def _schema(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {k: _schema(v) for k, v in schema.items() if k not in _NOT_OF_SCHEMA}
    return [_schema(each) for each in schema] if isinstance(schema, list) else schema


def _contents(messages: Sequence[Message]) -> list[dict[str, Any]]:
    names = names_of_calls(messages)
    return turns(
        messages, lambda message, role: _parts(message, role, names), model="model", under="parts"
    )


def _parts(message: Message, role: str, names: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    if role == "tool":
        name = message.get("name") or names.get(str(message.get("tool_call_id")), "")
        yield {"functionResponse": {"name": name, "response": {"result": text_of(message)}}}
        return
    for part in parts(message):
        match part:
            case str():
                yield {"text": part}
            case Picture(data=None):
                yield {"fileData": {"mimeType": part.media_type, "fileUri": part.url}}
            case Picture():
                yield {"inlineData": {"mimeType": part.media_type, "data": part.data}}
            case _:
                yield part
    seals = {
        thought.before: {"thoughtSignature": thought.signature}
        for thought in thoughts_of(message)
        if not (thought.text or thought.redacted)
    }
    for number, call in enumerate(calls_of(message)):
        yield {"functionCall": {"name": call.name, "args": call.input}, **seals.get(number, {})}


def as_stream(answer: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A whole answer as the events of a stream, which it is already; None when it is none."""
    return [answer] if "candidates" in answer or "promptFeedback" in answer else None
