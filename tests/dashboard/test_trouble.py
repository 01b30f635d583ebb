"""When something is wrong the page says what, keeps what it knows, and comes back by itself."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests_support.browsing import until
from tests_support.keys import make, revoke
from tests_support.service import ServiceProcess, service_with_store

CONFIG = """
pools:
  p: {models: {m: {rpm: 60}}}
"""
QUICK = {"SLUICEGATE_CONNECT_TIMEOUT": "2", "SLUICEGATE_COMMAND_TIMEOUT": "2"}


def test_a_service_that_goes_is_missed_and_found_again(
    browser: Any, tmp_path: Path, open_page: Any, shot: Any
):
    """The figures stay, grey, with their age; when it is back so is the page."""
    with service_with_store(tmp_path, CONFIG) as (store, _):
        arguments = ("--config", str(tmp_path / "pools.yaml"), "--redis-url", store.url)
        with ServiceProcess(*arguments) as first:
            url = first.url
            page = open_page(url + "/")
            first.stop()
            page.get_by_role("alert").get_by_text("The service cannot be reached.").wait_for()
            page.get_by_text("disconnected").wait_for()
            assert page.get_by_role("article", name="p").is_visible()
            shot(page, "service-gone")
        with ServiceProcess("--port", str(urlsplit(url).port), *arguments):
            page.get_by_role("button", name="Connect now").click()
            page.locator(".chip.live").wait_for()
            page.get_by_role("alert").wait_for(state="detached")


def test_a_store_that_goes_is_said(browser: Any, tmp_path: Path, open_page: Any, shot: Any):
    """The service is there, so what it knows by itself is shown; the rest is said to be unknown."""
    with service_with_store(tmp_path, CONFIG) as (store, url):
        page = open_page(url + "/")
        page.get_by_role("article", name="p").wait_for()
        store.kill()
        page.get_by_role("alert").get_by_text("The store does not answer.").wait_for()
        page.get_by_text("store lost").wait_for()
        page.get_by_role("region", name="1 thing needs attention").wait_for()
        shot(page, "store-lost")
        store.start()
        page.get_by_role("alert").wait_for(state="detached")
        page.get_by_role("article", name="p").wait_for()


def test_a_service_that_wants_a_key_is_given_one(guarded: str, open_page: Any, shot: Any):
    """The page asks, tells a wrong one, goes on with the right, and is cut off with its end."""
    key = make(guarded, "looker", "read")
    page = open_page(guarded + "/#/queue", wait=False)
    page.get_by_role("heading", name="This service asks for a key").wait_for()
    shot(page, "key-needed")
    page.get_by_label("API key", exact=True).fill("sg_0bad_" + "x" * 43)
    page.get_by_role("button", name="Look").click()
    page.get_by_role("heading", name="This key is not accepted").wait_for()
    page.get_by_label("API key", exact=True).fill(key)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Pools", exact=True).wait_for()
    assert page.evaluate("Object.values(sessionStorage)") == [key]
    assert page.evaluate("localStorage.length") == 0
    revoke(guarded, key)
    page.get_by_role("heading", name="This key is not accepted").wait_for()
    page.get_by_role("button", name="API keys: known. Change").click()
    page.get_by_role("button", name="Forget both").click()
    page.get_by_role("heading", name="This service asks for a key").wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_bound_key_sees_its_own_pool(guarded: str, open_page: Any, seen: Any):
    """And nothing on the page tells of another."""
    key = make(guarded, "team", "read", pools=["anthropic"])
    page = open_page(guarded + "/", wait=False)
    page.get_by_label("API key", exact=True).fill(key)
    page.keyboard.press("Enter")
    page.get_by_role("article", name="anthropic").wait_for()
    assert page.get_by_role("article").count() == 1
    assert "openai" not in page.locator("main").inner_text()


def test_the_theme_is_chosen_once(url: str, open_page: Any):
    """Like the system at first; what was chosen is there after a reload."""
    page = open_page(url + "/", color_scheme="dark")

    def shade() -> int:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return int(colour.removeprefix("rgb(").split(",")[0])

    assert shade() < 60
    page.get_by_role("button", name="Theme: as the system. Change").click()
    until(page, lambda: shade() > 200)
    page.reload()
    page.get_by_role("button", name="Theme: light. Change").click()
    until(page, lambda: shade() < 60)
