"""The code blocks of README and docs are tests (tests/tests_support/documents.py)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser
from tests_support import documents
from tests_support.documents import Services

# Tests, and what they start, meet nobody over TLS but whom they say that they trust. To read the
# certificates of the world takes an HTTP client longer than all its requests.
_NOBODY = Path(__file__).parent / "tests/tests_support/nobody.pem"
os.environ["SSL_CERT_FILE"] = str(_NOBODY)  # noqa: TID251  # of children

# Five seconds are not long on a busy machine.
for _part in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _part, 60.0)  # noqa: SLF001  # no other way

LONG = (
    "tests/lua/test_model.py",
    "tests/lua/test_learning_model.py",
    "tests/lua/test_queue_model.py",
    "tests/simulation/",
    "tests/faults/",
    "tests/sdk/test_stream_proofs.py",
    "tests/service/test_concurrency.py",
)
"""Tests that begin early: one that began last would keep everybody waiting."""

pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser(language="python", evaluator=documents.run_python),
        CodeBlockParser(language="yaml", evaluator=documents.check_yaml),
        CodeBlockParser(language="toml", evaluator=documents.check_toml),
        CodeBlockParser(language="bash", evaluator=documents.run_bash),
        CodeBlockParser(language="json", evaluator=documents.check_json),
    ],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
    fixtures=["services"],
).pytest()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:  # of xdist
    """Which tests run beside which."""
    from tests_support.groups import ByGroup  # noqa: PLC0415  # only where xdist is installed

    return ByGroup(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In random order, but for those that take long."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services as the documents configure them; none is started before a block needs it."""
    running = Services(tmp_path_factory.mktemp("docs"))
    yield running
    running.close()
