"""What is under way on a channel, without a channel."""

from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from client_sdk import LimiterClosed, RateLimited, ServiceUnavailable, WaitTimeout
from client_sdk._answers import Given
from client_sdk._codec import AcquireOp, Op
from client_sdk._roster import News, NoChannel, Roster, last_word, late
from limiter_wire import ErrorCode, Operation, Waiting, problem

GRANT = {"granted": True, "lease": "L", "expires_in": 600.0, "charged": {}, "limits": []}


def acquire(waits: float = 0.0, **fields: object) -> Op:
    """An acquire, as the codec makes it."""
    named = {"resource": "p/m", "tokens": 1, "request_id": "r"}
    return Op(Operation.ACQUIRE, AcquireOp(**named | fields), waits)  # type: ignore[arg-type]  # as named


def said(roster: Roster, now: float = 0.0) -> list[list[dict[str, Any]]]:
    """The frames of the messages that the roster wants to send."""
    return [msgspec.msgpack.decode(message) for message in roster.take(now)]


def answer(*frames: dict[str, Any]) -> bytes:
    """A message of the service."""
    return msgspec.msgpack.encode(list(frames))


def refusal(name: int, code: ErrorCode) -> dict[str, Any]:
    """A frame that refuses."""
    return {"id": name, **msgspec.to_builtins(problem(code, "no", retry_after=1.0))}


def test_operations_of_one_tick_are_one_message():
    """As many as the service takes in one, in the order in which they came."""
    roster = Roster()
    names = [roster.add(acquire(), Future()) for _ in range(300)]
    messages = said(roster)
    assert [len(message) for message in messages] == [256, 44]
    assert [frame["id"] for message in messages for frame in message] == names
    assert said(roster) == []


@pytest.mark.parametrize(
    ("sent", "unsent", "crowded"),
    [
        (0, 15, False),
        (0, 16, True),
        (16, 16, True),
        (17, 16, False),
        (100, 99, False),
        (9, 20, True),
    ],
)
def test_half_of_what_is_under_way_is_worth_a_message(sent: int, unsent: int, crowded: bool):
    """Where many come together, the first are decided over while the others are being said."""
    roster = Roster()
    for nth in range(sent):
        roster.add(acquire(nth % 2), Future())
    said(roster)
    for _ in range(unsent):
        roster.add(acquire(), Future())
    assert roster.crowded == crowded


def test_messages_stay_below_what_the_service_reads():
    """Large operations travel in several; one that is too large travels elsewhere."""
    roster = Roster()
    for _ in range(10):
        roster.add(acquire(route="x" * 9_000), Future())
    assert [len(message) for message in roster.take(0)] == pytest.approx([45_400, 45_400], rel=0.01)
    large, other = Future[Any](), Future[Any]()
    roster.add(acquire(route="x" * 50_000), large)
    roster.add(acquire(), other)
    assert [len(message) for message in said(roster)] == [1]
    assert isinstance(large.exception(0), NoChannel)
    assert other in roster.waiters()
    assert large not in roster.waiters()


@pytest.mark.parametrize("fields", [{"tokens": object()}, {"route": "\ud800"}, {"tokens": 2**64}])
def test_a_mistake_of_one_caller_is_nobody_elses(fields: dict[str, Any]):
    """Who brings what cannot be encoded is told so; what comes with it is sent all the same."""
    roster, wrong, others = Roster(), Future[Any](), [Future[Any](), Future[Any]()]
    with pytest.raises(Exception) as found:  # whatever it is
        acquire(**fields).frame(1)
    first = roster.add(acquire(), others[0])
    roster.add(acquire(**fields), wrong)
    second = roster.add(acquire(), others[1])
    assert [frame["id"] for message in said(roster) for frame in message] == [first, second]
    assert type(wrong.exception(0)) is found.type
    assert roster.waiters() == others


