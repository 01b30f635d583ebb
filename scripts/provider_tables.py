"""The tables of docs/reference/providers.md, from what the code knows of providers."""

from collections.abc import Iterable, Sequence

from limiter_wire import Outcome
from limiter_wire.providers import AS_OF, PROFILES, Charge, Profile, Shape
from limiter_wire.providers.classifying import TABLES
from limiter_wire.providers.dialects import anybody
from limiter_wire.providers.presets import TIERS
from limiter_wire.providers.rules import Verdict

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def chapters() -> Iterable[tuple[str, str, Table]]:
    """Title, introduction and table of each chapter, in the order of the page."""
    yield "Providers", f"As of {AS_OF}. `provider:` takes the names.", _providers()
    yield "How they count", _COUNT, _charges()
    yield "How their windows behave", _WINDOWS, _shapes()
    yield "What their headers say", _HEADERS, _headers()
    yield "Ceilings by tier", _TIERS, _tiers()
    yield "Error categories", _CATEGORIES, _categories()
    yield "Kinds of errors", _KINDS, _kinds()


_COUNT = (
    "Defaults of `reserve`, `settle` and `weights` for limits on pool and models. Meters that "
    "are not listed behave as without a provider. Assumed is what no provider documents."
)
_WINDOWS = "Defaults of `window` and `burst`, for limits with these periods."
_HEADERS = (
    "What is read from responses. Rounded and unknown (-1) levels are marked, and set nothing."
)
_TIERS = (
    "`tier:` gives them to models that have no limits of their own. Providers change figures "
    "and names within a year: take your account's where you know them."
)
_CATEGORIES = (
    "The outcomes of failed calls, over all providers: whether to retry, what the breaker "
    "makes of it, and what goes back to the budget."
)
_KINDS = "Every finer kind that is told apart, and whose rules tell it: a provider's, or anybody's."


def _providers() -> Table:
    heads = ("Name", "Provider", "Limits are on", "Stream", "Known by", "Remarks")
    return heads, [
        (
            f"`{each.name}`",
            each.title,
            each.limits_on,
            f"`{each.stream}`",
            ", ".join(f"`{host}`" for host in each.hosts)
            or ", ".join(f"port {port}" for port in each.ports),
            each.notes,
        )
        for each in PROFILES.values()
    ]


def _charges() -> Table:
    rows = [
        (
            f"`{profile.name}`",
            f"`{charge.meter}`",
            f"`{charge.reserve or 'by meter'}`",
            f"`{charge.settle}`",
            _weights(charge),
            charge.confidence,
        )
        for profile, charge in _each_charge()
    ]
    return ("Provider", "Meter", "Reserve", "Settle", "Weights", "Basis"), rows


def _each_charge() -> Iterable[tuple[Profile, Charge]]:
    for profile in PROFILES.values():
        for charge in profile.charges:
            yield profile, charge


def _weights(charge: Charge) -> str:
    parts = [f"{name} {weight:g}" for name, weight in charge.weights.items()]
    for pattern, weights in charge.weights_by_model:
        factors = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
        parts.append(f"`{pattern}`: {factors}")
    return "; ".join(parts)


def _shapes() -> Table:
    rows = [
        (
            f"`{profile.name}`",
            ", ".join(f"`{meter}`" for meter in shape.meters),
            ", ".join(shape.periods),
            f"`{shape.window}`",
            _burst(shape),
            shape.confidence,
        )
        for profile in PROFILES.values()
        for shape in profile.shapes
    ]
    return ("Provider", "Meters", "Periods", "Window", "Burst or zone", "Basis"), rows


def _burst(shape: Shape) -> str:
    if shape.burst_seconds is not None:
        return f"{shape.burst_seconds:g} s of the rate, at least 1"
    return shape.timezone if shape.window == "calendar" else ""


def _headers() -> Table:
    heads = ("Provider", "Headers", "Resets", "Retry-After", "Rounded")
    rows = []
    for each in PROFILES.values():
        rounded = ", ".join(f"{name} to {unit}" for name, unit in each.convention.rounded.items())
        after = "never" if not each.retry_after else "after the body's" if each.body_first else ""
        rows.append((f"`{each.name}`", each.headers or "none", each.resets or "", after, rounded))
    return heads, rows


def _tiers() -> Table:
    rows = []
    for provider, tiers in TIERS.items():
        for tier, ceilings in tiers.items():
            for each in ceilings:
                amounts = ", ".join(f"{name} {n:,}" for name, n in each.amounts().items())
                row = (f"`{provider}`", f"`{tier}`", f"`{each.models}`", amounts, each.basis)
                rows.append(row)
    return ("Provider", "Tier", "Models", "Ceilings", "Basis"), rows


def _verdicts() -> Iterable[tuple[str, Verdict]]:
    for rule in anybody.RULES:
        yield "any", rule.verdict
    for name, rules in TABLES.items():
        for rule in rules:
            yield name, rule.verdict


def _categories() -> Table:
    rows = []
    for outcome in Outcome:
        told = [verdict for _, verdict in _verdicts() if verdict.category is outcome]
        if told:
            rows.append(
                (
                    f"`{outcome}`",
                    _words(verdict.retry for verdict in told),
                    _words(verdict.impact for verdict in told),
                    _words(verdict.refund for verdict in told),
                )
            )
    return ("Category", "Retry", "Breaker", "Refund"), rows


def _words(values: Iterable[str]) -> str:
    """Each value once, the most frequent first."""
    seen = list(values)
    return ", ".join(sorted(set(seen), key=lambda value: (-seen.count(value), value)))


def _kinds() -> Table:
    found: dict[tuple[str, str], tuple[list[Verdict], list[str]]] = {}
    for provider, verdict in _verdicts():
        verdicts, providers = found.setdefault((verdict.category, verdict.kind), ([], []))
        verdicts.append(verdict)
        if provider not in providers:
            providers.append(provider)
    order = {str(outcome): i for i, outcome in enumerate(Outcome)}
    rows = [
        (
            f"`{category}`",
            f"`{kind}`",
            _words(verdict.retry for verdict in verdicts),
            _words(verdict.impact for verdict in verdicts),
            _words(verdict.pin or "" for verdict in verdicts),
            ", ".join(providers),
        )
        for (category, kind), (verdicts, providers) in found.items()
    ]
    rows.sort(key=lambda row: order[row[0].strip("`")])
    return ("Category", "Kind", "Retry", "Breaker", "Pins", "Providers"), rows
