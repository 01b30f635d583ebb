"""The dashboard in a real browser over a real service and a real store.

`scripts/browser.py` has the environment. Elsewhere, and without a Chromium, these tests skip.
"""

import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from tests_support.keys import ADMIN
from tests_support.servers import Server, any_binary
from tests_support.service import ServiceProcess, emptied, service_with_store

SHOTS = Path(__file__).parents[2] / "build/dashboard"
PATIENT = 20_000
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE, PHONE = {"width": 1360, "height": 900}, {"width": 360, "height": 740}
CONFIG = """
pools:
  openai:
    limits:
      - {name: daily-cost, meter: cost_usd, limit: 5, per: day, window: calendar}
    models:
      gpt-4o: {rpm: 500, tpm: 60000, concurrency: 8}
      gpt-4o-mini: {rpm: 5000, tpm: 300000}
      o4-mini: {rpm: 50, tpm: 100000}
      org/fine-tuned: {rpm: 20}
    tenants:
      checkout: {weight: 4, tpm: 100000}
      "*": {tpm: 90000}
    prices:
      "*": {input: 2.5, output: 10}
    queue: {max_waiters: 40, max_wait: 60s}
  anthropic:
    models:
      claude-sonnet-4-5: {rpm: 60, input_tpm: 30000, output_tpm: 8000}
      claude-opus-4-1: {rpm: 50}
    prices:
      "*": {input: 3, output: 15}
"""
BUSY = ("openai/gpt-4o", "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for the run."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is in an environment of its own: make browser"
    )
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium is installed (Debian: chromium)")
    api.expect.set_options(timeout=PATIENT)
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def running(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A store and the URL of a service over it; none where there is no browser to look."""
    with service_with_store(tmp_path_factory.mktemp("dashboard"), CONFIG) as found:
        yield found


@pytest.fixture
def url(running: tuple[Server, str]) -> str:
    """The service, with an empty store."""
    return emptied(running)


@pytest.fixture(scope="module")
def guarded(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that wants keys, and has one of an administrator."""
    home = tmp_path_factory.mktemp("guarded")
    pools = home / "pools.yaml"
    pools.write_text(CONFIG)
    with Server(any_binary(), home) as store:
        arguments = ("--config", str(pools), "--redis-url", store.url)
        with ServiceProcess(*arguments, env={"SLUICEGATE_ADMIN_KEY": ADMIN}) as running:
            yield running.url


class Seen:
    """What a page asked for and complained about."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def watch(self, page: Any) -> None:
        """Listen to *page*."""
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(f"{error}\n{error.stack}"))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


Open = Callable[..., Any]


@pytest.fixture
def seen() -> Seen:
    """What the pages of the test asked for and complained about."""
    return Seen()


@pytest.fixture
def open_page(browser: Any, seen: Seen) -> Iterator[Open]:
    """Open a page in a profile of its own, which waits for the first figures."""
    contexts: list[Any] = []

    def opened(url: str, *, wait: bool = True, **options: object) -> Any:
        context = browser.new_context(
            **{"viewport": WIDE, "reduced_motion": "reduce", "locale": "en-GB"} | options
        )
        contexts.append(context)
        context.set_default_timeout(PATIENT)
        page = context.new_page()
        seen.watch(page)
        page.goto(url)
        if wait:
            page.locator(".chip.live").wait_for()
            page.locator(".summary, .crumb").first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def shot() -> Callable[[Any, str], None]:
    """Leave a picture of a page in build/dashboard."""
    SHOTS.mkdir(parents=True, exist_ok=True)

    def take(page: Any, name: str, *, whole: bool = True) -> None:
        page.screenshot(path=SHOTS / f"{name}.png", full_page=whole)

    return take


@pytest.fixture
def violations() -> Callable[[Any], list[str]]:
    """What axe finds on a page, one line each."""

    def found(page: Any) -> list[str]:
        # Its own markup would be refused by the page's policy.
        if not page.evaluate("'axe' in globalThis"):
            source = resources.files("axe_playwright_python") / "axe.min.js"
            page.evaluate(source.read_text(encoding="utf-8"))
        found = page.evaluate(
            "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES
        )
        return [
            f"{each['id']}: {node['target']} {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]

    return found
