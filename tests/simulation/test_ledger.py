"""What the ledger forgives when a failover loses what came back, who is late, and when the
clock steps back; and no more.
"""

import struct

import pytest
from tests_support.ledger import ALONE, Broken, Ledger, Ran
from tests_support.scripts import POOL

from limiter_service.config import parse
from limiter_service.engine.policy import Policies

_TAG = bytes(8)
_LIFE = 60e6


class Book:
    """A ledger over one limit of 100 in ten seconds, and the journal that it reads."""

    def __init__(self, window: str = "bucket", late: float = 0.0, *, torn: bool = False) -> None:
        limit = f"{{name: t, meter: tokens, limit: 100, per: 10s, window: {window}}}"
        config = f"pools: {{{POOL}: {{limits: [{limit}], models: {{m: {{}}}}}}}}"
        policy = Policies(parse(config, ".yaml"), "sg:").policy(f"{POOL}/m", "a")
        self._ledger = Ledger(
            dict.fromkeys("abcd", policy), 1.0, 1, torn=torn, late=late, refusals=True
        )
        self._journal: list[Ran] = []

    def grant(self, at: float, key: str, amount: float, name: str = "acquire") -> None:
        """A grant is made."""
        self._ran(at, name, key, b"", self._lease(key, amount))

    def deny(self, at: float, key: str, amount: float) -> None:
        """There is not so much, says the store."""
        request = struct.pack("<10d", ord(key), 1, _LIFE, _LIFE, 0, 0, 1, 0, 1, amount)
        self._ran(at, "acquire", key, request, b"D" + struct.pack("<2d", 1, 1e6))

    def end(self, at: float, key: str, moved: float) -> None:
        """A replica hears of the end of a call, without the store."""
        self._ran(at, "ended", key, struct.pack("<d", moved), b"")

    def step(self, at: float, seconds: float) -> None:
        """The store's clock steps."""
        self._ledger.step(seconds, at)

    def alone(
        self,
        at: float,
        key: str,
        amount: float,
        *,
        by: int = 1,
        of: int = 1,
        since: float = 0.0,
        looked: float | None = None,
        unseen: bool = False,
    ) -> None:
        """A replica grants without the store, by its share of what it has seen."""
        seen = at if looked is None else looked
        said = ALONE.pack(by, since, seen, of, unseen)
        self._ran(at, "alone", key, said, self._lease(key, amount))

    def charge(self, at: float, key: str, amount: float, answer: bytes = b"G") -> None:
        """What was granted alone is charged."""
        request = struct.pack("<11d", ord(key), 1, _LIFE, _LIFE, 0, 0, 1, 0, 1, amount, amount)
        self._ran(at, "charge", key, request, answer)

    @property
    def owing(self) -> list[str]:
        """What is to be charged."""
        return list(self._ledger.owing)

    def settle(self, at: float, key: str, held: float, used: float) -> None:
        """A report is taken in."""
        request = struct.pack("<8d", 0, 0, 0, 4, 0, 0, 0, used)
        self._ran(at, "settle", key, request, b"G" + struct.pack("<d", used - held))

    def repay(self, at: float, key: str, stays: float) -> None:
        """Of a block stays so much, and its calls go on."""
        self._ran(at, "repay", key, struct.pack("<5d", 0, 0, 0, 1, stays), b"G")

    def renew(self, at: float, key: str, used: float) -> None:
        """It lives on, and has used so much."""
        self._ran(at, "renew", key, struct.pack("<4d", 0, 0, _LIFE, used), b"G")

    def cancel(self, at: float, key: str) -> None:
        """A grant is taken back."""
        self._ran(at, "cancel", key, b"", b"R")

    def fetch(self, at: float, key: str) -> None:
        """Whoever has waited has heard of it."""
        self._ran(at, "enqueue", key, b"", b"R")

    def lose(self, at: float, lost: int) -> None:
        """The store forgets so many of the last entries."""
        self._ledger.lose(self._journal, len(self._journal) - lost, at)

    def _lease(self, key: str, amount: float) -> bytes:
        return b"G" + struct.pack("<10d", ord(key), 1, _LIFE, _LIFE, 0, 0, 1, 0, 1, amount)

    def _ran(self, at: float, name: str, key: str, request: bytes, answer: bytes) -> None:
        self._journal.append(Ran(at, name, key, request, _TAG + answer))
        self._ledger.read(self._journal)


def _nothing_more(book: Book, at: float) -> None:
    with pytest.raises(Broken, match="over by"):
        book.grant(at, "d", 5)


