"""What a settle teaches: counts, books, sizes of calls, forecasts, and what was taken here."""

from collections.abc import Sequence

from limiter_service.engine.answers import charges_of, marks_of
from limiter_service.engine.books import Books
from limiter_service.engine.expectation import Expectations
from limiter_service.engine.forecast import Forecast
from limiter_service.engine.outages import Outages
from limiter_service.engine.policy import Policy
from limiter_service.engine.shape import History
from limiter_service.store.messages import Reply, Report
from limiter_wire import Outcome, Provenance, Settle, Settled

_SUCCESS, _FINAL = Outcome.SUCCESS, Provenance.FINAL


class Lessons:
    """Tells it to whoever learns from it."""

    def __init__(
        self,
        books: Books,
        expectations: Expectations,
        forecast: Forecast,
        outages: Outages,
    ) -> None:
        self._books, self._expectations = books, expectations
        self._forecast, self._outages = forecast, outages

    def note(
        self,
        policy: Policy,
        report: Settle,
        told: Report,
        route: str | None,
        reply: Reply,
        history: History | None,
        answer: Settled,
    ) -> None:
        """Take in a report, and its first *answer*."""
        self._books.tally.reported(
            policy.resource,
            told.outcome_class,
            marks_of(reply.numbers),
            slow=told.slow,
            early=told.first_token,
        )
        if history is not None and not told.first_token:
            self._learn(policy, report, route, charges_of(reply.numbers), history, answer)

    def _learn(
        self,
        policy: Policy,
        report: Settle,
        route: str | None,
        charges: Sequence[float],
        history: History,
        answer: Settled,
    ) -> None:
        usage = report.usage
        self._books.settled(policy, report, answer)
        if usage and report.outcome is _SUCCESS and usage.provenance is _FINAL:
            self._expectations.learn(
                policy.pool,
                policy.model,
                route,
                output=usage.output_tokens,
                estimated=report.estimated_input_tokens,
                actual=usage.input_tokens,
            )
        if answer.debited:
            self.debited(policy, history)
        self._forecast.learn_settle(policy, charges, history)

    def debited(self, policy: Policy, history: History) -> None:
        """What a report or a renewal has taken beyond a reservation counts as taken here."""
        if max(history.moved, default=0.0) > 0:
            by_id = dict(zip(history.limit_ids, history.moved, strict=True))
            self._outages.taken(policy, [by_id.get(limit.id, 0.0) for limit in policy.limits])
