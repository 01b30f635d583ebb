"""Names of requests, which either side gives where nobody did, and the randomness for them."""

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_AT_ONCE = 256


def drawing(size: int, made: Callable[[bytes], Iterable[T]]) -> Callable[[], T]:
    """What draws one random value after another, each *made* of *size* bytes of the system. Many
    are made at once: to ask for each by itself takes as long as a tenth of an acquire.
    """
    ready: list[T] = []
    if hasattr(os, "register_at_fork"):  # else there are no forks
        os.register_at_fork(after_in_child=ready.clear)  # no two processes have the same

    def draw() -> T:
        while True:  # another thread may have been quicker
            try:
                return ready.pop()
            except IndexError:
                ready.extend(made(os.urandom(_AT_ONCE * size)))

    return draw


def hexadecimal(size: int) -> Callable[[bytes], Iterable[str]]:
    """Text of *size* bytes for each value."""

    def made(fresh: bytes) -> Iterable[str]:
        text = fresh.hex()
        return [text[at : at + 2 * size] for at in range(0, len(text), 2 * size)]

    return made


new_request_id = drawing(16, hexadecimal(16))
"""A name for a request whose caller gives it none: 32 hexadecimal digits."""
