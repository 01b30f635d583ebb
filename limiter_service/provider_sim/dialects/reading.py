"""Reading request bodies, and saying what is wrong with them."""

import re
from typing import TypeVar

import msgspec

from limiter_service.provider_sim.problems import BadRequestError

T = TypeVar("T")

_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The request in `body`; anything else raises `BadRequestError`, in OpenAI's words."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = "We could not parse the JSON body of your request. (HINT: This likely means you"
        raise BadRequestError(
            f"{text} aren't using your HTTP library correctly. The API expects a JSON payload.)"
        ) from error


def _invalid(problem: str) -> BadRequestError:
    place = _PLACE.search(problem)
    where = place.group(1) if place else ""
    missing = _MISSING.search(problem)
    if missing:
        param = f"{where}.{missing.group(1)}" if where else missing.group(1)
        text = f"Missing required parameter: '{param}'."
        return BadRequestError(text, param, "missing_required_parameter")
    text = problem[: place.start()] if place else problem
    value = f"'{where}'" if where else "the request body"
    return BadRequestError(f"Invalid value for {value}: {text}.", where or None, "invalid_value")


MAX_SIZE = 1_000_000
"""The most tokens that a replay header may ask for: an answer is built in memory."""


def read_size(header: str, value: str | None, *, least: int = 1) -> int | None:
    """The number of tokens that a replay header asks for."""
    if value is None:
        return None
    digits = value.isascii() and value.isdecimal() and len(value) <= len(str(MAX_SIZE))
    if not (digits and least <= int(value) <= MAX_SIZE):
        text = f"Invalid value for '{header}': expected tokens from {least} to {MAX_SIZE}."
        raise BadRequestError(text, header, "invalid_value")
    return int(value)


def text_of(content: msgspec.Raw) -> str:
    """The text of a message's content: a string, or its parts of text."""
    value = msgspec.json.decode(content)
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))
