"""The judge goes by the order in which a store made its changes, though clocks say otherwise: by a
few microseconds, and not by more.
"""

import struct
from pathlib import Path

import pytest
from tests_support.trial import journal, rules
from tests_support.trial.evidence import Evidence
from tests_support.trial.verdict import judge

OWN = 5000  # what a tenant may take at once; a fifth of it comes back in a second
OLD, NEW = 1, 2  # servers
LIFE = 60e6


class Log:
    """What servers write of grants to a tenant whose limit is whole in the beginning."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, list[str]()
        self._policies = rules.policies("p", "groups")
        limits = self._policies.policy("p/m2", "small").limits
        self._meters = [limit.meter for limit in limits]

    def grant(self, server: int, nth: int, at: float, tokens: float) -> None:
        """One more, as the *nth* change that the server knows of."""
        charges = [tokens if meter == "tokens" else 1.0 for meter in self._meters]
        head = (nth, 1, LIFE, LIFE, 0, 0, 1, 0, len(charges), *charges)
        lease = struct.pack(f"<{len(head)}d", *head)
        key = f"{len(self._lines):032x}"
        text = (
            f"# JOURNAL {nth} {round(at * 1e6)} acquire {key} . {(bytes(8) + b'G' + lease).hex()}."
        )
        self._lines.append(f"{server}:M 1 Jan 2026 00:00:00.000 {text}")

    def promote(self, server: int) -> None:
        """It is primary from now on."""
        text = "Setting secondary replication ID to a, valid up to b"
        self._lines.append(f"{server}:M 1 Jan 2026 00:00:00.000 # {text}")

    def over(self, count: int) -> list[str]:
        """Which limits are passed, in the eyes of the judge, where so many changes stand."""
        self._path.write_text("\n".join(self._lines) + "\n")
        entries = journal.read(self._path)
        evidence = Evidence(
            entries=entries,
            kept=journal.survivors(entries, count),
            calls=[],
            policies=self._policies,
            spent=0.0,
            durable=False,
            usual=("p/m2", "small"),
        )
        return [text for text in judge(evidence).violations if "is over by" in text]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Nothing has happened yet."""
    return Log(tmp_path / "log")


def test_a_change_that_is_lost_does_not_make_the_next_primary_late(log: Log) -> None:
    """The old one, which was stopped, goes on beside the new one: it has read its clock later, and
    writes earlier. The limit is whole until the new one takes of it.
    """
    log.grant(OLD, 1, 100.0, 1)
    log.promote(NEW)
    log.grant(OLD, 2, 110.000_019, 1)
    log.grant(NEW, 2, 110.0, OWN)
    log.grant(NEW, 3, 110.1, OWN / 50)
    assert log.over(3) == []


def test_a_host_that_sets_its_clock_back_a_little_makes_nobody_late(log: Log) -> None:
    """Scripts let no time go by meanwhile, and go on from there."""
    log.grant(OLD, 1, 100.000_312, OWN)
    log.grant(OLD, 2, 100.0, 0)
    log.grant(OLD, 3, 100.1, OWN / 50)
    assert log.over(3) == []


def test_what_comes_too_early_is_found_beside_it(log: Log) -> None:
    """By twenty microseconds."""
    log.grant(OLD, 1, 100.000_312, OWN)
    log.grant(OLD, 2, 100.0, 0)
    log.grant(OLD, 3, 100.1 - 0.000_02, OWN / 50)
    (found,) = log.over(3)
    assert "small.own is over by 0.02" in found


def test_a_clock_that_is_far_off_is_no_excuse(log: Log) -> None:
    """A store that lets in what comes in a second, a second early."""
    log.grant(OLD, 1, 101.0, OWN)
    log.grant(OLD, 2, 100.0, 0)
    log.grant(OLD, 3, 101.0, OWN / 5)
    assert any("small.own is over by 1000" in text for text in log.over(3))
