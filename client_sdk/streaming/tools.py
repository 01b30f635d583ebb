"""Tool calls from their pieces, whatever ids, indexes and names the provider sends.

A piece belongs to the call whose id it carries; else to the one at its index; else to the
latest. An unknown index opens a call. So does an unknown id, but only together with a name,
and only when that is another name or the call at hand is already whole: some servers invent
an id for each piece, and some put every call at index 0. Empty strings are absent values.
"""

import re
from collections.abc import Sequence
from typing import Literal

import jiter
import msgspec

from client_sdk.streaming.chunks import Problem, ToolCall, ToolCallDelta

_STRUCTURE = re.compile(r'["\\{}\[\]]')
_FIRST_PARTIAL = 64


class _Documents:
    """Counts the JSON documents in a text that grows. Each character is looked at once."""

    __slots__ = ("count", "depth", "escaped", "quoted", "seen")

    def __init__(self) -> None:
        self.count = self.depth = self.seen = 0
        self.quoted = self.escaped = False

    def read(self, pieces: Sequence[str]) -> None:
        """Look at the pieces that are new."""
        for piece in pieces[self.seen :]:
            self._scan(piece)
        self.seen = len(pieces)

    @property
    def whole(self) -> bool:
        """Whether the text ends where a document ends."""
        return self.count > 0 and self.depth == 0

    def _scan(self, piece: str) -> None:
        escape = 0 if self.escaped else -1
        self.escaped = False
        for match in _STRUCTURE.finditer(piece):
            at, mark = match.start(), match[0]
            if at == escape:
                continue
            if mark == "\\":
                escape = at + 1
            elif mark == '"':
                self.quoted = not self.quoted
            elif not self.quoted:
                if mark in "{[":
                    self.depth += 1
                elif self.depth:
                    self.depth -= 1
                    self.count += self.depth == 0
        self.escaped = escape == len(piece)


class _Call:
    """A call under way."""

    __slots__ = (
        "documents",
        "id",
        "initial",
        "name",
        "name_open",
        "partial",
        "partial_at",
        "pieces",
        "place",
        "size",
        "type",
    )

    def __init__(self, place: int) -> None:
        self.place = place
        self.id = self.name = self.initial = ""
        self.name_open = True
        self.type: Literal["function", "custom"] = "function"
        self.pieces: list[str] = []
        self.size = 0
        self.documents = _Documents()
        self.partial: object = None
        self.partial_at = 0

    def whole(self) -> bool:
        """Whether the arguments so far are complete JSON."""
        self.documents.read(self.pieces)
        return self.documents.whole

    def renamed(self, name: str) -> bool:
        """Take a name, or the next piece of one; whether that changed it."""
        if not name or name == self.name or not self.name_open:
            return False
        # Sent again in full, with more of it, or in pieces.
        self.name = name if name.startswith(self.name) else self.name + name
        return True

    def result(self) -> ToolCall | None:
        """The call as it stands, None when nothing of it arrived."""
        arguments = "".join(self.pieces) or self.initial
        if not (self.name or arguments.strip()):
            return None
        if self.type == "function" and not arguments.strip():
            arguments = "{}"
        return ToolCall(
            id=self.id,
            name=self.name,
            arguments=arguments,
            index=self.place,
            type=self.type,
            problem=self._problem(arguments),
        )

    def _problem(self, arguments: str) -> Problem | None:
        if not self.name:
            return "missing_name"
        if self.type == "custom" or _is_json(arguments):
            return None
        self.documents.read(self.pieces)
        return "concatenated_json" if self.documents.count > 1 else "invalid_json"


