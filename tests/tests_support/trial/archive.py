"""What a trial leaves behind, kept in a directory so that it can be judged again.

The journal of the stores, the diaries of the workers, what the services have logged, the pools
file, and the few facts that stand in none of them.
"""

import shutil
from pathlib import Path

import msgspec

from tests_support.trial import diary, journal, rules
from tests_support.trial.evidence import Evidence

_FACTS, _JOURNAL = "facts.json", "journal"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What only the end of a trial shows: what the store counts and says, what is left of it."""

    pool: str
    plot: str
    scale: int
    count: int
    spent: float
    left: list[str]
    killed: list[str]
    durable: bool
    deaths: bool
    torn: bool


def note(home: Path, facts: Facts) -> None:
    """Write the facts down in the directory of the workers."""
    (home / _FACTS).write_bytes(msgspec.json.encode(facts))


def keep(stores: Path, home: Path, target: Path) -> None:
    """Copy all that there is of the journal in *stores* and the work in *home* to *target*; also
    of a trial that did not come to its end.
    """
    target.mkdir(parents=True, exist_ok=True)
    found = [stores / _JOURNAL, home / _FACTS, home / "pools.yaml"]
    for path in (*found, *sorted(home.glob("*.diary")), *sorted(home.glob("*.log"))):
        if path.exists():
            shutil.copy(path, target)


def read(home: Path) -> Evidence:
    """The evidence in a directory: one of `keep`'s, or that of a trial with its journal."""
    facts = msgspec.json.decode((home / _FACTS).read_bytes(), type=Facts)
    return evidence(facts, home / _JOURNAL, sorted(home.glob("*.diary")))


def evidence(facts: Facts, log: Path, diaries: list[Path]) -> Evidence:
    """All of it together."""
    entries, usual = journal.read(log), (f"{facts.pool}/{rules.USUAL[0]}", rules.USUAL[1])
    return Evidence(
        entries=entries,
        kept=journal.survivors(entries, facts.count),
        calls=diary.read(diaries),
        policies=rules.policies(facts.pool, facts.plot, facts.scale),
        spent=facts.spent,
        left=facts.left,
        killed=frozenset(facts.killed),
        durable=facts.durable,
        deaths=facts.deaths,
        torn=facts.torn,
        usual=usual if rules.PLOTS[facts.plot].prefetch else None,
    )
