"""Ask a running service from the command line."""

import json
import urllib.error
import urllib.request
from enum import StrEnum
from typing import Any

from limiter_service.cli.ending import fail
from limiter_service.settings import api_key_here

_TIMEOUT = 10.0


class Output(StrEnum):
    """How an answer is shown."""

    TABLE = "table"
    JSON = "json"


def ask(
    url: str, path: str, *, key: str | None, method: str = "GET", body: object = None
) -> Any:  # what the route answers
    """The service's answer. Ends the command with 1 when it is a refusal or none at all."""
    headers = {"accept": "application/json", "content-type": "application/json"}
    key = key or api_key_here()
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(  # noqa: S310  # the user's own service
            url.rstrip("/") + path, data=data, method=method, headers=headers
        )
        with _direct().open(request, timeout=_TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        fail(_said(error), 1)
    except (OSError, ValueError) as error:
        fail(f"the service at {url} cannot be reached: {getattr(error, 'reason', error)}", 1)


def _direct() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy between


def _said(error: urllib.error.HTTPError) -> str:
    with error:
        try:
            told = json.load(error)
            return f"{told['code']}: {told.get('detail') or told['title']}"
        except (ValueError, KeyError, TypeError):
            return f"HTTP {error.code} {error.reason}"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell."""
    lines = [heads, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
