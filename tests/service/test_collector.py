"""What start-up has made is out of the garbage collector's sight while the service runs."""

import os
import subprocess
import sys

_PROGRAM = """
import gc
before = gc.get_freeze_count(), gc.get_threshold()[0]
from limiter_service.serving import worker_app
worker_app()
print(*before, gc.get_freeze_count(), gc.get_threshold()[0])
"""


def test_the_collector_does_not_walk_through_what_start_up_has_made():
    """A worker process has frozen its modules before it serves, and collects less often."""
    environment = os.environ | {"SLUICEGATE_REDIS_URL": "redis://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    before, often, frozen, seldom = map(int, done.stdout.split())
    assert before == 0
    assert frozen > 50_000  # objects of modules: far more than any call makes
    assert seldom > 10 * often
