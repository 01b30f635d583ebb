"""The neutral shape of a conversation: OpenAI's chat messages, read part by part.

Roles are `system` (or `developer`), `user`, `assistant` with `tool_calls`, and `tool` with
`tool_call_id`. Content is text, or parts of the types `text` and `image_url`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from client_sdk.llm.options import Message
from client_sdk.streaming import Thought

SYSTEM = frozenset({"system", "developer"})
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*;base64,", re.ASCII)


class Picture(msgspec.Struct, frozen=True):
    """A picture: its type and its Base64 text, or where it is."""

    media_type: str = "image/png"
    data: str | None = None
    url: str | None = None


class Called(msgspec.Struct, frozen=True):
    """A call that the model made earlier in the conversation."""

    id: str
    name: str
    arguments: str

    @property
    def input(self) -> Any:
        """The arguments as a value; an object, whatever was sent."""
        try:
            value = msgspec.json.decode(self.arguments or "{}")
        except msgspec.DecodeError:
            return {}
        return value if isinstance(value, dict) else {}


def role_of(message: Message) -> str:
    """The role, `user` where there is none."""
    return str(message.get("role") or "user")


def parts(message: Message) -> Iterator[str | Picture | Mapping[str, Any]]:
    """Texts, pictures, and parts that only the provider understands, in their order."""
    content = message.get("content")
    if isinstance(content, str):
        if content:
            yield content
        return
    for part in content if isinstance(content, Sequence) else ():
        if isinstance(part, str):
            yield part
        elif part.get("type") in {"text", "input_text", "output_text"}:
            yield str(part.get("text") or "")
        elif part.get("type") in {"image_url", "input_image"}:
            yield picture_of(part)
        else:
            yield part


def picture_of(part: Mapping[str, Any]) -> Picture:
    """The picture of a part: a data URL is taken apart, any other is kept."""
    value = part.get("image_url")
    url = str(value.get("url") if isinstance(value, Mapping) else value)
    match = _DATA_URL.match(url)
    if match is None:
        return Picture(url=url)
    return Picture(media_type=match[1] or "image/png", data=url[match.end() :])


def text_of(message: Message) -> str:
    """All text of a message."""
    return "".join(part for part in parts(message) if isinstance(part, str))


def calls_of(message: Message) -> list[Called]:
    """The tool calls of an assistant's message."""
    found = []
    for number, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function") or call
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments or {}).decode()
        name = str(function.get("name") or "")
        found.append(Called(str(call.get("id") or f"call_{number}"), name, arguments))
    return found


def thoughts_of(message: Message) -> list[Thought]:
    """The sealed reasoning of an assistant's message."""
    return msgspec.convert(message.get("thoughts") or [], list[Thought])


def system_of(messages: Iterable[Message]) -> str:
    """What all system messages say together."""
    return "\n\n".join(filter(None, (text_of(m) for m in messages if role_of(m) in SYSTEM)))


def turns(
    messages: Iterable[Message],
    said: Callable[[Message, str], Iterable[Any]],
    *,
    model: str,
    under: str,
) -> list[dict[str, Any]]:
    """User and model by turns, as some providers insist: neighbours of one role are one turn.

    *said* are the parts of a message by its role; they stand *under* that field. *model* is what
    the provider calls its own role.
    """
    found: list[dict[str, Any]] = []
    for message in messages:
        role = role_of(message)
        content = [] if role in SYSTEM else list(said(message, role))
        if not content:
            continue
        speaker = model if role == "assistant" else "user"
        if found and found[-1]["role"] == speaker:
            found[-1][under] += content
        else:
            found.append({"role": speaker, under: content})
    return found


def names_of_calls(messages: Iterable[Message]) -> dict[str, str]:
    """The function of each call in the conversation by the call's id: results name only that."""
    return {call.id: call.name for message in messages for call in calls_of(message)}


def functions(tools: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """The functions among *tools*; each may stand alone or under `function`."""
    return [dict(tool.get("function") or tool) for tool in tools or () if is_function(tool)]


def is_function(tool: Mapping[str, Any]) -> bool:
    """Whether a tool is a neutral function, and not one that the provider runs itself."""
    return "function" in tool or (tool.get("type", "function") == "function" and "name" in tool)


def foreign(tools: Iterable[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """The tools that only the provider understands: they go as they are."""
    return [tool for tool in tools or () if not is_function(tool)]


def chosen(tool_choice: Any) -> tuple[str, str | None]:
    """`auto`, `none`, `required` or `one`, and the function that has to be called."""
    if isinstance(tool_choice, Mapping):
        function = tool_choice.get("function") or tool_choice
        name = function.get("name")
        return ("one", str(name)) if name else (str(tool_choice.get("type") or "auto"), None)
    word = str(tool_choice)
    return ("required" if word == "any" else word), None
