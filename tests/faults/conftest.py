"""One trial that several tests look at."""

import pytest
from tests_support.trial.attempts import attempt
from tests_support.trial.scene import Outcome


@pytest.fixture(scope="session")
def ways_and_clock(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One Valkey: all that can befall it, its clock, and the ways to it."""
    faults = (
        "scripts forgotten", "store stopped", "store killed", "way to the store cut",
        "replies of the store lost", "one reply in three lost", "partition from the store",
        "clock forward", "clock back",
    )  # fmt: skip
    return attempt(tmp_path_factory.mktemp("trial"), "standalone", "valkey", *faults)