class ToolCallAssembler:
    """Assembles the calls of one choice, in time linear in the number of pieces."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}

    def __len__(self) -> int:
        """Of how many calls a piece arrived."""
        return len(self._calls)

    def add(
        self,
        *,
        index: int | None = None,
        id: str | None = None,  # noqa: A002  # the providers' name
        name: str | None = None,
        arguments: object = None,
    ) -> ToolCallDelta | None:
        """Take a piece; the delta to show, or None while the call has no name."""
        piece = _text(arguments)
        call = self._find(index, id or "", name or "", piece)
        return self._extend(call, id or "", name or "", piece)

    def open(
        self,
        *,
        index: int | None = None,
        id: str | None = None,  # noqa: A002  # the providers' name
        name: str | None = None,
        initial: object = None,
        type: Literal["function", "custom"] = "function",  # noqa: A002  # the providers' name
    ) -> ToolCallDelta | None:
        """Begin a call that the provider announces; *initial* counts if no piece follows."""
        if id and id in self._by_id:
            return None
        call = self._new(index, id or "")
        call.type = type
        call.initial = _text(initial) if initial else ""
        return self._extend(call, id or "", name or "", "")

    def add_whole(
        self,
        *,
        name: str | None,
        arguments: object,
        id: str | None = None,  # noqa: A002  # the providers' name
    ) -> ToolCallDelta | None:
        """Take a call that comes in one piece; a repeated id is the same call."""
        if id and id in self._by_id:
            return None
        return self._extend(self._new(None, id or ""), id or "", name or "", _text(arguments))

    def replace(self, *, index: int, arguments: object) -> ToolCallDelta | None:
        """Take the whole arguments that end a call; a delta only if no piece came before."""
        call = self._by_index.get(index)
        text = _text(arguments)
        if call is None or not text:
            return None
        if not call.pieces:
            return self._extend(call, "", "", text)
        if sum(map(len, call.pieces)) != len(text) or "".join(call.pieces) != text:
            call.pieces, call.size, call.documents = [text], len(text), _Documents()
        return None

    def has(self, index: int) -> bool:
        """Whether there is a call at the provider's *index*."""
        return index in self._by_index

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls as they stand. Execute them only after the stream has ended well."""
        found = (call.result() for call in self._calls)
        return tuple(call for call in found if call is not None)

    def partial(self, index: int) -> object:
        """What can be read already of the arguments of a call.

        They are parsed again only when they have grown by half, so that asking after every
        piece stays linear; between, the answer is the one before.
        """
        call = self._calls[index]
        if call.size >= max(_FIRST_PARTIAL, call.partial_at * 3 // 2) or call.partial is None:
            call.partial_at = call.size
            text = "".join(call.pieces).encode("utf-8", "replace")
            try:
                call.partial = jiter.from_json(text, partial_mode="trailing-strings")
            except ValueError:
                call.partial = call.partial or {}
        return call.partial

    def _find(self, index: int | None, id_: str, name: str, piece: str) -> _Call:
        if id_ and id_ in self._by_id:
            return self._by_id[id_]
        at_index = self._by_index.get(index) if index is not None else None
        if index is not None and at_index is None:
            return self._new(index, id_)
        current = at_index or (self._calls[-1] if self._calls else None)
        if current is None or (
            name and self._another(current, id_, name, piece, nowhere=index is None)
        ):
            return self._new(index, id_)
        return current

    def _another(self, current: _Call, id_: str, name: str, piece: str, *, nowhere: bool) -> bool:
        """Whether a named piece of an unknown call is not a part of *current*."""
        if not current.name:
            return False
        if id_ and current.id:
            return name != current.name or current.whole()
        if name != current.name and nowhere and current.pieces:
            return True
        return bool(piece) and current.whole()

    def _new(self, index: int | None, id_: str) -> _Call:
        call = _Call(len(self._calls))
        self._calls.append(call)
        if id_:
            self._by_id[id_] = call
        if index is not None:
            self._by_index[index] = call
        return call

    def _extend(self, call: _Call, id_: str, name: str, piece: str) -> ToolCallDelta | None:
        if id_ and not call.id:
            call.id = id_
            self._by_id[id_] = call
        named_before = bool(call.name)
        changed = call.renamed(name)
        if piece:
            call.pieces.append(piece)
            call.size += len(piece)
            call.name_open = not call.name
        if not call.name:
            return None
        shown = piece if named_before else "".join(call.pieces)
        return ToolCallDelta(
            index=call.place, id=call.id, name=call.name if changed else "", arguments=shown
        )


def _text(arguments: object) -> str:
    """Arguments as JSON text: some servers send a value instead."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return False
    return True
