"""What calls have left in a store, apart from what replicas write by themselves."""

import redis

from limiter_service.store.keys import FleetKeys

_OF_THEMSELVES = (b"r", b"y")  # signs of life of replicas, and what was counted (docs/data-model)


def immortal_in(db: redis.Redis) -> list[bytes]:
    """The keys that would never go by themselves, but for what operators store on purpose."""
    meant = FleetKeys().keyring().encode()
    return [key for key in db.scan_iter() if db.ttl(key) == -1 and key != meant]


def left_in(db: redis.Redis) -> set[bytes]:
    """The keys of pools: budget, circuits, queues, leases, events."""
    return {
        key
        for key in db.scan_iter()
        if b"{*}" not in key and key.rpartition(b"}:")[2] not in _OF_THEMSELVES
    }
