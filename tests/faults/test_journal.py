"""What a store still knows is told by numbers alone: one that is given twice was lost once."""

from pathlib import Path

import pytest
from tests_support.trial.journal import Entry, read, survivors

KEY = "0" * 32
PROMOTED = "{pid}:M 1 Jan 2026 00:00:00.000 # Setting secondary replication ID to a, valid up to b"


def line(pid: int, nth: int, at: float) -> str:
    """One that a server writes."""
    return f"{pid}:M 1 Jan 2026 00:00:00.000 # JOURNAL {nth} {at * 1e6:.0f} settle {KEY} . 00."


def written(path: Path, *lines: str) -> list[Entry]:
    """What is read of a log with these lines."""
    path.write_text("\n".join(lines) + "\n")
    return read(path)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where it stands."""
    return tmp_path / "log"


def test_all_of_one_server_stands(log: Path) -> None:
    """In the order of its numbers."""
    entries = written(log, *(line(1, n, n) for n in (1, 2, 3)))
    assert survivors(entries, 3) == {0, 1, 2}


def test_what_a_failover_has_lost_does_not_stand(log: Path) -> None:
    """The next primary goes on from what it had heard of."""
    old = [line(1, n, n) for n in (1, 2, 3, 4)]
    new = [PROMOTED.format(pid=2), line(2, 3, 5.0), line(2, 4, 6.0)]
    assert survivors(written(log, *old, *new), 4) == {0, 1, 4, 5}


def test_what_was_never_answered_for_does_not_stand(log: Path) -> None:
    """The last change of a server that died before it was on its disk."""
    entries = written(log, line(1, 1, 1.0), line(1, 2, 2.0))
    assert survivors(entries, 1) == {0}


def test_who_does_not_know_that_its_term_is_over_changes_nothing(log: Path) -> None:
    """It was stopped, another was named, and it goes on."""
    lines = [line(1, 1, 1.0), PROMOTED.format(pid=2), line(2, 2, 2.0), line(1, 2, 2.1)]
    entries = written(log, *lines, line(2, 3, 3.0))
    assert survivors(entries, 3) == {0, 1, 3}


def test_a_primary_that_is_named_again_begins_a_new_term(log: Path) -> None:
    """What it lost in the last one stays lost, though the server is the same."""
    lines = [line(1, 1, 1.0), line(1, 2, 2.0), PROMOTED.format(pid=2), line(2, 2, 3.0)]
    entries = written(log, *lines, PROMOTED.format(pid=1), line(1, 3, 4.0))
    assert survivors(entries, 3) == {0, 2, 3}


def test_a_number_that_nobody_has_written_is_missed(log: Path) -> None:
    """The journal is not whole."""
    with pytest.raises(LookupError):
        survivors(written(log, line(1, 1, 1.0), line(1, 3, 3.0)), 3)


def test_a_step_of_the_clock_is_taken_off_again(log: Path) -> None:
    """Also of what had read the clock before the step and was written down after it."""
    lines = [line(1, 1, 100.0), "CLOCK 1 8000000", line(1, 2, 100.01), line(1, 3, 109.0)]
    entries = written(log, *lines, "CLOCK 1 -2000000", line(1, 4, 100.0))
    assert [round(entry.at, 2) for entry in entries] == [100.0, 100.01, 101.0, 102.0]
    assert [entry.ahead for entry in entries] == [0.0, 0.0, 8.0, -2.0]


def test_all_of_one_call_read_the_clock_once(log: Path) -> None:
    """Many are decided in one call, which had read it before the step."""
    lines = [line(1, 1, 100.0), "CLOCK 1 8000000", line(1, 2, 100.01), line(1, 3, 100.01)]
    entries = written(log, *lines, line(1, 4, 109.0))
    assert [round(entry.at, 2) for entry in entries] == [100.0, 100.01, 100.01, 101.0]