def test_what_came_back_with_a_cancel_that_is_lost_comes_back_with_the_next() -> None:
    """It was full when it came back at first, and is not when it comes back again."""
    book = Book()
    book.grant(0.0, "a", 60, "pass")
    book.cancel(10.0, "a")
    book.lose(10.5, 1)
    book.grant(11.0, "b", 100)
    book.cancel(11.0, "a")
    book.grant(11.0, "c", 60)
    _nothing_more(book, 11.0)


def test_what_came_back_with_a_report_that_is_lost_comes_back_with_the_next() -> None:
    """Of a settle as of a cancel, and after a second failover too."""
    book = Book()
    book.grant(0.0, "a", 60)
    book.settle(10.0, "a", 60, 10)
    book.lose(10.5, 1)
    book.settle(10.6, "a", 60, 10)
    book.lose(10.7, 1)
    book.grant(11.0, "b", 100)
    book.settle(11.0, "a", 60, 10)
    book.grant(11.0, "c", 50)
    _nothing_more(book, 11.0)


def test_what_has_come_back_and_is_not_forgotten_does_not_come_back_again() -> None:
    """A cancel that the failover has kept is done."""
    book = Book()
    book.grant(0.0, "a", 60, "pass")
    book.cancel(10.0, "a")
    book.lose(10.5, 0)
    book.grant(11.0, "b", 100)
    book.cancel(11.0, "a")
    _nothing_more(book, 11.0)


@pytest.mark.parametrize("window", ["bucket", "sliding"])
@pytest.mark.parametrize("by", ["settle", "renew"])
def test_a_debt_that_a_failover_loses_is_lost_however_deep_it_was(window: str, by: str) -> None:
    """The limit may be whole again, and what of the debt is older than the loss still counts."""

    def told(lost: int) -> Book:
        book = Book(window)
        book.grant(0.0, "a", 100)
        if by == "settle":
            book.settle(0.0, "a", 100, 180)
        else:
            book.renew(0.0, "a", 180)
        book.lose(0.0, lost)
        return book

    book = told(2)
    book.grant(0.0, "b", 100)
    _nothing_more(book, 0.0)
    _nothing_more(told(1), 0.0)
    with pytest.raises(Broken, match="t is over by 85 "):
        told(0).grant(0.0, "b", 5)
    twice = told(2)
    twice.grant(0.0, "b", 100)
    twice.lose(0.0, 1)
    twice.grant(0.0, "c", 100)
    _nothing_more(twice, 0.0)


def test_a_debt_that_is_paid_before_a_failover_is_not_lost_with_it() -> None:
    """Then no more than the limit may be granted again."""
    book = Book("sliding")
    book.grant(0.0, "a", 100)
    book.renew(0.0, "a", 180)
    book.settle(0.0, "a", 180, 0)
    book.lose(0.0, 3)
    book.grant(0.0, "b", 100)
    book.grant(0.0, "c", 100)
    _nothing_more(book, 0.0)


def test_a_grant_whose_cancel_is_lost_stands_though_it_was_granted_again_in_between() -> None:
    """The first stands again, and comes back again; also when the second has come back too."""
    for lost in (2, 3):
        book = Book()
        book.grant(0.0, "a", 60, "pass")
        book.cancel(10.0, "a")
        book.grant(10.1, "a", 60, "pass")
        if lost > 2:
            book.cancel(10.2, "a")
        book.lose(10.5, lost)
        book.grant(20.7, "b", 100)
        book.cancel(20.7, "a")
        book.grant(20.7, "c", 60)
        _nothing_more(book, 20.7)


def test_a_grant_whose_cancel_is_lost_may_be_fetched() -> None:
    """It counts again, and what it holds is forgiven: the store has not taken it twice."""
    book = Book()
    book.grant(0.0, "a", 60, "pass")
    book.cancel(0.0, "a")
    book.lose(0.0, 1)
    book.fetch(0.0, "a")
    book.grant(0.0, "b", 40)
    book.settle(0.0, "a", 60, 20)
    book.grant(0.0, "c", 40 + 60)
    _nothing_more(book, 0.0)


@pytest.mark.parametrize("heard", [False, True])
def test_what_a_replica_has_granted_too_is_charged_when_a_failover_loses_that_the_store_had(
    heard: bool,
) -> None:
    """Once, for a caller who had not heard the store."""
    book = Book(torn=True)
    book.grant(0.0, "a", 60)
    book.alone(0.5, "a", 60)
    if heard:
        book.charge(0.5, "a", 60, b"R")
    book.lose(1.0, 3 if heard else 2)
    assert book.owing == ([] if heard else ["a"])
    book.charge(1.5, "a", 60)
    assert book.owing == []
    with pytest.raises(Broken, match="a was charged twice"):
        book.charge(1.6, "a", 60)
    other = Book(torn=True)
    other.grant(0.0, "a", 60)
    other.lose(1.0, 1)
    with pytest.raises(Broken, match="never granted"):
        other.charge(1.5, "a", 60)


