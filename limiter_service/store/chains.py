"""Several chains as one call takes them."""

from collections.abc import Mapping

from limiter_service.store.keys import Key
from limiter_service.store.messages import Chain
from limiter_service.store.packing import pack

_SLOTS = 4 * 8
"""Where a policy says what stands in KEYS before its slots (lua/lib/layout)."""


def join(
    chains: Mapping[bytes, Chain],
) -> tuple[list[Key], list[bytes], list[Key], dict[Key, bytes], list[float]]:
    """Several chains as one call takes them: scopes once, slots once, circuits with their
    policies once, and who has which.
    """
    places: dict[Key, int] = {}
    policies: list[bytes] = []
    slots_of: list[tuple[Key, ...]] = []
    circuits: dict[Key, bytes] = {}
    head: list[float] = []
    for chain in chains.values():
        circuit = 0
        for key in chain.breaker_keys[:1]:
            circuits.setdefault(key, chain.breaker)
            circuit = [*circuits].index(key) + 1
        head += [chain.shape, circuit, len(chain.scopes)]
        parts = zip(chain.scopes, chain.policies, chain.slots, chain.levels, strict=True)
        for scope, policy, slots, level in parts:
            if scope not in places:
                places[scope] = len(places) + 1
                policies.append(policy)
                slots_of.append(slots)
            head += [places[scope], level]
    flat: list[Key] = []
    for i, slots in enumerate(slots_of):
        base = pack([len(places) + len(flat)])
        policies[i] = policies[i][:_SLOTS] + base + policies[i][_SLOTS + 8 :]
        flat += slots
    return list(places), policies, flat, circuits, head
