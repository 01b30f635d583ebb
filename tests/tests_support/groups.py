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
    "tests/monitoring/",
    "tests/docs/test_examples.py",
    "tests/service/test_durability.py",
    "tests/service/test_openapi.py",
    "tests/service/test_operators_cli.py",
)
"""How the ids of such tests begin. (pytest 9.2 knows nothing of marks `xdist_group`.)"""


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # the package has no types
    """Sends a group to one worker, and any other test to whoever is free."""

    def _split_scope(self, nodeid: str) -> Any:
        file = nodeid.partition("::")[0]
        if file.endswith(".md"):  # the blocks of a document share its services
            return file
        return next((group for group in GROUPS if nodeid.startswith(group)), nodeid)

    def remove_node(self, node: Any) -> str | None:
        """The test that broke its worker, if one did; what the worker had not begun is for others.

        (xdist 3.8 deals out again what the worker had finished, too, and waits for it for ever.)
        """
        left = [
            (scope, nodeid)
            for scope, tests in self.assigned_work.pop(node).items()
            for nodeid, done in tests.items()
            if not done
        ]
        for scope, nodeid in left[1:]:
            self.workqueue.setdefault(scope, {})[nodeid] = False
        for other in self.assigned_work:
            self._reschedule(other)
        return left[0][1] if left else None
