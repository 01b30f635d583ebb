"""GET /docs: the HTTP API as a page that asks nobody else for anything."""

import re
from typing import Any

import msgspec
import pytest

from limiter_service.openapi import _EXAMPLES, _HOT
from limiter_service.routes.dashboard import POLICY, files


async def test_the_page_and_all_that_it_names_are_served(serve: Any):
    """Under the strict policy, to everybody: what it shows it asks for with a key."""
    client = await serve("pools: {p: {}}")
    page = await client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"] == POLICY
    named = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert {"openapi.json", "dashboard/docs.js", "dashboard/style/docs.css"} <= set(named)
    for name in named:
        assert (await client.get(f"/{name}")).status_code == 200, name


def test_its_modules_import_what_is_there():
    """Each path of an import leads to a file of ours, and none to another host."""
    ours = {"docs.html", "docs.js", "lib/openapi.js", "views/operations.js", "style/docs.css"}
    for name in ours:
        text = files()[name].body.decode()
        assert "://" not in text, name
        folder = name.rpartition("/")[0]
        for path in re.findall(r'from "([^"]+)"', text):
            target = path.removeprefix("./")
            if path.startswith("../"):
                target = path.removeprefix("../")
            elif folder:
                target = f"{folder}/{target}"
            assert target in files(), (name, path)


@pytest.mark.parametrize("path", list(_HOT))
def test_examples_are_bodies_that_are_understood(path: str):
    """What the document shows can be sent as it is."""
    msgspec.convert(_EXAMPLES[path], _HOT[path][0])
