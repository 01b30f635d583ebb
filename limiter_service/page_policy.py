"""What browsers are told about answers: nothing that is ours may be framed, sniffed or scripted."""

from limiter_service.http import Headers, Scope

_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Of pages: scripts and styles are files of ours, and nothing is loaded from elsewhere."""

_DATA = "default-src 'none'; frame-ancestors 'none'"

NO_SNIFFING = (b"x-content-type-options", b"nosniff")
NOT_KEPT = (b"cache-control", b"no-store")
"""Answers tell of one moment, and one caller."""

_ALWAYS = [
    NO_SNIFFING,
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_SECURE = (b"strict-transport-security", b"max-age=31536000")


def guarded(headers: Headers, scope: Scope) -> Headers:
    """*headers* of an answer, with those that guard it; what is said already stays."""
    said = dict(headers)
    page = said.get(b"content-type", b"").startswith(b"text/html")
    guards = [*_ALWAYS, (b"content-security-policy", (_PAGE if page else _DATA).encode()), NOT_KEPT]
    if scope.get("scheme") == "https":
        guards.append(_SECURE)
    return [*headers, *(guard for guard in guards if guard[0] not in said)]
