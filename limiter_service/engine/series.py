"""What happened step by step, from the slots of a ring in the store. Pure."""

from collections.abc import Iterable, Sequence

from limiter_service.engine import counting
from limiter_service.engine.counting import MODEL, POOL, REFUSED
from limiter_service.engine.figures import with_rest
from limiter_service.store.count_commands import Counts, What
from limiter_wire import SeriesStats

_MICRO = 1_000_000
_Sums = dict[What, float]


def series(found: Sequence[tuple[str, Counts]]) -> tuple[list[float], list[SeriesStats]]:
    """When each step has begun, in seconds since 1970, and what every resource of the pools did in
    it; where nothing was counted, zeros. A resource without anything is left out.
    """
    numbers: set[int] = set()
    for _, counts in found:
        numbers.update(range(counts.newest - counts.slots + 1, counts.newest + 1))
    # Pools that were read before and behind the begin of a slot differ by one.
    steps = sorted(numbers)[-max((counts.slots for _, counts in found), default=0) :]
    width = max((counts.width for _, counts in found), default=0.0)
    resources = [
        _of_resource(f"{pool}/{model}", slots, steps)
        for pool, counts in found
        for model, slots in sorted(_models(counts).items())
    ]
    return [number * width for number in steps], resources


def _models(counts: Counts) -> dict[str, dict[int, _Sums]]:
    """Slots of each model; of all that have no place of their own under `*`."""
    wholes: dict[int, _Sums] = {}
    parts: dict[int, dict[str, _Sums]] = {}
    for place in counts.places:
        for number, sums in place.steps.items():
            if place.level == POOL:
                wholes[number] = sums
            elif place.level == MODEL:
                parts.setdefault(number, {})[place.name] = sums
    found: dict[str, dict[int, _Sums]] = {}
    for number in wholes.keys() | parts.keys():
        whole, own = wholes.get(number, {}), parts.get(number, {})
        for model, sums in with_rest(whole, own).items():
            found.setdefault(model, {})[number] = sums
    return found


def _of_resource(resource: str, slots: dict[int, _Sums], steps: Iterable[int]) -> SeriesStats:
    sums = [slots.get(number, {}) for number in steps]
    return SeriesStats(
        resource=resource,
        granted=[_whole(each, counting.GRANTED) for each in sums],
        refused=[round(_refused(each)) for each in sums],
        settled=[_whole(each, counting.CALLS) for each in sums],
        input_tokens=[_whole(each, counting.INPUT) for each in sums],
        output_tokens=[_whole(each, counting.OUTPUT) for each in sums],
        cost_usd=[_whole(each, counting.MICRO_DOLLARS) / _MICRO for each in sums],
    )


def _whole(sums: _Sums, what: What) -> int:
    return round(sums.get(what, 0))


def _refused(sums: _Sums) -> float:
    return sum(
        much for what, much in sums.items() if isinstance(what, str) and what.startswith(REFUSED)
    )