def test_whoever_is_late_forgets_what_is_a_period_old_by_so_much_sooner() -> None:
    """Of a sliding window nothing refills, and its period ends sooner."""
    book = Book("sliding", late=0.1)
    book.alone(0.0, "a", 100)
    book.alone(9.95, "b", 100)
    with pytest.raises(Broken, match="over by 5 "):
        book.alone(9.96, "c", 5)
    sooner = Book("sliding", late=0.1)
    sooner.alone(0.0, "a", 100)
    with pytest.raises(Broken, match="over by 5 "):
        sooner.alone(9.8, "b", 5)


def test_nobody_is_refused_what_is_there() -> None:
    """Half of what was taken has come again."""
    book = Book()
    book.grant(0.0, "a", 100)
    book.deny(5.0, "b", 60)
    with pytest.raises(Broken, match=r"10 of .* are there"):
        book.deny(5.0, "b", 40)


def test_a_clock_that_steps_back_takes_the_time_until_it_is_seen_and_no_more() -> None:
    """From the first refusal on the store counts again."""
    book = Book()
    book.grant(0.0, "a", 90)
    book.deny(0.5, "b", 30)  # which writes nothing: all since the grant is lost
    book.step(1.0, -30.0)
    book.deny(7.0, "b", 20)
    book.deny(8.0, "b", 30)
    with pytest.raises(Broken, match=r"10 of .* are there"):
        book.deny(9.0, "c", 20)


def test_what_comes_back_of_a_sliding_window_comes_back_once() -> None:
    """Also of a call that has taken more by a renewal."""
    book = Book("sliding")
    book.grant(0.0, "a", 50)
    book.renew(1.0, "a", 60)
    book.settle(2.0, "a", 60, 20)
    book.grant(3.0, "b", 80)
    _nothing_more(book, 3.0)


def test_a_sliding_window_refuses_nobody_what_left_it_a_slot_ago() -> None:
    """What was taken counts for a period and a slot, and for longer where the clock steps back."""
    book = Book("sliding")
    book.grant(0.0, "a", 50)
    book.deny(10.1, "b", 60)
    with pytest.raises(Broken, match=r"40 of .* are there"):
        book.deny(10.2, "b", 60)
    behind = Book("sliding")
    behind.grant(0.0, "a", 50)
    behind.step(1.0, -30.0)
    behind.grant(11.0, "b", 50)
    behind.deny(21.1, "c", 60)
    with pytest.raises(Broken, match=r"40 of .* are there"):
        behind.deny(21.2, "c", 60)


def test_what_a_block_uses_beyond_a_report_that_is_lost_counts_from_its_grant() -> None:
    """As far as it is of what had come back: the store has never seen it come back."""
    book = Book("sliding")
    book.grant(0.0, "a", 60, "lend")
    book.repay(1.0, "a", 40)
    book.lose(1.5, 1)
    book.repay(2.0, "a", 45)
    book.grant(3.0, "b", 55)
    book.grant(10.2, "c", 45)
    _nothing_more(book, 10.2)
    seen = Book("sliding")
    seen.grant(0.0, "a", 60, "lend")
    seen.repay(1.0, "a", 40)
    seen.repay(2.0, "a", 45)
    seen.grant(3.0, "b", 55)
    with pytest.raises(Broken, match="t is over by 5 "):
        seen.grant(10.2, "c", 45)


def test_what_comes_back_is_of_the_grant_that_the_store_knows() -> None:
    """A failover has lost the first, and the same request was granted again."""
    book = Book("sliding")
    book.grant(0.0, "a", 50, "pass")
    book.lose(8.0, 1)
    book.grant(9.0, "a", 50, "pass")
    book.cancel(12.0, "a")
    book.grant(12.0, "b", 100)


def test_what_a_call_uses_beyond_is_known_to_its_own_replica_alone() -> None:
    """Another goes on granting its share."""
    book = Book("sliding")
    book.alone(0.0, "a", 50, by=1, of=2)
    book.end(1.0, "a", 7)
    book.alone(2.0, "b", 50, by=2, of=2)
    with pytest.raises(Broken, match="t is over by 5 "):
        book.alone(2.0, "c", 5, by=2, of=2)


