"""Ask a running service from the command line."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode, urlsplit

import typer

from limiter_service.cli.ending import REFUSED, WRONG_WORDS, fail
from limiter_service.settings import api_key_here

_TIMEOUT = 10.0
_UNAUTHENTICATED = 401


class Output(StrEnum):
    """How an answer is shown."""

    TABLE = "table"
    JSON = "json"


class Unanswered(Exception):  # what happened
    """The service refused, with a status, or did not answer at all; says why."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


def ask(
    url: str,
    path: str,
    *,
    key: str | None,
    method: str = "GET",
    body: object = None,
    query: Mapping[str, str | None] | None = None,
) -> Any:  # what the route answers
    """The service's answer. Ends the command with 1 when it is a refusal or none at all."""
    try:
        return answer(url, path, key=key, method=method, body=body, query=query)
    except Unanswered as error:
        fail(str(error), REFUSED)


def answer(
    url: str,
    path: str,
    *,
    key: str | None,
    method: str = "GET",
    body: object = None,
    query: Mapping[str, str | None] | None = None,
) -> Any:  # what the route answers
    """The service's answer. Raises Unanswered."""
    given = {name: value for name, value in (query or {}).items() if value}
    asked = f"{path}?{urlencode(given)}" if given else path
    request = asking(url, asked, key=key, method=method, body=body)
    try:
        with opened(request, _TIMEOUT) as found:
            return json.load(found)
    except urllib.error.HTTPError as error:
        raise refused(error) from error
    except (OSError, ValueError) as error:
        raise unreachable(url, error) from error


def asking(
    url: str, path: str, *, key: str | None, method: str = "GET", body: object = None
) -> urllib.request.Request:
    """A request. Ends the command when *url* is none."""
    if urlsplit(url).scheme not in {"http", "https"}:
        fail(f"--url: {url!r} is no address: give it as http://host:port", WRONG_WORDS)
    headers = {"accept": "application/json", "content-type": "application/json"}
    key = key or api_key_here()
    if key:
        headers["authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(  # noqa: S310  # the user's own service
        url.rstrip("/") + path, data=data, method=method, headers=headers
    )


def opened(request: urllib.request.Request, timeout: float) -> Any:  # an open response
    """The response, without a proxy in between."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return direct.open(request, timeout=timeout)


def unreachable(url: str, error: Exception) -> Unanswered:
    """Nobody is there."""
    why = getattr(error, "reason", error)
    return Unanswered(
        f"the service at {url} cannot be reached: {why}; "
        "is it running (sluicegate serve), and is this its address (--url, SLUICEGATE_URL)?"
    )


def refused(error: urllib.error.HTTPError) -> Unanswered:
    """What the service says to a request that it does not serve."""
    with error:
        try:
            told = json.load(error)
            said = f"{told['code']}: {told.get('detail') or told['title']}"
        except (ValueError, KeyError, TypeError):
            said = f"HTTP {error.code} {error.reason}"
    if error.code == _UNAUTHENTICATED:
        said += "; give a key with --api-key or SLUICEGATE_API_KEY"
    return Unanswered(said, error.code)


def show_json(found: object) -> None:
    """An answer as the service gave it."""
    typer.echo(json.dumps(found, indent=2))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    lines = [heads, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
