"""What an answer says: reasoning, text and tool calls, cut into tokens.

Text is made of the same words over and over, so that a caller knows what has to arrive
when it knows how much of it there is.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import cycle, islice

import msgspec

_PLAIN = (
    *("The", " water", " rises", " behind", " the", " gate", " until", " it", " opens", ";"),
    *(" then", " every", " channel", " takes", " its", " share", " and", " no", " more", "."),
)
# What parsers stumble over: characters of two to four bytes, line separators that are no
# line ends in a stream, quotes, backslashes, and a text that looks like an end mark.
_HARD = (
    *("Der", " Fluß", " führt", " \u8c46\u8150", ";", " \u20ac5", " \U0001f30a", "\n", "\r\n"),
    *('"quoted"', " \\u0041", "\u2028", "\u0085", "\x0b", " data: [DONE]", "\n\n", " \u00e9\u0301"),
)
_THOUGHTS = ("First", ",", " how", " high", " is", " the", " water", "?", " So", ":", " wait", ".")

# A token of a tool call's arguments.
_FRAGMENT = 4
_DEEPEST = 5

JsonObject = Mapping[str, object]


class Words(StrEnum):
    """Which words a text is made of."""

    PLAIN = "plain"
    HARD = "hard"


class Tool(msgspec.Struct, frozen=True):
    """A tool that the caller offers."""

    name: str
    schema: JsonObject


class Reasoning(msgspec.Struct, frozen=True, tag=True):
    """Thoughts, a token each."""

    pieces: Sequence[str]


class Text(msgspec.Struct, frozen=True, tag=True):
    """Text, a token each."""

    pieces: Sequence[str]


class ToolCall(msgspec.Struct, frozen=True, tag=True):
    """One call: its number among the calls, its name, and its arguments in JSON."""

    number: int
    name: str
    pieces: Sequence[str]

    @property
    def arguments(self) -> str:
        """The arguments in one piece."""
        return "".join(self.pieces)


Part = Reasoning | Text | ToolCall


class Answer(msgspec.Struct, frozen=True):
    """The parts in their order; `cut_short` when the allowed output ended first."""

    parts: Sequence[Part]
    cut_short: bool

    @property
    def tokens(self) -> int:
        """All of its output."""
        return sum(tokens_of(part) for part in self.parts)

    @property
    def reasoning_tokens(self) -> int:
        """The part of it that is thought."""
        return sum(tokens_of(part) for part in self.parts if isinstance(part, Reasoning))

    @property
    def text(self) -> str:
        """Its text in one piece."""
        pieces = (part.pieces for part in self.parts if isinstance(part, Text))
        return "".join(piece for group in pieces for piece in group)

    @property
    def reasoning(self) -> str:
        """Its thoughts in one piece."""
        pieces = (part.pieces for part in self.parts if isinstance(part, Reasoning))
        return "".join(piece for group in pieces for piece in group)

    @property
    def calls(self) -> list[ToolCall]:
        """Its tool calls."""
        return [part for part in self.parts if isinstance(part, ToolCall)]


def tokens_of(part: Part) -> int:
    """The output that a part counts for: a call's name is a token as well."""
    return len(part.pieces) + (1 if isinstance(part, ToolCall) else 0)


def compose(
    *,
    text: int,
    reasoning: int = 0,
    calls: Sequence[Tool] = (),
    words: Words = Words.PLAIN,
    prefill: str = "",
    most: int | None = None,
) -> Answer:
    """An answer of `text` and `reasoning` tokens with a call of each tool, `most` in all.

    `prefill` is the beginning of the text that the caller has already: what follows it is
    what the answer says.
    """
    wanted: list[Part] = []
    if reasoning:
        wanted.append(Reasoning(tuple(islice(cycle(_THOUGHTS), reasoning))))
    if text:
        wanted.append(Text(_continued(words, text, prefill)))
    wanted += [ToolCall(n, tool.name, _arguments(tool)) for n, tool in enumerate(calls)]
    if most is None:
        return Answer(wanted, cut_short=False)
    parts = list(_cut(wanted, most))
    return Answer(parts, cut_short=sum(map(tokens_of, parts)) < sum(map(tokens_of, wanted)))


def _continued(words: Words, count: int, prefill: str) -> Sequence[str]:
    """The first `count` words without the `prefill`, when that is how they begin."""
    vocabulary = _PLAIN if words is Words.PLAIN else _HARD
    pieces = tuple(islice(cycle(vocabulary), count))
    given = 0
    for number, piece in enumerate(cycle(vocabulary)):
        rest = prefill[given:]
        if not rest.startswith(piece):
            if not rest or not piece.startswith(rest):
                return pieces[number:] if not rest else pieces
            return (piece[len(rest) :], *pieces[number + 1 :])
        given += len(piece)
    raise AssertionError  # a cycle has no end


def _cut(parts: Sequence[Part], most: int) -> Iterator[Part]:
    for part in parts:
        if most <= 0:
            return
        room = most - 1 if isinstance(part, ToolCall) else most
        yield msgspec.structs.replace(part, pieces=part.pieces[:room])
        most -= tokens_of(part)


def _arguments(tool: Tool) -> Sequence[str]:
    text = msgspec.json.encode(_example(tool.schema, "value", 0)).decode()
    return tuple(text[at : at + _FRAGMENT] for at in range(0, len(text), _FRAGMENT))


def _example(schema: object, name: str, depth: int) -> object:
    """A value that a JSON schema allows, as far as its types say."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    if options := schema.get("enum"):
        return options[0] if isinstance(options, Sequence) else None
    kind = schema.get("type")
    if isinstance(kind, Sequence) and not isinstance(kind, str):
        kind = next((one for one in kind if one != "null"), None)
    match str(kind or "object").lower():
        case "string":
            return f"a {name} at the gate"
        case "integer":
            return 3
        case "number":
            return 2.5
        case "boolean":
            return True
        case "array":
            return [_example(schema.get("items"), name, depth + 1)]
        case "object":
            fields = schema.get("properties") or {}
            return {
                str(field): _example(inner, str(field), depth + 1)
                for field, inner in (fields.items() if isinstance(fields, Mapping) else ())
            }
        case _:
            return None