def test_an_answer_finds_its_caller():
    """In any order; values are values and refusals exceptions."""
    roster = Roster()
    callers = [Future[Any]() for _ in range(3)]
    first, second, third = (roster.add(acquire(), caller) for caller in callers)
    said(roster)
    roster.hear(
        answer({"id": third, "status": 200, **GRANT}, refusal(first, ErrorCode.RATE_LIMITED))
    )
    assert isinstance(callers[2].result(0), Given)
    assert isinstance(callers[0].exception(0), RateLimited)
    assert not callers[1].done()
    roster.forget(second)
    assert roster.idle


def test_one_that_is_told_to_wait_asks_again():
    """202 is an answer: the caller decides when."""
    roster, caller = Roster(), Future[Any]()
    name = roster.add(acquire(waits=9), caller)
    queue = {"depth": 3, "position": 1, "predicted_wait": 2.0, "predicted_wait_p90": 4.0}
    told = {"waiting": True, "request_id": "r", "waited": 1.0, "predicted_wait": 2.0}
    roster.hear(answer({"id": name, "status": 202, **told, "queue": queue}))
    assert isinstance(caller.result(0), Waiting)


def news(name: int, position: int) -> dict[str, Any]:
    """A frame that says where a caller stands."""
    queue = {"depth": 3, "position": position, "predicted_wait": 2.0, "predicted_wait_p90": 4.0}
    told = {"waiting": True, "request_id": "r", "waited": 1.0, "predicted_wait": 2.0}
    return {"id": name, "status": 102, **told, "queue": queue}


def test_news_come_before_the_answer():
    """Each in turn, however late its caller listens; the last word is the answer."""
    roster, caller = Roster(), Future[Any]()
    name = roster.add(acquire(waits=9), caller)
    assert last_word(caller) is None
    roster.hear(answer(news(name, 2), news(name, 1), {"id": name, "status": 200, **GRANT}))
    heard, waiter = [], caller
    while isinstance(told := waiter.result(0), News):
        heard.append(told.waiting.queue.position)
        waiter = told.rest
    assert heard == [2, 1]
    assert isinstance(told, Given)
    assert last_word(caller) is told
    assert roster.idle


def test_news_for_one_that_is_gone_are_no_answer():
    """What comes after them may be a grant, which is given back."""
    roster = Roster()
    name = roster.add(acquire(waits=9), Future())
    said(roster)
    roster.cancel(name)
    said(roster)
    roster.hear(answer(news(name, 1), {"id": name, "status": 200, **GRANT}))
    ((frame,),) = said(roster)
    assert (frame["op"], frame["lease"]) == ("settle", "L")


def test_an_operation_with_a_listener_asks_for_news_instead_of_being_held_shortly():
    """Over HTTP the same operation is asked again and again."""
    op = acquire(waits=9, hold=0.0)
    op.news = lambda _waiting: None
    frame = msgspec.msgpack.decode(op.frame(1))
    assert frame["news"]
    assert "hold" not in frame
    assert msgspec.msgpack.decode(op.body)["hold"] == 0.0


def test_one_that_waits_does_not_hear_that_a_replica_shuts_down():
    """It is repeated on the next connection; what ends soon is told."""
    roster, patient, hasty = Roster(), Future[Any](), Future[Any]()
    names = [roster.add(acquire(waits=9), patient), roster.add(acquire(), hasty)]
    said(roster)
    roster.hear(answer(*(refusal(name, ErrorCode.SHUTTING_DOWN) for name in names)))
    assert not patient.done()
    assert isinstance(hasty.exception(0), ServiceUnavailable)
    roster.lost()
    assert [frame["id"] for frame in said(roster)[0]] == [names[0]]


def test_what_was_under_way_is_repeated_in_order():
    """A lost connection may have lost the question or the answer: nobody knows."""
    roster = Roster()
    names = [roster.add(acquire(waits=waits), Future()) for waits in (9, 0, 9, 0)]
    said(roster)
    roster.cancel(names[2])
    roster.lost()
    assert [frame["id"] for frame in said(roster)[0]] == [names[0], names[1], names[3]]


