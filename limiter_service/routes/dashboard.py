"""GET / and GET /docs: the dashboard and the HTTP API, pages served from the package."""

import hashlib
from functools import cache
from importlib import resources

import msgspec
from fastapi import APIRouter, Request, Response

from limiter_service.door import open_to_all
from limiter_service.engine.refusals import refuse
from limiter_wire import ErrorCode

# The page shows nothing of anybody: it asks for its figures with the key of who looks.
router = APIRouter(include_in_schema=False, dependencies=[open_to_all()])

_RULES = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
POLICY = "; ".join(_RULES)
"""What the page may do: run and show what comes from here, and ask here. No inline script or
style, no markup from text, no frame around it."""

_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class _File(msgspec.Struct, frozen=True):
    body: bytes
    kind: str
    tag: str


@cache
def files() -> dict[str, _File]:
    """Every file of the page by its path below `dashboard/`, read once."""
    return dict(_walk(resources.files("limiter_service") / "dashboard", ""))


def _walk(folder: resources.abc.Traversable, prefix: str) -> list[tuple[str, _File]]:
    found: list[tuple[str, _File]] = []
    for each in folder.iterdir():
        name = prefix + each.name
        if each.is_dir():
            found += _walk(each, f"{name}/")
        else:
            body = each.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found.append((name, _File(body, _kind(each.name), tag)))
    return found


def _kind(name: str) -> str:
    known = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
    known |= {"html": "text/html; charset=utf-8", "svg": "image/svg+xml"}
    return known.get(name.rpartition(".")[2], "text/plain; charset=utf-8")


@router.get("/")
async def page(request: Request) -> Response:
    """The page itself; it holds no figures, and asks for them with the key of who looks."""
    return _answer(request, "index.html")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The HTTP API; the page reads `/openapi.json` with the key of who looks."""
    return _answer(request, "docs.html")


@router.get("/dashboard/{name:path}")
async def part(request: Request, name: str) -> Response:
    """A script, a style sheet, a picture of the page."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    found = files().get(name)
    if found is None:
        raise refuse(ErrorCode.NOT_FOUND, f"the dashboard has no file {name[:200]!r}")
    headers = _HEADERS | {"etag": found.tag}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, headers=headers, media_type=found.kind)
