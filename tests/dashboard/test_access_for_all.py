"""Keyboards, screen readers, small screens, strict policies."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests_support.browsing import until

PHONE = {"width": 360, "height": 740}


@pytest.fixture
def busy(url: str) -> str:
    """A service of which there is something to tell."""
    with httpx.Client(base_url=url, timeout=20) as client:
        for _ in range(40):
            asked = {"resource": "anthropic/claude-opus-4-1", "tokens": 5}
            answer = client.post("/v1/acquire", json=asked).json()
            if "lease" not in answer:
                break
            report = {"lease": answer["lease"], "outcome": "server_error"}
            client.post("/v1/settle", json=report)
        answer = client.post("/v1/acquire", json={"resource": "openai/gpt-4o", "tokens": 59_900})
        usage = {"input_tokens": 59_000, "output_tokens": 8_000}
        report = {"lease": answer.json()["lease"], "outcome": "success", "usage": usage}
        client.post("/v1/settle", json=report).raise_for_status()
        order = {"mode": "observe", "ttl": 600, "reason": "drill"}
        client.put("/v1/breakers/openai/o4-mini/override", json=order).raise_for_status()
    return url


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/#/resource/openai/gpt-4o"])
def test_axe_finds_nothing(busy: str, open_page: Any, violations: Any, scheme: str, path: str):
    """In both themes, also in what is folded and in dialogs."""
    page = open_page(busy + path, color_scheme=scheme)
    page.get_by_role("heading", name="Events", exact=True).wait_for()
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert violations(page) == []
    page.get_by_role("button", name="Override").first.click()
    page.get_by_role("dialog").get_by_label("Reason").wait_for()
    assert violations(page) == []


def test_axe_finds_nothing_on_a_phone(busy: str, open_page: Any, violations: Any):
    """Where tables have become cards."""
    page = open_page(busy + "/", viewport=PHONE, has_touch=True)
    assert violations(page) == []


def test_nothing_moves_sideways_on_a_phone(
    busy: str, open_page: Any, shot: Callable[..., None], seen: Any
):
    """Everything fits 360 pixels, and what is pressed is large enough for a finger."""
    page = open_page(busy + "/", viewport=PHONE, has_touch=True)
    for path in ("#/", "#/resource/openai/gpt-4o", "#/resource/openai/org/fine-tuned"):
        page.goto(f"{busy}/{path}")
        page.get_by_role("heading", name="Events", exact=True).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    shot(page, "phone-resource")
    page.goto(f"{busy}/#/")
    page.get_by_role("heading", name="Pools", exact=True).wait_for()
    shot(page, "phone-light")
    page.get_by_role("button", name="Override").first.click()
    page.get_by_role("dialog").get_by_label("Reason").wait_for()
    shot(page, "phone-dialog", whole=False)
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    page.keyboard.press("Escape")
    small = page.evaluate(
        "[...document.querySelectorAll('button')].filter(each => each.getBoundingClientRect()"
        ".height < 32 && each.checkVisibility()).map(each => each.ariaLabel ?? each.textContent)"
    )
    assert small == []
    assert seen.complaints == []


def test_all_can_be_done_with_a_keyboard(busy: str, open_page: Any):
    """Skip, go to a part, open an order, leave it, give it; focus is where it was."""
    page = open_page(busy + "/")
    press = page.keyboard.press

    def focused(what: str) -> Any:
        return page.evaluate(f"document.activeElement.{what}")

    def named() -> str:
        found: str = focused("ariaLabel") or focused("textContent")
        return found

    def tab_to(text: str) -> None:
        for _ in range(80):
            press("Tab")
            if focused("localName") in {"a", "button"} and text in named():
                return
        raise AssertionError(f"no Tab leads to {text}")

    press("Tab")
    assert focused("textContent") == "Skip to the figures"
    press("Enter")
    tab_to("claude-opus-4-1 is open")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    tab_to("Breakers")
    press("Enter")
    until(page, lambda: focused("id") == "t-breakers")
    tab_to("Override anthropic/claude-opus-4-1")
    looks = page.evaluate("performance.now()")
    until(page, lambda: page.evaluate("performance.now()") > looks + 2500)  # two updates later
    assert focused("ariaLabel") == "Override anthropic/claude-opus-4-1"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press("Enter")
    page.get_by_role("dialog").wait_for()
    for _ in range(12):
        press("Tab")
        assert page.evaluate("!document.activeElement.closest('main')")
    press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    assert focused("ariaLabel") == "Override anthropic/claude-opus-4-1"
    press("Enter")
    page.get_by_role("radio", name="Closed").focus()
    press("Space")
    press("Tab")
    press("Tab")
    page.keyboard.type("by keyboard")
    press("Enter")
    page.get_by_role("dialog").wait_for(state="detached")
    page.locator(".breakers").get_by_text("held closed").wait_for()


def test_a_screen_reader_hears_what_has_gone_wrong(busy: str, open_page: Any):
    """Once, and not again with every update."""
    page = open_page(busy + "/")
    said = page.get_by_role("status")
    until(page, lambda: "claude-opus-4-1 is open" in said.inner_text())
    page.evaluate("document.getElementById('said').textContent = ''")
    began = page.evaluate("performance.now()")
    until(page, lambda: page.evaluate("performance.now()") > began + 2500)
    assert said.inner_text() == ""


def test_the_policy_lets_nothing_in(url: str, open_page: Any, seen: Any):
    """Neither code nor style from the page itself, nor markup from text, nor a frame around it."""
    page = open_page(url + "/")
    page.evaluate(
        "const script = document.createElement('script');"
        "try { script.textContent = 'globalThis.broken = true' } catch {}"
        "document.body.append(script)"
    )
    page.evaluate("try { document.body.innerHTML = '<b>in</b>' } catch { globalThis.kept = true }")
    page.evaluate("document.body.setAttribute('style', 'opacity: 0.1')")
    assert page.evaluate("[globalThis.broken, globalThis.kept]") == [None, True]
    assert page.evaluate("getComputedStyle(document.body).opacity") == "1"
    assert len(seen.complaints) >= 2
    frame = httpx.get(url + "/").headers
    assert "frame-ancestors 'none'" in frame["content-security-policy"]


def test_the_library_in_the_package_is_whole_and_named():
    """Its file says what it is, and its licence stands beside it."""
    folder = Path(str(resources.files("limiter_service"))) / "dashboard/vendor/uplot-1.6.32"
    head = (folder / "uPlot.iife.min.js").read_text(encoding="utf-8")[:100]
    assert "uPlot (v1.6.32)" in head
    assert "Permission is hereby granted" in (folder / "LICENSE").read_text(encoding="utf-8")