def test_a_caller_that_is_gone_is_called_off_if_it_was_announced():
    """What was never sent is not mentioned."""
    roster = Roster()
    sent = roster.add(acquire(waits=9), Future())
    said(roster)
    unsent = roster.add(acquire(waits=9), Future())
    roster.cancel(sent)
    roster.cancel(unsent)
    assert said(roster) == [[{"id": sent, "op": "cancel"}]]
    assert roster.idle
    assert not roster.silent
    roster.hear(answer(refusal(sent, ErrorCode.CANCELLED)))
    assert roster.silent


def test_a_grant_for_one_that_is_gone_is_given_back():
    """All of it: nothing was used."""
    roster = Roster()
    name = roster.add(acquire(waits=9), Future())
    said(roster)
    roster.cancel(name)
    said(roster)
    roster.hear(answer({"id": name, "status": 200, **GRANT}))
    ((frame,),) = said(roster)
    assert (frame["op"], frame["lease"], frame["outcome"]) == ("settle", "L", "cancelled")
    assert frame["usage"]["input_tokens"] == 0
    roster.hear(answer({"id": frame["id"], "status": 200, "settled": True}))
    assert roster.silent


def test_a_grant_that_comes_as_its_caller_is_being_cancelled_is_given_back():
    """Its task was cancelled, and has not had its turn: it says so after the grant was heard."""
    roster, caller = Roster(), Future[Any]()
    name = roster.add(acquire(waits=9), caller)
    said(roster)
    caller.cancel()
    roster.hear(answer({"id": name, "status": 200, **GRANT}))
    roster.cancel(name, last_word(caller))
    ((frame,),) = said(roster)
    assert (frame["op"], frame["lease"], frame["outcome"]) == ("settle", "L", "cancelled")
    roster.hear(answer({"id": frame["id"], "status": 200, "settled": True}))
    assert roster.silent


def test_a_grant_for_one_that_asks_again_is_left_alone():
    """The repeat carries the same request id, and gets the same grant."""
    roster, caller = Roster(), Future[Any]()
    name = roster.add(acquire(), caller)
    said(roster, now=1.0)
    assert roster.due(2.0) == 3.0
    assert roster.overdue(2.9, 2.0) is None
    assert roster.overdue(3.0, 2.0) == 1.0
    assert isinstance(caller.exception(0), ServiceUnavailable)
    roster.hear(answer({"id": name, "status": 200, **GRANT}))
    assert said(roster) == []
    assert roster.silent


def test_what_waits_is_never_overdue():
    """Its caller's patience counts, not that for other operations."""
    roster = Roster()
    roster.add(acquire(waits=9), Future())
    said(roster, now=1.0)
    assert (roster.due(2.0), roster.overdue(99.0, 2.0)) == (None, None)


def test_without_a_connection_callers_go_another_way():
    """Those who wait stay, unless the way is blocked for a while."""
    roster, patient, hasty = Roster(), Future[Any](), Future[Any]()
    roster.add(acquire(waits=9), patient)
    roster.add(acquire(), hasty)
    roster.withdraw(NoChannel("gone"), waiting=False)
    assert isinstance(hasty.exception(0), NoChannel)
    assert not patient.done()
    roster.withdraw(NoChannel("blocked", blocked=True), waiting=True)
    assert isinstance(patient.exception(0), NoChannel)
    assert said(roster) == []


def test_closing_tells_those_who_wait():
    """They are called off, and the rest goes on."""
    roster, patient, hasty = Roster(), Future[Any](), Future[Any]()
    name = roster.add(acquire(waits=9), patient)
    roster.add(acquire(), hasty)
    said(roster)
    roster.give_up_waiting()
    assert isinstance(patient.exception(0), LimiterClosed)
    assert roster.waiters() == [hasty]
    assert said(roster) == [[{"id": name, "op": "cancel"}]]


