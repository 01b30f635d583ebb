"""What an operator orders on the page is done, with a reason, and with a key where one is asked."""

import re
from typing import Any

import httpx
from tests_support.keys import ADMIN, bearer, make


def held(url: str, resource: str = "openai/gpt-4o") -> dict[str, Any] | None:
    """Who holds the circuit of *resource*."""
    with httpx.Client(base_url=url, timeout=20) as client:
        found: dict[str, Any] | None = client.get(f"/v1/breakers/{resource}").json()["override"]
        return found


def test_a_circuit_is_held_and_released(url: str, open_page: Any, seen: Any, shot: Any):
    """For the time and with the reason that were given; the page shows both at once."""
    page = open_page(f"{url}/#/resource/openai/gpt-4o")
    page.get_by_role("button", name="Override openai/gpt-4o").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("refuse every call").click()
    dialog.get_by_label("For").select_option("5 minutes")
    dialog.get_by_label("Reason").fill("drill on Tuesday")
    shot(page, "dialog", whole=False)
    dialog.get_by_role("button", name="Override").click()
    dialog.wait_for(state="detached")
    page.locator(".crumb").get_by_text("held open").wait_for()
    order = held(url)
    assert order is not None
    assert (order["mode"], order["reason"]) == ("open", "drill on Tuesday")
    page.get_by_role("region", name="Events").get_by_text("drill on Tuesday").wait_for()
    page.get_by_role("button", name="Release openai/gpt-4o").click()
    page.get_by_role("dialog").get_by_role("button", name="Release").click()
    page.locator(".crumb").get_by_text("held open").wait_for(state="detached")
    assert held(url) is None
    assert seen.complaints == []


def test_no_order_without_a_reason(url: str, open_page: Any):
    """The form asks for what is missing and sends nothing."""
    page = open_page(f"{url}/#/resource/openai/gpt-4o")
    page.get_by_role("button", name="Override openai/gpt-4o").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("radio", name="Closed").check()
    dialog.get_by_role("button", name="Override").click()
    assert page.evaluate("document.activeElement.name") == "reason"
    assert page.evaluate("document.activeElement.validity.valueMissing")
    assert dialog.is_visible()
    assert held(url) is None


def test_a_refusal_asks_for_an_admin_key_and_keeps_it_in_the_tab(guarded: str, open_page: Any):
    """A key that may look may not act; what was refused has not happened."""
    path = "/v1/breakers/openai/gpt-4o"

    def holder() -> dict[str, Any] | None:
        answer = httpx.get(guarded + path, headers=bearer(ADMIN), timeout=20)
        found: dict[str, Any] | None = answer.json()["override"]
        return found

    looker = make(guarded, "looker", "read")
    page = open_page(f"{guarded}/#/resource/openai/gpt-4o", wait=False)
    page.get_by_label("API key", exact=True).fill(looker)
    page.get_by_role("button", name="Look").click()
    page.get_by_role("button", name="Override openai/gpt-4o").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("refuse every call").click()
    dialog.get_by_label("Reason").fill("drill")
    dialog.get_by_role("button", name="Override").click()
    dialog.get_by_role("alert").get_by_text("takes the role admin").wait_for()
    assert holder() is None
    assert page.evaluate("document.activeElement.name") == "key"
    dialog.get_by_label("Admin key").fill(ADMIN)
    dialog.get_by_role("button", name="Override").click()
    dialog.wait_for(state="detached")
    order = holder()
    assert order is not None
    assert ADMIN.split("_")[1] in order["actor"]
    kept = page.evaluate("[Object.values(sessionStorage), Object.values(localStorage)]")
    assert [sorted(kept[0]), kept[1]] == [sorted([looker, ADMIN]), []]
    assert page.evaluate("document.cookie") == ""
    everything = page.content() + page.url
    assert ADMIN not in everything
    assert looker not in everything


def test_a_circuit_that_has_changed_meanwhile_is_not_held(url: str, open_page: Any):
    """Who orders by an old picture is told to look again."""
    page = open_page(f"{url}/#/resource/openai/gpt-4o")
    page.get_by_role("button", name="Override openai/gpt-4o").click()
    with httpx.Client(base_url=url, timeout=20) as client:
        order = {"mode": "closed", "ttl": 60, "reason": "somebody was faster"}
        path = "/v1/breakers/openai/gpt-4o/override"
        client.put(path, json=order).raise_for_status()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("refuse every call").click()
    dialog.get_by_label("Reason").fill("too late")
    dialog.get_by_role("button", name="Override").click()
    dialog.get_by_role("alert").get_by_text("has changed since you looked").wait_for()
    order = held(url) or {}
    assert order["reason"] == "somebody was faster"


def test_a_limit_is_held_and_released(url: str, open_page: Any, seen: Any):
    """The page shows the value in force and what the file says."""
    page = open_page(f"{url}/#/resource/openai/gpt-4o")
    page.get_by_role("button", name="Hold gpt-4o.tpm to another value").click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_label("Limit").input_value() == "60000"
    dialog.get_by_label("Limit").fill("20000")
    dialog.get_by_label("Reason").fill("half of it is needed elsewhere")
    dialog.get_by_role("button", name="Hold").click()
    dialog.wait_for(state="detached")
    row = page.get_by_role("row").filter(has_text="gpt-4o.tpm")
    row.get_by_text("held at 20,000").wait_for()
    row.get_by_text(re.compile(r"of 20,000$")).wait_for()
    row.get_by_role("button", name="Release gpt-4o.tpm").click()
    page.get_by_role("dialog").get_by_role("button", name="Release").click()
    row.get_by_text(re.compile(r"of 60,000$")).wait_for()
    assert seen.complaints == []
