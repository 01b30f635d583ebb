"""What calls have left in a store, apart from what replicas write by themselves."""

import redis

_OF_THEMSELVES = (b"r", b"y")  # signs of life of replicas, and what was counted (docs/data-model)


def left_in(db: redis.Redis) -> set[bytes]:
    """The keys of pools: budget, circuits, queues, leases, events."""
    return {
        key
        for key in db.scan_iter()
        if b"{*}" not in key and key.rpartition(b"}:")[2] not in _OF_THEMSELVES
    }
