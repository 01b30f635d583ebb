"""The dashboard shows what the service says, moves with it, and asks nobody else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from tests_support.browsing import until
from tests_support.service import service_with_store
from tests_support.traffic import traffic

BUSY = ("openai/gpt-4o", "openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5")
DRAWN = """
    document.querySelector('.traffic canvas').getContext('2d')
      .getImageData(0, 0, 900, 300).data.some((each) => each)
"""
HELD = {"mode": "closed", "ttl": 3600, "reason": "provider flaps; errors are accepted"}


def break_circuit(url: str, resource: str) -> None:
    """Report failures of *resource* until its breaker opens."""
    with httpx.Client(base_url=url, timeout=20) as client:
        for _ in range(40):
            answer = client.post("/v1/acquire", json={"resource": resource, "tokens": 10}).json()
            if "lease" not in answer:
                return
            report = {"lease": answer["lease"], "outcome": "server_error"}
            client.post("/v1/settle", json=report)
    raise AssertionError(f"the breaker of {resource} does not open")


def number(text: str) -> float:
    """The first figure of a text."""
    return float(re.sub(r"[^\d.]", "", text.partition(" ")[0]) or "nan")


def test_it_loads_and_asks_nobody_but_the_service(url: str, open_page: Any, seen: Any):
    """No request leaves, nothing complains, and every part is there."""
    page = open_page(url + "/")
    for name in ("Pools", "Queue", "Breakers", "Cost and budgets", "Events", "Acquires"):
        page.get_by_role("heading", name=name, exact=True).wait_for()
    assert {urlsplit(each).netloc for each in seen.requests} == {urlsplit(url).netloc}
    assert seen.complaints == []


QUIET = """
pools:
  p: {models: {"*": {rpm: 60}}}
