"""What the calls of one limiter were like, and the same beside what the service knows."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from client_sdk.blocks import Sum
from client_sdk.errors import SluicegateError
from client_sdk.streaming import Spread
from client_sdk.streaming.statistics import Distribution
from limiter_wire import Outcome, Provenance, Settle, Stats

_MOST = 1000
_AT_ONCE = 256


class LocalStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to the calls of one limiter on one resource. Times are seconds.

    `refused` counts acquires by error code, `outcomes` settled calls by how they ended. `waited`
    is the time that granted calls stood in the queue; `latency` and `time_to_first_token` are
    known of what the limiter has seen: streams, transports, `lease.observed`.
    """

    resource: str
    granted: int
    refused: Mapping[str, int]
    outcomes: Mapping[str, int]
    waited: Spread | None
    latency: Spread | None
    time_to_first_token: Spread | None
    input_tokens: int
    output_tokens: int
    unknown_usage: int


class Statistics(Stats, frozen=True, kw_only=True):
    """Figures of the fleet as the service tells them, and of this limiter as `local`."""

    local: list[LocalStatistics] = []


class _Seen:
    """Nearly every call is granted at once and succeeds: those that were not are told apart."""

    __slots__ = (
        "granted",
        "input_tokens",
        "late",
        "latency",
        "outcomes",
        "output_tokens",
        "refused",
        "succeeded",
        "ttft",
        "unknown_usage",
        "waited",
    )

    def __init__(self) -> None:
        self.granted = self.late = self.succeeded = self.unknown_usage = 0
        self.input_tokens = self.output_tokens = 0
        self.refused: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.waited, self.latency, self.ttft = Distribution(), Distribution(), Distribution()


class LocalFigures:
    """Adds them up. Threads may share it; resources beyond a thousand are not told apart.

    What nearly all calls are is noted, which takes no lock, and added up when there is much of it
    or somebody looks.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._seen: dict[str, _Seen] = {}
        self._granted: list[str] = []
        self._settled: list[tuple[str, Settle]] = []

    def granted(self, resource: str, waited: float) -> None:
        """A lease was given."""
        if waited > 0:
            with self._turn:
                self._book()
                seen = self._of(resource)
                seen.granted += 1
                seen.late += 1
                seen.waited.add(waited)
            return
        self._granted.append(resource)
        if len(self._granted) >= _AT_ONCE:
            with self._turn:
                self._book()

    def refused(self, resource: str, refusal: SluicegateError) -> None:
        """An acquire was refused, or nobody could be asked."""
        with self._turn:
            self._book()
            self._of(resource).refused[str(refusal.code or "unreachable")] += 1

    def settled(self, resource: str, report: Settle) -> None:
        """A call is over."""
        if report.phase is not None:
            return
        self._settled.append((resource, report))
        if len(self._settled) >= _AT_ONCE:
            with self._turn:
                self._book()

    def handed_out(self, resource: str, ended: Iterable[Sum]) -> None:
        """Calls are over whose leases were handed out here."""
        with self._turn:
            self._book()
            for each in ended:
                outcome, known, _, _ = each.kind
                seen = self._of(resource)
                seen.granted += each.calls
                seen.outcomes[outcome] += each.calls
                for latency in each.latencies:
                    seen.latency.add(latency)
                for ttft in each.ttfts:
                    seen.ttft.add(ttft)
                seen.unknown_usage += 0 if known else each.calls
                seen.input_tokens += each.input
                seen.output_tokens += each.output

    def beside(self, told: Stats) -> Statistics:
        """What the service has told, and these figures."""
        fields = {name: getattr(told, name) for name in told.__struct_fields__}
        return Statistics(**fields, local=self.snapshot())

    def snapshot(self) -> list[LocalStatistics]:
        """The figures up to now, by resource."""
        with self._turn:
            self._book()
            return [_local(name, seen) for name, seen in sorted(self._seen.items())]

    def _book(self) -> None:
        """Add up what is noted. What other threads note meanwhile stands behind it."""
        granted = self._granted[:]
        del self._granted[: len(granted)]
        for resource, count in Counter(granted).items():
            self._of(resource).granted += count
        settled = self._settled[:]
        del self._settled[: len(settled)]
        for resource, report in settled:
            _add(self._seen.get(resource) or self._of(resource), report)

    def _of(self, resource: str) -> _Seen:
        seen = self._seen.get(resource)
        if seen is None:
            name = resource if len(self._seen) < _MOST else "*"
            seen = self._seen.get(name) or self._seen.setdefault(name, _Seen())
        return seen


def _add(seen: _Seen, report: Settle) -> None:
    """A call is over."""
    if report.outcome is Outcome.SUCCESS:
        seen.succeeded += 1
    else:
        seen.outcomes[report.outcome] += 1
    if report.latency is not None:
        seen.latency.add(report.latency)
    if report.ttft is not None:
        seen.ttft.add(report.ttft)
    usage = report.usage
    if usage is None:
        seen.unknown_usage += 1
        return
    if usage.provenance is Provenance.UNKNOWN:
        seen.unknown_usage += 1
    seen.input_tokens += usage.input_tokens
    seen.output_tokens += usage.output_tokens


def _local(resource: str, seen: _Seen) -> LocalStatistics:
    outcomes = seen.outcomes + Counter({Outcome.SUCCESS: seen.succeeded})
    seen.waited.zeros = seen.granted - seen.late
    return LocalStatistics(
        resource=resource,
        granted=seen.granted,
        refused=dict(sorted(seen.refused.items())),
        outcomes={str(name): count for name, count in sorted(outcomes.items())},
        waited=seen.waited.spread(),
        latency=seen.latency.spread(),
        time_to_first_token=seen.ttft.spread(),
        input_tokens=seen.input_tokens,
        output_tokens=seen.output_tokens,
        unknown_usage=seen.unknown_usage,
    )
