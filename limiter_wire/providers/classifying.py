"""From an observation to a Failure: body before status, status before headers. Never raises."""

from collections.abc import Iterable, Mapping

from limiter_wire.outcomes import Outcome
from limiter_wire.providers import detection, sizes
from limiter_wire.providers.bodies import Body, Report, read
from limiter_wire.providers.dialects import (
    anthropic,
    anybody,
    azure,
    bedrock,
    cerebras,
    cohere,
    deepseek,
    fireworks,
    google,
    groq,
    llamacpp,
    mistral,
    ollama,
    openai,
    openrouter,
    together,
    vertex,
    vllm,
    xai,
)
from limiter_wire.providers.failures import Backoff, ContextTokens, Failure, Impact, Retry
from limiter_wire.providers.profiles import Profile, lineage, profile
from limiter_wire.providers.ratelimits import Observed, read_limits, reset_of_exhausted
from limiter_wire.providers.rules import Rule, Verdict, Where, find, in_stream, invalid, too_long
from limiter_wire.providers.times import Moment, read_date, read_moment, read_words, window_end

TABLES: dict[str, tuple[Rule, ...]] = {
    "openai": openai.RULES,
    "azure": azure.RULES,
    "anthropic": anthropic.RULES,
    "google": google.RULES,
    "vertex": vertex.RULES,
    "bedrock": bedrock.RULES,
    "mistral": mistral.RULES,
    "groq": groq.RULES,
    "cerebras": cerebras.RULES,
    "xai": xai.RULES,
    "deepseek": deepseek.RULES,
    "cohere": cohere.RULES,
    "together": together.RULES,
    "fireworks": fireworks.RULES,
    "openrouter": openrouter.RULES,
    "ollama": ollama.RULES,
    "vllm": vllm.RULES,
    "sglang": vllm.SGLANG,
    "llamacpp": llamacpp.RULES,
}
"""Each provider's own rules; `anybody.RULES` come after them and their parent's."""

_TOO_LONG_STATUSES = {400, 413, 422, 500}
_SURER_THAN_LENGTH = {Outcome.CONTEXT_LENGTH_EXCEEDED, Outcome.QUOTA_EXHAUSTED, Outcome.AUTH}
_AGAIN = {Retry.YES, Retry.ONCE, Retry.BEFORE_CONTENT, Retry.RESET, Retry.ELSEWHERE}
_BEYOND_WAITING = 3600.0
_ROLLING = {"10 minutes": 600.0}
_MESSAGE = 1000

Headers = Mapping[str, str] | Iterable[tuple[str, str]] | None


def classify(
    provider: str | None = None,
    *,
    status: int | None = None,
    headers: Headers = None,
    body: Body = None,
    stream: bool = False,
    now: float | None = None,
) -> Failure:
    """What a failed call means; never raises, whatever it is given.

    *provider* is a profile's name; without one it is detected. *stream* says that the error
    came inside an answer that began well, as a status of 2xx does. *now* is in Unix seconds,
    for absolute times; without it the response's own `date` serves.
    """
    heads = lowered(headers)
    who = profile(provider if provider is not None else _detected(heads, body))
    clock = now if now is not None else read_date(heads.get("date", ""))
    report = read(body, heads)
    verdict, effective = _verdict(who, status, report, stream=stream)
    limits = read_limits({**report.headers, **heads}, clock, who.convention)
    moment, source = _when(who, verdict, heads, report, limits, clock)
    return Failure(
        provider=who.name,
        category=verdict.category,
        kind=verdict.kind,
        retry=_retry(verdict, heads, report, moment),
        impact=verdict.impact,
        refund=verdict.refund,
        backoff=source,
        pin=verdict.pin,
        retry_after=moment.after,
        retry_at=moment.at,
        status=effective,
        code=report.code[:200],
        message=report.message[:_MESSAGE],
        request_id=report.request_id,
        tokens=_tokens(verdict, report),
        limit=sizes.spent_limit(report.message),
    )


def classify_local(cause: str, provider: str = "generic", detail: str = "") -> Failure:
    """What an error means that was raised here; never raises.

    *cause* names it: an exception of an HTTP client with its text (`ConnectTimeout`,
    `ReadError: 0 bytes`), or what a watchdog or a decoder saw: `eof_without_terminator`,
    `idle_watchdog`, `progress_watchdog`, `bad_json`, `bad_utf8`, `bad_frame`, `html_body`,
    `tool_args_invalid`, `empty_stream`, `cancelled`.
    """
    verdict = find((anybody.RULES,), Where.LOCAL, None, cause, "") or anybody.UNKNOWN
    return Failure(
        provider=profile(provider).name,
        category=verdict.category,
        kind=verdict.kind,
        retry=verdict.retry,
        impact=verdict.impact,
        refund=verdict.refund,
        backoff=verdict.backoff,
        pin=verdict.pin,
        code=cause.partition(":")[0][:200],
        message=(detail or cause)[:_MESSAGE],
    )


