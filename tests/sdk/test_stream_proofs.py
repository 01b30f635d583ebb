"""The proofs of the streams, in short: the benchmarks' own bars, over fewer streams."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def prove(*command: str) -> str:
    """What a benchmark prints; it ends well only when its bars are met."""
    words = [sys.executable, "-W", "error", str(BENCHMARKS / command[0]), *command[1:]]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_streams_that_meet_faults_end_as_they_should():
    """Byte-exact or typed, with what arrived; and with recovery on they arrive."""
    found = prove("stream_reliability.py", "--streams", "240", "--no-peers")
    assert "every bar is met" in found


@pytest.mark.timeout(300)
def test_streams_leave_nothing_behind():
    """Broken, cancelled, closed and forgotten, in tasks and in threads."""
    assert "nothing is left" in prove("stream_leaks.py", "--streams", "240")