@pytest.mark.parametrize("message", [b"", b"\xc1", b"\x01", b"\x91\x01", b"\x91\x80"])
def test_what_is_no_answer_is_an_error(message: bytes):
    """The connection is of no use then."""
    with pytest.raises(msgspec.MsgspecError):
        Roster().hear(message)


def test_the_patience_of_one_that_waits_ends_as_the_service_would_say():
    """`WaitTimeout`, with the request id."""
    error = late(acquire(waits=9), 2.0)
    assert isinstance(error, WaitTimeout)
    assert (error.request_id, error.code) == ("r", ErrorCode.WAIT_TIMEOUT)


class Traffic(RuleBasedStateMachine):
    """Whatever happens on a channel: each caller is told once, and each lease is somebody's."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.callers: dict[int, Future[Any]] = {}
        self.gone: set[int] = set()
        self.server: dict[int, dict[str, Any]] = {}
        self.leases: set[str] = set()
        self.returned: set[str] = set()

    @rule(waits=st.sampled_from([0.0, 9.0]))
    def add(self, waits: float) -> None:
        """A caller comes."""
        caller = Future[Any]()
        self.callers[self.roster.add(acquire(waits=waits), caller)] = caller

    @rule()
    def flush(self) -> None:
        """What is unsaid reaches the service."""
        for message in said(self.roster):
            for frame in message:
                if frame["op"] == "settle":
                    self.returned.add(frame["lease"])
                    self._tell({"id": frame["id"], "status": 200, "settled": True})
                elif frame["op"] == "acquire":
                    assert frame["id"] not in self.server, "said twice on one connection"
                    self.server[frame["id"]] = frame

    @rule(data=st.data(), grant=st.booleans())
    def decide(self, data: st.DataObject, grant: bool) -> None:
        """The service answers one, in any order."""
        if not self.server:
            return
        name = data.draw(st.sampled_from(sorted(self.server)))
        del self.server[name]
        if not grant:
            self._tell(refusal(name, ErrorCode.RATE_LIMITED))
            return
        self.leases.add(f"L{name}")
        self._tell({"id": name, "status": 200, **GRANT, "lease": f"L{name}"})

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A caller goes."""
        here = [n for n, caller in self.callers.items() if not caller.done()]
        here = [n for n in here if n not in self.gone]
        if here:
            name = data.draw(st.sampled_from(here))
            self.gone.add(name)
            self.roster.cancel(name)

    @rule(data=st.data())
    def inform(self, data: st.DataObject) -> None:
        """The service says where one stands; who is here listens on."""
        if not self.server:
            return
        name = data.draw(st.sampled_from(sorted(self.server)))
        self._tell(news(name, 1))
        told = self.callers[name]
        if name not in self.gone and isinstance(told.result(0), News):
            self.callers[name] = told.result(0).rest

    @rule()
    def lose(self) -> None:
        """The connection breaks; the service hangs up on everybody."""
        self.roster.lost()
        self.server.clear()

    def _tell(self, frame: dict[str, Any]) -> None:
        self.roster.hear(answer(frame))

    @invariant()
    def every_lease_is_somebodys(self) -> None:
        """A caller has it, or it is on its way back."""
        had = {
            caller.result(0).lease
            for name, caller in self.callers.items()
            if name not in self.gone and caller.done() and caller.exception(0) is None
        }
        missing = self.leases - had - self.returned
        on_the_way = {
            op.request.lease
            for op in self.roster._soon.values()
            if op.operation is Operation.SETTLE
        }
        assert missing <= on_the_way

    @invariant()
    def nobody_is_forgotten(self) -> None:
        """Who is here and not told is known."""
        here = [c for n, c in self.callers.items() if n not in self.gone and not c.done()]
        assert set(here) == {w for w in self.roster.waiters() if w in self.callers.values()}


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
