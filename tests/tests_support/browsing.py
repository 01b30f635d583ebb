"""What tests of the dashboard ask of a page."""

import time
from collections.abc import Callable
from typing import Any

_PATIENCE = 20.0


def until(page: Any, reached: Callable[[], bool]) -> None:
    """Return when *reached*; the page goes on meanwhile. Its policy forbids what Playwright's own
    wait_for_function does, which makes code of text.
    """
    deadline = time.monotonic() + _PATIENCE
    while not reached():
        assert time.monotonic() < deadline, "it does not come to that"
        page.wait_for_timeout(50)
