"""A request from its arrival to its answer: asks the core, and hands over a script."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice

import msgspec
from starlette.requests import Request as HttpRequest

from limiter_service.provider_sim.accounting import Accounting, Stamp, accounting_of
from limiter_service.provider_sim.arrivals import FAULT, ask_of, fault_of, key_of
from limiter_service.provider_sim.dialects import Dialect, Request, openai_responses
from limiter_service.provider_sim.dialects.reading import read_size
from limiter_service.provider_sim.faults.damage import damaged
from limiter_service.provider_sim.faults.notation import Effect, Fault, FaultError
from limiter_service.provider_sim.faults.outages import Outages, Sight
from limiter_service.provider_sim.faults.script import Head, Script, Send, Step
from limiter_service.provider_sim.ledger import Ledger, Visit, shown
from limiter_service.provider_sim.limits import Admitted, Refused, TooLarge
from limiter_service.provider_sim.options import Rules, SimOptions
from limiter_service.provider_sim.playing import Ending, Performance
from limiter_service.provider_sim.problems import BadRequestError, ErrorAnswer, Kind, Problem
from limiter_service.provider_sim.provider import Ask, Call, Provider, Reply
from limiter_service.provider_sim.scripts import JSON, answer_script, error_script, paced

_PAGE = b"<html><head><title>%d</title></head><body><h1>%d</h1></body></html>\n"

# How long a refusal lasts that no limit has asked for.
_FAULT_WAIT = 1.0
_KEPT_RESPONSES = 1000


class Case(msgspec.Struct, frozen=True):
    """One request that was understood."""

    dialect: Dialect
    request: Request
    ask: Ask
    faults: list[Fault]
    visit: Visit


class Server:
    """Holds the provider of the moment, which a reset replaces, and its clocks."""

    def __init__(
        self, options: SimOptions, clock: Callable[[], float], wall: Callable[[], datetime]
    ) -> None:
        self._options = options
        self._wall = wall
        self.clock = clock
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self.began = self.clock()
        self.provider = Provider(self._options)
        self.ledger = Ledger()
        self.outages = Outages(self._options.fault, self._options.seed, self.began)
        self._responses: OrderedDict[str, tuple[Request, Reply]] = OrderedDict()

    def now(self) -> float:
        """The provider's time."""
        return (self.clock() - self.began) * self._options.speed

    async def answer(self, http: HttpRequest, dialect: Dialect) -> Performance:
        """The answer to one call."""
        body = await http.body()
        try:
            case = self._understood(http, dialect, body)
        except BadRequestError as error:
            return self._unread(dialect, key_of(http), error.problem)
        wrong = next((f for f in case.faults if f.effect in {Effect.ERROR, Effect.STATUS}), None)
        if wrong is not None:
            self.provider.fail(case.ask, self.now())
            return self._perform(case, error_script(self._wrong(case, wrong), {}))
        reply = self.provider.answer(case.ask, self.now())
        accounting = accounting_of(case.ask.rules)
        headers = accounting.headers(reply.decision.quotas, self._stamp())
        headers[dialect.REQUEST_ID] = f"req_{reply.identity}"
        if isinstance(reply.decision, Admitted):
            return self._runs(case, reply, headers)
        problem = self._refusal(case, reply.decision)
        if problem.retry_after is not None:
            headers |= _retry_headers(accounting, problem.retry_after, self._options.speed)
        case.visit.refused()
        return self._perform(case, error_script(dialect.error(problem), headers))

    def resumed(self, http: HttpRequest, identity: str) -> Performance:
        """A response of the responses dialect again: a stream from an event on, or whole."""
        dialect: Dialect = openai_responses
        key = key_of(http)
        try:
            query = http.query_params.get("starting_after")
            after = read_size("starting_after", query, least=0)
            request, reply = self._recalled(identity)
            sight = Sight(dialect.NAME, request.model, key)
            faults = self._faults(http, sight)
        except BadRequestError as error:
            return self._unread(dialect, key, error.problem)
        if http.query_params.get("stream") == "true":
            # All of it was generated when it was asked for first.
            left = islice(dialect.frames(request, reply), 0 if after is None else after + 1, None)
            steps: Iterator[Step] = (Send(f.data, 0.0, f.place, f.tokens) for f in left)
            media_type = dialect.STREAM_TYPE
        else:
            steps, media_type = iter([Send(dialect.plain(request, reply), 0.0, tokens=1)]), JSON
        head = Head(status=200, media_type=media_type, headers={})
        visit = self._visit(sight, faults)
        ask = Ask(input_tokens=reply.input_tokens, model=request.model, key=key)
        case = Case(dialect, request, ask, faults, visit)
        return self._perform(case, Script(head=head, steps=steps))

    def _understood(self, http: HttpRequest, dialect: Dialect, body: bytes) -> Case:
        """The request in all its parts. Raises BadRequestError."""
        request = dialect.read_request(body, {**http.query_params, **http.path_params})
        rules = self._options.rules
        ask = ask_of(http, request, dialect.RULES if rules is Rules.AUTO else rules)
        sight = Sight(dialect.NAME, request.model, ask.key)
        faults = self._faults(http, sight)
        return Case(dialect, request, ask, faults, self._visit(sight, faults))

    def _faults(self, http: HttpRequest, sight: Sight) -> list[Fault]:
        try:
            return self.outages.faults(sight, fault_of(http), self.clock())
        except FaultError as error:
            text = f"Invalid value for '{FAULT}': {error}."
            raise BadRequestError(text, FAULT, "invalid_value") from error

    def _visit(self, sight: Sight, faults: list[Fault]) -> Visit:
        self.ledger.faults(str(fault.effect) for fault in faults)
        return self.ledger.visit(key=shown(sight.key), model=sight.model, dialect=sight.dialect)

    def _runs(self, case: Case, reply: Reply, headers: dict[str, str]) -> Performance:
        """The answer of a request that was admitted."""
        call = self.provider.begin(reply, case.ask)
        case.visit.started(reply.input_tokens)
        if case.dialect.NAME == openai_responses.NAME:
            self._responses[openai_responses.response_id(reply)] = (case.request, reply)
            if len(self._responses) > _KEPT_RESPONSES:
                self._responses.popitem(last=False)
        script = answer_script(case.dialect, case.request, reply, headers)
        twin = msgspec.structs.replace(reply, identity=reply.identity[::-1])
        return self._perform(
            case, script, call, lambda: paced(case.dialect.frames(case.request, twin), twin)
        )

    def _perform(
        self,
        case: Case,
        script: Script,
        call: Call | None = None,
        again: Callable[[], Iterator[Step]] = lambda: iter(()),
    ) -> Performance:
        """The script with its faults, as an answer that is counted and settled at its end."""
        status = script.head.status
        if case.faults:
            script = damaged(
                script,
                case.faults,
                dialect=case.dialect,
                problem=self._problem(case, Kind.RATE_LIMIT, _FAULT_WAIT),
                again=again,
            )
        # A reset puts others in their place: this call belongs to those of now.
        provider, ledger = self.provider, self.ledger

        def produced(tokens: int) -> None:
            if call is not None:
                provider.generated(call, tokens, self.now())

        def over(ending: Ending) -> None:
            output = 0 if call is None else call.produced
            if call is not None:
                provider.end(call, self.now(), hung_up=ending is not Ending.SENT)
            ledger.status(status)
            case.visit.ended(ending, status=status, output_tokens=output)

        return self._performance(script, produced, over)

    def _unread(self, dialect: Dialect, key: str, problem: Problem) -> Performance:
        """The answer to what is no request."""
        answer = dialect.error(problem)
        visit = self.ledger.visit(key=shown(key), model="(unread)", dialect=dialect.NAME)
        ledger = self.ledger

        def over(ending: Ending) -> None:
            ledger.status(answer.status)
            visit.ended(ending, status=answer.status, output_tokens=0)

        return self._performance(error_script(answer, {}), lambda _: None, over)

    def _performance(
        self, script: Script, produced: Callable[[int], None], over: Callable[[Ending], None]
    ) -> Performance:
        return Performance(
            script, clock=self.clock, speed=self._options.speed, produced=produced, over=over
        )

    def _refusal(self, case: Case, decision: Refused | TooLarge) -> Problem:
        wait = None
        if isinstance(decision, Refused):
            wait = decision.retry_after / self._options.speed
        kind = Kind.TOO_LARGE if wait is None else Kind.RATE_LIMIT
        model = case.request.model
        return Problem(kind=kind, model=model, refused=decision, retry_after=wait)

    def _problem(self, case: Case, kind: Kind, wait: float | None) -> Problem:
        """An error that no limit and no request has caused."""
        refused = self.provider.refusal(case.ask, wait or _FAULT_WAIT, self.now())
        return Problem(
            kind=kind,
            model=case.request.model,
            refused=refused,
            retry_after=wait,
            input_tokens=case.ask.input_tokens,
        )

    def _wrong(self, case: Case, fault: Fault) -> ErrorAnswer:
        """The answer of a fault that is an error."""
        if fault.effect is Effect.STATUS:
            page = _PAGE % (fault.number, fault.number)
            return ErrorAnswer(status=fault.number, body=page, media_type="text/html")
        accounting = accounting_of(case.ask.rules)
        headers = accounting.headers(self.provider.quotas(case.ask, self.now()), self._stamp())
        wait = fault.retry_after
        if wait is None and fault.kind is Kind.RATE_LIMIT:
            wait = _FAULT_WAIT
        answer = case.dialect.error(self._problem(case, fault.kind, wait))
        if wait is not None:
            headers |= _retry_headers(accounting, wait, self._options.speed)
        headers |= {case.dialect.REQUEST_ID: "req_sim_fault", **answer.headers}
        return msgspec.structs.replace(answer, headers=headers)

    def _recalled(self, identity: str) -> tuple[Request, Reply]:
        found = self._responses.get(identity)
        if found is None:
            text = f"Response with id '{identity}' not found."
            raise BadRequestError(text, "id", kind=Kind.MISSING)
        return found

    def _stamp(self) -> Stamp:
        return Stamp(speed=self._options.speed, date=self._wall())


def _retry_headers(accounting: Accounting, seconds: float, speed: float) -> dict[str, str]:
    """When to come back, in the caller's seconds.

    A provider that tells whole seconds rounds its own: rounded to the caller's, a second would
    last `speed` times too long.
    """
    headers = accounting.retry_headers(seconds)
    if speed != 1 and "retry-after" in headers:
        whole = accounting.retry_headers(seconds * speed)["retry-after"]
        headers["retry-after"] = f"{float(whole) / speed:g}"
    return headers