"""


def test_a_quiet_service_says_that_all_is_quiet(
    browser: Any, tmp_path: Path, open_page: Any, shot: Any, seen: Any
):
    """Parts with nothing to show say so, and how that changes."""
    with service_with_store(tmp_path, QUIET) as (_, url):
        page = open_page(url + "/")
        for text in (
            "Nothing needs attention.",
            "No model was asked for yet.",
            "No resource has a breaker yet.",
            "Nobody waits.",
            "No budget is configured",
            "Nothing happened of late.",
        ):
            page.get_by_text(text).wait_for()
        shot(page, "quiet")
    assert seen.complaints == []


def test_every_limit_has_its_headroom(url: str, open_page: Any):
    """Those of the pool, of each model and of each tenant, each once, in figures of the service."""
    with httpx.Client(base_url=url, timeout=20) as client:
        lease = client.post("/v1/acquire", json={"resource": "openai/gpt-4o", "tokens": 600})
    assert lease.status_code == 200
    page = open_page(url + "/")
    pool = page.get_by_role("article", name="openai")
    assert pool.get_by_role("rowheader", name="daily-cost").count() == 1
    concurrency = pool.get_by_role("row").filter(has_text="concurrency")
    concurrency.get_by_text("1 of 8 in use").wait_for()
    pool.get_by_role("rowheader", name="checkout").wait_for()
    meter = pool.get_by_role("meter", name="openai/gpt-4o gpt-4o.tpm: left")
    assert 98 <= float(meter.get_attribute("aria-valuenow")) <= 100


def test_figures_move_under_the_load_of_the_demo(
    url: str, open_page: Any, shot: Callable[..., None], seen: Any
):
    """Grants, levels, queue, breakers and cost change without a reload."""
    break_circuit(url, "anthropic/claude-opus-4-1")
    with httpx.Client(base_url=url, timeout=20) as client:
        client.put("/v1/breakers/openai/o4-mini/override", json=HELD).raise_for_status()
    page = open_page(url + "/", color_scheme="light")
    granted = page.locator(".tile", has_text="Granted").locator(".value")
    quiet = number(granted.inner_text())
    meter = page.get_by_role("meter", name="openai/gpt-4o gpt-4o.tpm: left")
    before = meter.get_attribute("aria-valuenow")
    with traffic(url, *BUSY):
        until(page, lambda: number(granted.inner_text()) > quiet + 1)
        until(page, lambda: meter.get_attribute("aria-valuenow") != before)
        page.locator(".queue tbody tr").first.wait_for()  # somebody waits, with a forecast
        assert re.search(r"p90 \d", page.locator(".queue tbody tr").first.inner_text())
        page.locator(".costs tbody tr").first.wait_for()
        page.locator(".breakers").get_by_text("held closed").wait_for()
        assert page.evaluate(DRAWN)
        shot(page, "overview-light")
        page.emulate_media(color_scheme="dark")
        shot(page, "overview-dark")
        page.set_viewport_size({"width": 390, "height": 844})
        shot(page, "phone-dark")
        page.emulate_media(color_scheme="light")
        page.goto(f"{url}/#/resource/openai/gpt-4o")
        page.set_viewport_size({"width": 1360, "height": 900})
        page.get_by_role("heading", name="openai / gpt-4o").wait_for()
        page.locator(".limits canvas").wait_for()
        shot(page, "resource-light")
    assert seen.complaints == []


def test_a_resource_has_a_page_and_a_way_back(url: str, open_page: Any, seen: Any, shot: Any):
    """Also one whose model has slashes; the address can be shared, and history works."""
    break_circuit(url, "anthropic/claude-opus-4-1")
    page = open_page(url + "/")
    page.get_by_role("article", name="openai").get_by_role("link", name="org/fine-tuned").click()
    page.get_by_role("heading", name="openai / org/fine-tuned").wait_for()
    assert page.url.endswith("#/resource/openai/org/fine-tuned")
    assert page.evaluate("document.activeElement.id") == "t-resource"
    page.go_back()
    page.get_by_role("heading", name="Pools", exact=True).wait_for()
    page.goto(f"{url}/#/resource/anthropic/claude-opus-4-1")
    breaker = page.get_by_role("region", name="Breaker")
    breaker.get_by_text("server error").first.wait_for()
    page.emulate_media(color_scheme="dark")
    shot(page, "resource-dark")
    page.get_by_role("link", name="Overview", exact=True).click()
    page.get_by_role("heading", name="Pools", exact=True).wait_for()
    assert seen.complaints == []


def test_a_resource_that_nobody_knows_says_so(url: str, open_page: Any):
    """A link may be older than the pools file."""
    page = open_page(f"{url}/#/resource/openai/gone")
    page.get_by_text("No figures of openai/gone").wait_for()


def test_an_open_circuit_needs_attention_and_leaves_a_mark_on_its_timeline(
    url: str, open_page: Any
):
    """What is wrong stands first, links to its place, and is in the title of the tab."""
    break_circuit(url, "anthropic/claude-opus-4-1")
    page = open_page(url + "/")
    attention = page.get_by_role("region", name=re.compile("attention"))
    attention.get_by_role("link", name=re.compile("claude-opus-4-1 is open")).wait_for()
    until(page, lambda: page.title().startswith("("))
    strip = page.get_by_role("img", name=re.compile("claude-opus-4-1: open from"))
    assert strip.locator("rect.open").count() >= 1
    events = page.get_by_role("region", name="Events")
    events.get_by_text("went closed \u2192 open").first.wait_for()


def test_words_of_operators_are_words(url: str, open_page: Any, seen: Any):
    """Markup in a reason is shown, not obeyed."""
    words = "<img src=x onerror=alert(1)><b>bold</b>"
    with httpx.Client(base_url=url, timeout=20) as client:
        order = {"mode": "open", "ttl": 60, "reason": words}
        client.put("/v1/breakers/openai/gpt-4o/override", json=order).raise_for_status()
    page = open_page(url + "/")
    page.get_by_role("region", name="Events").get_by_text(words).wait_for()
    assert page.locator(".events b, .events img").count() == 0
    assert seen.complaints == []
