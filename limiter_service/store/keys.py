"""Every Redis key, from typed names: nobody else formats one.

Each key of a pool carries the hash tag `{pool}`, so that a cluster keeps the pool on one
node and a script may touch all of them.
"""

from hashlib import blake2b
from typing import NewType

Key = NewType("Key", str)

DEFAULT_PREFIX = "sg:"


class Keys:
    """The names of one pool's keys."""

    def __init__(self, pool: str, prefix: str = DEFAULT_PREFIX) -> None:
        self._base = f"{prefix}{{{pool}}}:"
        self._lease = f"{self._base}l:"

    def pool_scope(self) -> Key:
        """State of the limits on the whole pool: string."""
        return Key(f"{self._base}s:pool")

    def model_scope(self, model: str) -> Key:
        """State of the limits on one model: string."""
        return Key(f"{self._base}s:model:{model}")

    def tenant_scope(self, tenant: str) -> Key:
        """State of the limits on one tenant: string."""
        return Key(f"{self._base}s:tenant:{tenant}")

    def tenant_model_scope(self, tenant: str, model: str) -> Key:
        """State of the limits on one tenant's use of one model: string.

        The length keeps `a` on `b:c` apart from `a:b` on `c`.
        """
        return Key(f"{self._base}s:both:{len(tenant)}:{tenant}:{model}")

    def slots(self, scope: Key, limit_id: int) -> Key:
        """Live leases of one concurrency limit: sorted set, nonce -> deadline."""
        return Key(f"{self._base}c:{scope.removeprefix(self._base)}:{limit_id:x}")

    def notice(self, scope: Key, limit_id: int) -> Key:
        """Who holds a limit by hand, and why: string."""
        return Key(f"{self._base}o:{scope.removeprefix(self._base)}:{limit_id:x}")

    def lease(self, tenant: str, request_id: str) -> Key:
        """One lease and its answers: string. A digest, so that long ids cost no memory."""
        return Key(self._lease + _digest(tenant, request_id).hexdigest())

    def queue(self) -> Key:
        """Who waits, and which limits of the pool they close: string."""
        return Key(f"{self._base}q")

    def order(self) -> Key:
        """Every waiter in the order of its line: sorted set, one score."""
        return Key(f"{self._base}q:order")

    def front(self) -> Key:
        """The lines that can be served, in fair order: sorted set, one score."""
        return Key(f"{self._base}q:front")

    def asleep(self) -> Key:
        """Lines that wait for a limit of their own tenant: sorted set, line -> when it has room."""
        return Key(f"{self._base}q:asleep")

    def grants(self) -> Key:
        """Grants that nobody has fetched yet: sorted set, request and replica -> deadline."""
        return Key(f"{self._base}q:grants")

    def book(self) -> Key:
        """Lines, models, replicas and credits: hash."""
        return Key(f"{self._base}q:book")

    def tickets(self) -> Key:
        """What each waiter needs: hash, digest of the request -> ticket."""
        return Key(f"{self._base}q:tickets")

    def channel(self) -> Key:
        """Where hints about grants are published: a channel, no key."""
        return Key(f"{self._base}q:hints")

    def circuit(self, model: str) -> Key:
        """The breaker of one model: string."""
        return Key(f"{self._base}b:model:{model}")

    def pin(self) -> Key:
        """Latches, cooldown and retry budget of the whole pool: string."""
        return Key(f"{self._base}b:pool")

    def note(self, model: str) -> Key:
        """Who holds a model's breaker by hand, and why: string."""
        return Key(f"{self._base}n:{model}")

    def sizes(self, model: str, route: str) -> Key:
        """Learned sizes of calls of one model and route; an empty route is all of them: string.

        The length keeps a slash or colon of the model apart from the route.
        """
        return Key(f"{self._base}z:{len(model)}:{model}:{route}")

    def blocks(self) -> Key:
        """What blocks hold that nobody has spent yet: string."""
        return Key(f"{self._base}k")

    def counts(self) -> Key:
        """How often things have happened, in slots of time: hash."""
        return Key(f"{self._base}y")

    def replicas(self) -> Key:
        """Replicas that serve the pool: sorted set, name -> when it was seen."""
        return Key(f"{self._base}r")

    def mark(self) -> Key:
        """Written behind grants that wait for a replica of the store: string."""
        return Key(f"{self._base}w")

    def events(self) -> Key:
        """What has happened in the pool: stream."""
        return Key(f"{self._base}e")


FLEET = "*"
"""In place of a pool: what belongs to none. No pool can be called so."""


class FleetKeys:
    """The names of keys that belong to no pool."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self._base = f"{prefix}{{{FLEET}}}:"

    def keyring(self) -> Key:
        """Every API key, as a digest: hash."""
        return Key(f"{self._base}keyring")

    def orders(self) -> Key:
        """What operators have ordered of replicas: string."""
        return Key(f"{self._base}orders")

    def replicas(self) -> Key:
        """The replicas that live: sorted set, name -> until when that is believed."""
        return Key(f"{self._base}replicas")

    def cards(self) -> Key:
        """What each replica says of itself: hash, name -> card."""
        return Key(f"{self._base}cards")

    def events(self) -> Key:
        """What has happened in no pool: stream."""
        return Key(f"{self._base}e")


def line_id(model: str, tenant: str, priority: int) -> bytes:
    """The id of the line of one tenant and priority on one model (lua/lib/waiting)."""
    return chain_id(model, tenant) + bytes((priority,))


def chain_id(model: str, tenant: str) -> bytes:
    """The part of a line's id that its limits depend on."""
    return model_id(model) + tenant_id(tenant)


def model_id(model: str) -> bytes:
    """A model in the queue."""
    return _short(model)


def tenant_id(tenant: str) -> bytes:
    """A tenant in the queue."""
    return _short(tenant)


def _short(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()


def request_digest(tenant: str, request_id: str) -> bytes:
    """What stands for a request of a tenant: 16 bytes."""
    return _digest(tenant, request_id).digest()


def _digest(tenant: str, request_id: str) -> blake2b:
    return blake2b(f"{len(tenant)}:{tenant}{request_id}".encode(), digest_size=16)
