"""Token counts of a long request from samples of it, in bounded time. Pure."""

from client_sdk.estimate import Counter, estimate_text

WEIGHED = 16_384
"""Characters of a request that are looked at; what is shorter is weighed whole."""

_PIECE = 256


def sampling(size: int, family: str) -> Counter:
    """A counter for the texts of one request of *size* bytes.

    Each text is judged by its share of what may be looked at. When that is used up (by many
    short texts), the mean of what was seen stands for the rest.
    """
    share = min(1.0, WEIGHED / max(1, size))
    seen, tokens = 0, 0.0

    def count(text: str) -> int:
        nonlocal seen, tokens
        length = len(text)
        if seen > 2 * WEIGHED:
            return round(length * tokens / seen)
        wanted = max(_PIECE, int(length * share))
        if length <= wanted:
            found = estimate_text(text, family)
            seen, tokens = seen + length, tokens + found
            return round(found)
        pieces = max(1, wanted // _PIECE)
        step = (length - _PIECE) / max(1, pieces - 1)
        found = sum(
            estimate_text(text[(at := int(i * step)) : at + _PIECE], family) for i in range(pieces)
        )
        seen, tokens = seen + pieces * _PIECE, tokens + found
        return round(found * length / (pieces * _PIECE))

    return count
