"""Who called, and what became of it: counts by key, model, dialect, fault and status."""

from collections.abc import Iterable

import msgspec

from limiter_service.provider_sim.playing import Ending

# A simulator that runs for a week does not grow: later names are counted together.
_MOST_NAMES = 1000
_OTHERS = "(others)"
_OK = 200

# A key that is longer than ours may be a real one, and is not shown.
_LONGEST_KEY = 24


class Count(msgspec.Struct, kw_only=True):
    """Requests and what became of them.

    `served` were answered with status 200 to the end, `refused` by a limit, `failed` with
    another error, `dropped` were cut by a fault and `hung_up` by their callers. Those that
    are `running` were admitted and have not ended. Tokens are those of answers that ran,
    output as far as it was generated.
    """

    requests: int = 0
    served: int = 0
    refused: int = 0
    failed: int = 0
    dropped: int = 0
    hung_up: int = 0
    running: int = 0
    most_running: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class CountersView(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of /sim/counters; `elapsed` is in the caller's seconds."""

    elapsed: float
    total: Count
    by_key: dict[str, Count]
    by_model: dict[str, Count]
    by_dialect: dict[str, Count]
    by_fault: dict[str, int]
    by_status: dict[int, int]


class Visit:
    """One request while it is counted."""

    def __init__(self, counts: list[Count]) -> None:
        self._counts = counts
        self._running = False
        self._refused = False

    def started(self, input_tokens: int) -> None:
        """It was admitted and runs."""
        self._running = True
        for count in self._counts:
            count.running += 1
            count.most_running = max(count.most_running, count.running)
            count.input_tokens += input_tokens

    def refused(self) -> None:
        """A limit has refused it."""
        self._refused = True
        for count in self._counts:
            count.refused += 1

    def ended(self, ending: Ending, *, status: int, output_tokens: int) -> None:
        """Its answer has ended."""
        for count in self._counts:
            if self._running:
                count.running -= 1
                count.output_tokens += output_tokens
            if ending is Ending.DROPPED:
                count.dropped += 1
            elif ending is Ending.HUNG_UP:
                count.hung_up += 1
            elif status == _OK:
                count.served += 1
            elif not self._refused:
                count.failed += 1


class Ledger:
    """Counts of everybody."""

    def __init__(self) -> None:
        self._total = Count()
        self._keys: dict[str, Count] = {}
        self._models: dict[str, Count] = {}
        self._dialects: dict[str, Count] = {}
        self._faults: dict[str, int] = {}
        self._statuses: dict[int, int] = {}

    def visit(self, *, key: str, model: str, dialect: str) -> Visit:
        """A request that comes."""
        counts = [
            self._total,
            _named(self._keys, key),
            _named(self._models, model),
            _named(self._dialects, dialect),
        ]
        for count in counts:
            count.requests += 1
        return Visit(counts)

    def faults(self, names: Iterable[str]) -> None:
        """Count faults that hit a request."""
        for name in names:
            self._faults[name] = self._faults.get(name, 0) + 1

    def status(self, status: int) -> None:
        """Count the status of an answer."""
        self._statuses[status] = self._statuses.get(status, 0) + 1

    def view(self, elapsed: float) -> CountersView:
        """Everything counted so far."""
        return CountersView(
            elapsed=elapsed,
            total=self._total,
            by_key=self._keys,
            by_model=self._models,
            by_dialect=self._dialects,
            by_fault=self._faults,
            by_status=self._statuses,
        )


def shown(key: str) -> str:
    """A key as counters name it."""
    return key if len(key) <= _LONGEST_KEY else f"{key[:8]}...{key[-4:]}"


def _named(counts: dict[str, Count], name: str) -> Count:
    if name not in counts and len(counts) >= _MOST_NAMES:
        name = _OTHERS
    return counts.setdefault(name, Count())