def lowered(headers: Headers) -> dict[str, str]:
    """Headers as text by name in lower case; of what is no header, nothing."""
    if headers is None:
        return {}
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return {_plain(name).lower(): _plain(value) for name, value in pairs}


def _plain(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _detected(headers: Mapping[str, str], body: Body) -> str:
    found = detection.detect(headers=headers, body=body)
    return "generic" if found is None else found.provider


def _tables(who: Profile) -> list[tuple[Rule, ...]]:
    return [*(TABLES.get(each.name, ()) for each in lineage(who.name)), anybody.RULES]


def _verdict(
    who: Profile, status: int | None, report: Report, *, stream: bool
) -> tuple[Verdict, int | None]:
    """What the tables say, and the status that counted."""
    begun = stream or status is None or 200 <= status < 300  # noqa: PLR2004  # HTTP's success
    if report.page and begun:
        return _LOCAL_PAGE, status
    if not begun or report.status is not None:
        effective = report.status if report.status is not None else status
        verdict = _of_status(who, effective, report)
        return (in_stream(verdict) if begun and stream else verdict), effective
    if not report.codes and not report.message:
        return anybody.UNKNOWN, status
    found = find(_tables(who), Where.STREAM, status, report.codes, report.message)
    verdict = found or anybody.STREAM_ERROR
    if _about_length(verdict, report):
        verdict = in_stream(too_long())
    return verdict, status


_LOCAL_PAGE = find((anybody.RULES,), Where.LOCAL, None, "html_body", "") or anybody.UNKNOWN


def _of_status(who: Profile, status: int | None, report: Report) -> Verdict:
    found = find(_tables(who), Where.HTTP, status, report.codes, report.message)
    verdict = found or anybody.STATUS_UNKNOWN.get((status or 0) // 100, _NOT_AN_ANSWER)
    if status in _TOO_LONG_STATUSES and _about_length(verdict, report):
        return too_long()
    return verdict


_NOT_AN_ANSWER = invalid("unexpected_status")


def _about_length(verdict: Verdict, report: Report) -> bool:
    return verdict.category not in _SURER_THAN_LENGTH and sizes.says_too_long(report.message)


def _when(
    who: Profile,
    verdict: Verdict,
    headers: Mapping[str, str],
    report: Report,
    limits: list[Observed],
    now: float | None,
) -> tuple[Moment, Backoff]:
    """When to try again, and where that came from."""
    if verdict.retry not in _AGAIN:
        return Moment(), Backoff.NONE
    sources = [
        (_retry_after(headers, now), Backoff.RETRY_AFTER),
        (_body(report, now), Backoff.BODY),
        (_reset(limits), Backoff.HEADER),
    ]
    if who.body_first:
        sources[0], sources[1] = sources[1], sources[0]
    for moment, source in sources:
        if moment is not None:
            return moment, source
    return _window(verdict, now) or Moment(), verdict.backoff


def _retry_after(headers: Mapping[str, str], now: float | None) -> Moment | None:
    text = headers.get("retry-after-ms", "").strip()
    moment = read_moment(f"{text}ms", now) if text else None
    return moment or read_moment(headers.get("retry-after", ""), now)


def _body(report: Report, now: float | None) -> Moment | None:
    moment = read_moment(report.delay, now) if report.delay else None
    return moment or read_words(report.message, now)


def _reset(limits: list[Observed]) -> Moment | None:
    """The reset of the exhausted limit, or of the only one that was told."""
    told = [each for each in limits if each.reset_after is not None or each.reset_at is not None]
    limit = reset_of_exhausted(told)
    if limit is None and len(told) == 1 and told[0].remaining is None:
        limit = told[0]
    return None if limit is None else Moment(limit.reset_after, limit.reset_at)


def _window(verdict: Verdict, now: float | None) -> Moment | None:
    if verdict.span in _ROLLING:
        wait = _ROLLING[verdict.span]
        return Moment(wait, None if now is None else now + wait)
    if not verdict.span or now is None:
        return None
    end = window_end(verdict.span, verdict.zone, now)
    return None if end is None else Moment(end - now, end)


def _retry(verdict: Verdict, headers: Mapping[str, str], report: Report, moment: Moment) -> Retry:
    """The table's word, unless the provider says otherwise about this very request."""
    said = report.retryable
    if "x-should-retry" in headers:
        said = headers["x-should-retry"].strip().lower() == "true"
    if said is False:
        return Retry.NO
    if said and verdict.retry in {Retry.NO, Retry.CHANGED, Retry.ELSEWHERE}:
        return Retry.YES
    throttled = verdict.impact is Impact.THROTTLE and verdict.retry is Retry.YES
    if throttled and moment.after is not None and moment.after >= _BEYOND_WAITING:
        return Retry.RESET  # an hour is no backoff
    return verdict.retry


def _tokens(verdict: Verdict, report: Report) -> ContextTokens | None:
    if verdict.category is Outcome.CONTEXT_LENGTH_EXCEEDED:
        return sizes.context_tokens(report.message, report.fields)
    if verdict.category is Outcome.INVALID_REQUEST:
        return sizes.output_cap(report.message)
    return None
