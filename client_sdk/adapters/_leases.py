"""What adapters of frameworks share: leases that a callback takes and another one settles."""

from collections.abc import Mapping
from typing import Any

from client_sdk import Lease, Provenance, SyncLease, Usage
from client_sdk._shell_async import Aside

AnyLease = Lease | SyncLease

PATIENCE = 600.0
"""Seconds that a framework's limiter waits by default, where the framework says: block."""


def close(lease: AnyLease, usage: Usage | None, error: BaseException | None = None) -> None:
    """Settle *lease* as a block of it would: with *usage*, and what *error* says.

    That of an async limiter is settled beside, in the running loop; closing the limiter waits
    for it.
    """
    if usage is not None:
        lease.account(usage)
    kind = None if error is None else type(error)
    if isinstance(lease, SyncLease):
        lease.__exit__(kind, error, None)
    else:
        Aside().do(lambda: lease.__aexit__(kind, error, None))


def usage_from(figures: Mapping[str, Any] | None) -> Usage | None:
    """Usage from figures by whatever names; None where there are none."""
    if not figures:
        return None
    given = _first(figures, "input_tokens", "prompt_tokens")
    said = _first(figures, "output_tokens", "completion_tokens")
    if given is None and said is None:
        return None
    inputs = _details(figures, "input_token_details", "prompt_tokens_details")
    outputs = _details(figures, "output_token_details", "completion_tokens_details")
    return Usage(
        input_tokens=given or 0,
        output_tokens=said or 0,
        cache_read_tokens=_first(inputs, "cache_read", "cached_tokens") or 0,
        cache_write_tokens=_first(inputs, "cache_creation", "cache_creation_tokens") or 0,
        reasoning_tokens=_first(outputs, "reasoning", "reasoning_tokens") or 0,
        provenance=Provenance.FINAL,
    )


def plain(value: Any) -> Mapping[str, Any]:
    """A foreign object as a mapping of its fields."""
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    found = dump() if callable(dump) else getattr(value, "__dict__", {})
    return found if isinstance(found, Mapping) else {}


def _first(figures: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = figures.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _details(figures: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((plain(figures[name]) for name in names if figures.get(name)), {})
