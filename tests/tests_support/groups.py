"""Tests that share a fleet of processes run in one process of a test run, one after another."""

from typing import Any

from xdist.scheduler import LoadScopeScheduling

GROUPS = (
    "tests/races/",
    "tests/access/",
    "tests/topologies/",
    "tests/faults/",
    "tests/containers/",
    "tests/lua/test_cluster.py",
)
"""How the ids of such tests begin. (pytest 9.2 knows nothing of marks `xdist_group`.)"""


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # the package has no types
    """Sends a group to one worker, and any other test to whoever is free."""

    def _split_scope(self, nodeid: str) -> Any:
        return next((group for group in GROUPS if nodeid.startswith(group)), nodeid)
