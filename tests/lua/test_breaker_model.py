"""The breaker's Lua against a plain Python reference, driven by a state machine."""

import os

import pytest
import redis
from circuits import done, machine, scripts
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

# MODEL_EXAMPLES=2500 compares more than 100,000 steps, and takes minutes.
_EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "40"))


@pytest.mark.timeout(3600)
def test_every_circuit_does_what_the_reference_says(db: redis.Redis) -> None:
    """Admission, reports, leases, overrides, latches, clocks that step back: after every step
    verdict, state, generation, window, probes and events are the reference's.
    """
    done.clear()
    run_state_machine_as_test(
        machine(db, scripts()),
        settings=settings(
            max_examples=_EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.target, Phase.shrink],
        ),
    )
    print(dict(done))  # noqa: T201  # the figures of a long run: pytest -s
