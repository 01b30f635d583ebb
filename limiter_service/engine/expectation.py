"""Learned size of an answer: what `reserve: input + expected_output` adds to the input."""

_WEIGHT = 0.1
_LEAST_SEEN = 5


class Expectation:
    """A moving average of settled output tokens by resource, in this replica.

    The average follows a change within some twenty calls; below five nothing is known.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._seen: dict[str, tuple[int, float]] = {}

    def learn(self, resource: str, output_tokens: int) -> None:
        """Take in one answer's size."""
        count, average = self._seen.pop(resource, (0, float(output_tokens)))
        if len(self._seen) >= self._most:  # callers choose models: bounded, oldest first out
            del self._seen[next(iter(self._seen))]
        self._seen[resource] = (count + 1, average + _WEIGHT * (output_tokens - average))

    def expected(self, resource: str) -> float | None:
        """The size to expect, None while too little was seen."""
        count, average = self._seen.get(resource, (0, 0.0))
        return average if count >= _LEAST_SEEN else None
