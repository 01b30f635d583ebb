"""The page of the HTTP API: it shows every operation, sends calls, and asks nobody else."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests_support.keys import ADMIN, bearer, make

PHONE = {"width": 360, "height": 740}


@pytest.fixture
def docs(url: str, open_page: Any) -> Any:
    """The page of a service that needs no key."""
    page = open_page(f"{url}/docs", wait=False)
    page.get_by_role("heading", name="HTTP API").wait_for()
    return page


def opened(page: Any, name: str) -> Any:
    """An operation, folded out."""
    found = page.locator("details.operation", has=page.locator(f"summary#{name}"))
    found.locator("summary").first.click()
    return found


def test_every_operation_and_type_is_shown(docs: Any, url: str, seen: Any):
    """With its fields and answers; everything comes from the service itself."""
    document = httpx.get(f"{url}/openapi.json", timeout=20).json()
    paths = {f"{m.upper()} {p}" for p, item in document["paths"].items() for m in item}
    summaries = docs.locator("details.operation > summary:has(.method)").all()
    shown = {
        " ".join((each.locator(".method").inner_text(), each.locator(".path").inner_text()))
        for each in summaries
    }
    assert shown == paths
    acquire = opened(docs, "post-v1-acquire")
    assert acquire.get_by_role("link", name="Granted").count() == 1
    assert "Takes a key with the role acquire" in acquire.inner_text()
    assert "curl -s" in acquire.inner_text()
    acquire.get_by_role("link", name="Acquire", exact=True).click()
    fields = docs.locator("details.operation[open]", has=docs.locator("summary#type-Acquire"))
    assert "max_output_tokens" in fields.inner_text()
    assert all(request.startswith(url) for request in seen.requests)
    assert seen.complaints == []


def test_a_call_is_sent_and_its_answer_is_shown(docs: Any, seen: Any):
    """A body as it stands, a path with a slash in the model, a stream up to its present end."""
    acquire = opened(docs, "post-v1-acquire")
    acquire.get_by_role("button", name="Send POST").click()
    acquire.get_by_text("Status 200").wait_for()
    granted = json.loads(acquire.get_by_label("What was answered").inner_text())
    assert (granted["granted"], granted["charged"]["tokens"]) == (True, 1200)
    view = opened(docs, "get-v1-resources-pool-model")
    view.get_by_label("pool", exact=True).fill("openai")
    view.get_by_label("model", exact=True).fill("org/fine-tuned")
    view.get_by_role("button", name="Send GET").click()
    view.get_by_text("Status 200").wait_for()
    assert "openai/org/fine-tuned" in view.get_by_label("What was answered").inner_text()
    events = opened(docs, "get-v1-events")
    events.get_by_role("button", name="Send GET").click()
    events.get_by_text("Status 200").wait_for()
    assert "retry:" in events.get_by_label("What was answered").inner_text()
    assert seen.complaints == []


def test_a_refusal_is_shown_as_it_is(docs: Any):
    """With its status and its problem."""
    acquire = opened(docs, "post-v1-acquire")
    acquire.get_by_label("Body").fill('{"resource": "nowhere/m", "tokens": 1}')
    acquire.get_by_role("button", name="Send POST").click()
    acquire.get_by_text("Status 404").wait_for()
    assert "unknown_resource" in acquire.get_by_label("What was answered").inner_text()


def test_a_key_is_asked_for_where_one_is_needed(guarded: str, open_page: Any):
    """And sent with the calls; the page itself shows nothing of the service before."""
    key = make(guarded, "reader", "read")
    page = open_page(f"{guarded}/docs", wait=False)
    field = page.get_by_label("API key", exact=True)
    field.wait_for()
    assert page.locator("details.operation").count() == 0
    field.fill(key)
    field.press("Enter")
    page.get_by_role("heading", name="HTTP API").wait_for()
    replicas = opened(page, "get-v1-replicas")
    replicas.get_by_role("button", name="Send GET").click()
    replicas.get_by_text("Status 200").wait_for()
    name = httpx.get(f"{guarded}/v1/replicas", headers=bearer(ADMIN), timeout=20).json()
    assert name["answered_by"] in replicas.get_by_label("What was answered").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_it(
    url: str, open_page: Any, violations: Callable[[Any], list[str]], scheme: str, shot: Any
):
    """Folded out, with an answer."""
    page = open_page(f"{url}/docs", wait=False, color_scheme=scheme)
    acquire = opened(page, "post-v1-acquire")
    acquire.get_by_role("button", name="Send POST").click()
    acquire.get_by_text("Status 200").wait_for()
    opened(page, "type-Acquire")
    opened(page, "delete-v1-keys-key-id")
    shot(page, f"docs-{scheme}", whole=False)
    assert violations(page) == []


def test_it_fits_a_phone(url: str, open_page: Any, shot: Any):
    """Nothing moves sideways."""
    page = open_page(f"{url}/docs", wait=False, viewport=PHONE, has_touch=True)
    opened(page, "post-v1-acquire")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    shot(page, "docs-phone", whole=False)
