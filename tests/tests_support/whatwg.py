"""Server-sent events as WHATWG writes them down, character by character; slow on purpose.

The text of the standard is followed step by step, so that a clever decoder can be compared
with it: decode as UTF-8, cut into lines, then one field after the other.
"""

import msgspec


class Dispatched(msgspec.Struct, frozen=True):
    """What a browser would hand to a listener."""

    event: str
    data: str
    id: str


class Interpreted(msgspec.Struct, frozen=True):
    """What a whole stream means, and the state that it leaves."""

    events: list[Dispatched]
    last_event_id: str
    retry: int | None


def interpret(body: bytes) -> Interpreted:
    """The events of a stream that ends here; what has no empty line behind it is dropped."""
    text = body.decode("utf-8", "replace")
    text = text.removeprefix("\ufeff")
    events: list[Dispatched] = []
    data, event, last_id, retry = "", "", "", None
    for line in _lines(text):
        if line == "":
            if data != "":
                events.append(Dispatched(event or "message", data.removesuffix("\n"), last_id))
            data, event = "", ""
            continue
        if line[0] == ":":
            continue
        name, value = line, ""
        if ":" in line:
            at = line.index(":")
            name, value = line[:at], line[at + 1 :]
            if value[:1] == " ":
                value = value[1:]
        if name == "event":
            event = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            last_id = value
        elif name == "retry" and value and all(c in "0123456789" for c in value):
            retry = int(value)
    return Interpreted(events, last_id, retry)


def _lines(text: str) -> list[str]:
    """Lines that end with CR LF, LF or CR; what has no end is no line."""
    lines, line, at = [], "", 0
    while at < len(text):
        if text[at] == "\r":
            lines.append(line)
            line = ""
            at += 2 if text[at + 1 : at + 2] == "\n" else 1
        elif text[at] == "\n":
            lines.append(line)
            line, at = "", at + 1
        else:
            line, at = line + text[at], at + 1
    return lines
