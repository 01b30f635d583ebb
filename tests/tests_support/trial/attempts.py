"""Trials of a size that a test run can bear."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests_support.gate import has_addresses
from tests_support.servers import BINARIES
from tests_support.trial.scene import Outcome, trial
from tests_support.trial.stores import Clustered, Sentinels, Standalone

Make = Callable[[str, Path], Standalone | Sentinels | Clustered]

TOPOLOGIES: dict[str, Make] = {
    "standalone": lambda binary, home: Standalone(binary, home, 2),
    "sentinel": Sentinels,
    "cluster": Clustered,
}


def attempt(
    home: Path,
    topology: str,
    kind: str,
    *faults: str,
    slips: Mapping[str, str] | None = None,
    durability: str = "fast",
    plot: str = "ordinary",
) -> Outcome:
    """Break servers of one kind, each fault once, and judge what is left."""
    binary = BINARIES[kind]
    if binary is None:
        pytest.skip(f"no {kind}-server is installed")
    for name in ("s", "w"):
        (home / name).mkdir()
    with TOPOLOGIES[topology](binary, home / "s") as stores:
        known: Sequence[str] = faults
        if not stores.clocks.movable:
            known = [name for name in known if not name.startswith("clock ")]
        if not has_addresses():
            known = [name for name in known if not name.endswith(" cut off from its like")]
        return trial(
            stores,
            home / "w",
            seed=1,
            calls=0,
            between=10,
            only=known,
            slips=slips,
            durability=durability,
            plot=plot,
        )