@pytest.mark.parametrize("window", ["bucket", "sliding"])
def test_what_a_call_has_not_used_comes_back_to_its_own_replica_once_it_has_heard(
    window: str,
) -> None:
    """Though another has told the store before: others never had that share."""
    book = Book(window, torn=True)
    book.alone(0.0, "a", 50, by=1, of=2)
    book.charge(0.0, "a", 50)
    book.settle(0.0, "a", 50, 10)
    with pytest.raises(Broken, match=r"a share of p\.t is over by 40 "):
        book.alone(0.0, "b", 40, by=1, of=2)
    heard = Book(window, torn=True)
    heard.alone(0.0, "a", 50, by=1, of=2)
    heard.charge(0.0, "a", 50)
    heard.settle(0.0, "a", 50, 10)
    heard.end(0.0, "a", -40)
    heard.alone(0.0, "b", 40, by=1, of=2)
    heard.grant(0.0, "c", 50)
    with pytest.raises(Broken, match=r"a share of p\.t is over by 5 "):
        heard.alone(0.0, "d", 5, by=1, of=2)


@pytest.mark.parametrize("by", ["settle", "renew"])
def test_what_a_call_of_the_store_uses_beyond_is_unknown_to_whoever_has_looked_before(
    by: str,
) -> None:
    """Also when that one has granted alone before; but not to one that has looked since."""

    def told(looked: float) -> Book:
        book = Book("sliding", torn=True)
        book.alone(0.0, "a", 10, of=2, looked=0.0)
        book.charge(0.5, "a", 10)
        book.grant(1.0, "b", 90)
        if by == "settle":
            book.settle(1.5, "b", 90, 93)
        else:
            book.renew(1.5, "b", 93)
        book.alone(2.0, "c", 5, of=2, looked=looked)
        return book

    book = told(0.0)
    _nothing_more(book, 2.0)
    with pytest.raises(Broken, match="t is over by 8 "):
        told(1.6)


def test_who_is_alone_again_before_it_has_looked_may_grant_what_others_have_taken_since() -> None:
    """Once, and not who has been alone all the time."""

    def told() -> Book:
        book = Book("sliding")
        book.alone(1.0, "a", 10, by=1, of=2, since=1.0, looked=0.0)
        book.charge(2.0, "a", 10)
        book.grant(3.0, "b", 90)
        return book

    book = told()
    book.alone(3.5, "c", 50, by=2, of=2, since=3.5, looked=0.0)
    with pytest.raises(Broken, match=r"p\.t is over by 5 "):
        book.alone(3.6, "d", 55, by=1, of=2, since=3.6, looked=0.0)
    book = told()
    with pytest.raises(Broken, match=r"p\.t is over by 5 "):
        book.alone(3.5, "c", 5, by=1, of=2, since=1.0, looked=0.0)


@pytest.mark.parametrize("window", ["bucket", "sliding"])
def test_whoever_has_looked_before_a_debt_was_made_grants_what_it_saw(window: str) -> None:
    """All of its limit, though calls have used far more since; and no more than that."""
    book = Book(window)
    book.grant(1.0, "a", 100)
    book.renew(1.0, "a", 180)
    book.alone(1.0, "b", 100, since=1.0, looked=0.0)
    _nothing_more(book, 1.0)


def test_a_replica_that_has_never_seen_a_debt_begins_with_nothing() -> None:
    """What comes with time is its own; who has seen the debt waits until it is paid."""
    for unseen in (True, False):
        book = Book()
        book.grant(0.0, "a", 100)
        book.settle(0.0, "a", 100, 140)
        if not unseen:
            with pytest.raises(Broken, match="t is over by 25 "):
                book.alone(3.0, "b", 15, of=2)
            continue
        book.alone(3.0, "b", 15, of=2, unseen=True)
        book.alone(7.0, "c", 20, of=2, unseen=True)
        with pytest.raises(Broken, match=r"a share of p\.t is over by 5 "):
            book.alone(7.0, "d", 5, of=2, unseen=True)


def test_a_debt_is_forgiven_those_who_have_not_seen_it_once() -> None:
    """However many they are, the others have what there is, and no more."""
    book = Book()
    book.grant(0.0, "a", 100)
    book.settle(0.0, "a", 100, 140)
    book.alone(3.0, "b", 15, by=1, of=2, unseen=True)
    book.alone(3.0, "c", 15, by=2, of=2, unseen=True)
    with pytest.raises(Broken, match="t is over by 5 "):
        book.alone(3.0, "d", 5, by=3, of=2)


@pytest.mark.parametrize("window", ["bucket", "sliding"])
def test_a_share_of_what_was_never_seen_is_no_full_one(window: str) -> None:
    """Though all of the limit is there."""
    book = Book(window)
    with pytest.raises(Broken, match=r"a share of p\.t is over by"):
        book.alone(1.0, "a", 11, unseen=True)
