"""What `import client_sdk` does not load: whoever only takes leases does not wait for it.

Modules are counted, not milliseconds: the clock of a busy machine says little.
"""

import subprocess
import sys

import pytest

import client_sdk

HEAVY = {
    "click",
    "fastapi",
    "h11",
    "httpcore",
    "httpx",
    "httpx2",
    "limiter_service",
    "openai",
    "opentelemetry",
    "pydantic",
    "redis",
    "rich",
    "websockets",
}
"""Packages: none of their modules."""

LATER = {
    "client_sdk.adapters",
    "client_sdk.llm.results",
    "client_sdk.streaming.accumulator",
    "client_sdk.streaming.dialects",
    "client_sdk.token_weights",
    "limiter_wire.providers",
}
"""Modules of ours that belong to what may never be used."""


def loaded_by(program: str) -> set[str]:
    """Names of the modules of a fresh interpreter that has run *program*."""
    code = f"{program}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def heavy(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] in HEAVY or name in LATER}


@pytest.mark.parametrize(
    "program",
    [
        "import client_sdk",
        "from client_sdk import Limiter, RateLimited; Limiter('http://nowhere')",
        "from client_sdk import SyncLimiter; SyncLimiter('http://nowhere')",
        "from client_sdk import LimiterOptions, RetryPolicy, Usage",
    ],
)
def test_whoever_takes_leases_loads_no_http_client(program: str):
    """No client of HTTP or WebSockets, no framework, nothing that reads answers of models."""
    assert heavy(loaded_by(program)) == set()


def test_what_is_heavy_is_seen():
    """The names above are those under which the modules are loaded."""
    program = "import client_sdk.testing, websockets; client_sdk.Response"
    found = {name.partition(".")[0] for name in heavy(loaded_by(program))}
    assert found >= {"httpx", "websockets", "client_sdk"}


def test_names_that_are_loaded_late_are_all_there():
    """Whatever `__all__` lists can be had, the same each time."""
    assert client_sdk.__all__ == sorted(client_sdk.__all__)
    for name in client_sdk.__all__:
        assert getattr(client_sdk, name) is getattr(client_sdk, name)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = client_sdk.Nothing
