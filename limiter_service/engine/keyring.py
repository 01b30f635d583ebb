"""Every API key, as this replica knows it.

The keyring of the store is small and read as a whole, when its version has changed: asking
for a version each half second is all that a valid key costs the store, an unknown one costs
no more, and a revoked one is refused by every replica within a second.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from limiter_service.engine import credentials, ids
from limiter_service.engine.callers import Caller
from limiter_service.engine.credentials import Credential, Proof
from limiter_service.engine.refusals import Refusal, refuse
from limiter_service.engine.turnstile import Turnstile, Why
from limiter_service.store.access_commands import AccessCommands, KeyRecord, Ring
from limiter_service.store.errors import StoreError
from limiter_wire import CreatedKey, ErrorCode, KeyList, KeyView, NewKey, Role

_EVERY = 0.5
_FLOOR = 0.1  # between two looks for unknown keys: whoever makes them up costs this much
_MICRO = 1_000_000

_log = structlog.get_logger()


class _Entry:
    """A key that opens something, until it expires."""

    __slots__ = ("caller", "expires", "proof", "record")

    def __init__(self, record: KeyRecord, turnstile: Turnstile) -> None:
        self.record, self.expires = record, record.expires
        self.proof = Proof(record.salt, record.digest)
        self.caller = Caller(
            record.id,
            record.name,
            record.roles,
            pools=record.pools,
            tenants=record.tenants,
            turnstile=turnstile,
        )


class Keyring:
    """Finds the caller behind a key, and makes and revokes keys.

    `given` are keys of this replica, told beside the store: read anew with every look, so that
    they can be replaced. `grace` is how many seconds known keys are served while the store
    does not answer.
    """

    def __init__(
        self,
        commands: AccessCommands,
        given: Callable[[], list[Credential]],
        *,
        grace: float,
        turnstile: Turnstile | None = None,
    ) -> None:
        self.turnstile = turnstile or Turnstile()
        self._commands, self._read_given, self._grace = commands, given, grace
        self._given: dict[str, _Entry] = {}
        self._ring = Ring()
        self._version: bytes | None = None
        self._entries: dict[str, _Entry] = {}
        self._heard_at: float | None = None
        self._asked_at, self._looks = 0.0, 0
        self._ahead_us = 0.0
        self._looking = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    # Opening

    def find(self, shown: Credential) -> Caller | None:
        """The caller behind a key; None when this replica knows no such key. Raises Refusal when
        it does, and the secret is wrong or the key is over.
        """
        entry = self._given.get(shown.id) or self._entries.get(shown.id)
        if entry is None:
            return None
        if not entry.proof.fits(shown.secret):
            raise self.turnstile.bar(Why.INVALID, "the API key is not valid")
        if entry.record.id not in self._given and self._stale():
            raise self.turnstile.bar(Why.UNHEARD, _UNHEARD)
        if entry.expires is not None and entry.expires <= self._now_us():
            raise self.turnstile.bar(Why.EXPIRED, "the API key has expired")
        return entry.caller

    def knows(self, shown: Credential) -> Caller | None:
        """The caller behind a valid key; None where `find` or `look_for` has more to say of it."""
        entry = self._given.get(shown.id) or self._entries.get(shown.id)
        if entry is None or not entry.proof.fits(shown.secret):
            return None
        if entry.record.id not in self._given and self._stale():
            return None
        if entry.expires is not None and entry.expires <= self._now_us():
            return None
        return entry.caller

    @property
    def has_none(self) -> bool:
        """Whether it is known that there are no keys at all, not even old ones."""
        return self._heard_at is not None and not self._ring.records and not self._given

    async def look_for(self, shown: Credential) -> Caller:
        """The caller behind a key that was made a moment ago, maybe. Raises Refusal."""
        await self._hear_for_a_caller()
        caller = self.find(shown)
        if caller is not None:
            return caller
        revoked = self._ring.records.get(shown.id)
        if revoked is not None and Proof(revoked.salt, revoked.digest).fits(shown.secret):
            raise self.turnstile.bar(Why.REVOKED, "the API key was revoked")
        raise self.turnstile.bar(Why.INVALID, "the API key is not valid")

    async def is_empty(self) -> bool:
        """Whether there are no keys at all, not even old ones. Raises Refusal when nobody knows."""
        if self._heard_at is None:
            await self._hear_for_a_caller()
        return not self._ring.records and not self._given

    # Knowing

    async def _hear_for_a_caller(self) -> None:
        try:
            await self._ask_again()
        except Refusal as refusal:
            raise self.turnstile.bar(Why.UNHEARD, refusal.problem.detail) from refusal

    async def look(self) -> None:
        """Take in what has changed. Raises StoreError."""
        async with self._looking:  # an old answer must not come after a new one
            await self._hear()

    async def _hear(self) -> None:
        self._take_given()
        loop = asyncio.get_running_loop()
        asked_at = self._asked_at = loop.time()
        self._looks += 1
        now, ring = await self._commands.keyring(self._version, ids.new_nonce())
        if ring is not None and self._version != ring.version:
            self._take(ring)
        # The answer may have taken long: a key must not live longer for it.
        self._ahead_us, self._heard_at = now - asked_at * _MICRO, asked_at

    async def begin(self) -> None:
        """Look, and go on looking until `aclose`."""
        with contextlib.suppress(StoreError):  # then whoever calls asks again
            await self.look()
        self._watching = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Stop looking."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.look()
            except StoreError:
                if self._heard_at is not None and self._stale():
                    self._forget()
            except Exception:  # noqa: BLE001  # whatever it is: looking must go on
                _log.exception("the keys could not be read")
            self._end_what_expired()

    async def _ask_again(self) -> None:
        """Look once more, together with others who want to. Raises Refusal."""
        loop = asyncio.get_running_loop()
        looks = self._looks  # a count: clocks of loops stand still for a millisecond
        async with self._looking:
            if self._looks > looks:  # somebody has, meanwhile
                if self._heard_at != self._asked_at:
                    raise _unheard()
                return
            await asyncio.sleep(max(0.0, self._asked_at + _FLOOR - loop.time()))
            try:
                await self._hear()
            except StoreError as error:
                raise _unheard() from error

    def _take(self, ring: Ring) -> None:
        before, self._ring, self._version = self._entries, ring, ring.version
        self._entries = {}
        for key_id, record in ring.records.items():
            if key_id not in ring.revoked:
                known = before.get(key_id)
                same = known is not None and known.record == record
                self._entries[key_id] = known if known and same else _Entry(record, self.turnstile)
        for key_id, entry in before.items():
            if self._entries.get(key_id) is not entry:
                entry.caller.end("the API key was revoked")

    def _take_given(self) -> None:
        before, self._given = self._given, {}
        for shown in self._read_given():
            known = before.pop(shown.id, None)
            if known is not None and known.proof.fits(shown.secret):
                self._given[shown.id] = known
                continue
            if known is not None:
                before[shown.id] = known
            self._given[shown.id] = _Entry(_given_record(shown), self.turnstile)
        for entry in before.values():
            entry.caller.end("the API key was replaced")

    def _forget(self) -> None:
        """Nobody knows any more which keys are valid."""
        for entry in self._entries.values():
            entry.caller.end("the store has not answered for too long")
        self._entries, self._version = {}, None

    def _end_what_expired(self) -> None:
        now = self._now_us()
        for entry in self._entries.values():
            if entry.expires is not None and entry.expires <= now and not entry.caller.why_ended:
                entry.caller.end("the API key has expired")

    def _stale(self) -> bool:
        """Whether the store was silent for longer than known keys are served."""
        now = asyncio.get_running_loop().time()
        return self._heard_at is None or now - self._heard_at > self._grace

    def _now_us(self) -> float:
        """The store's clock, as far as it is known; it does not jump with the host's."""
        return asyncio.get_running_loop().time() * _MICRO + self._ahead_us

    # Making and revoking

    async def create(self, order: NewKey, actor: str) -> CreatedKey:
        """Make a key. Raises Refusal."""
        if order.tenants is not None and Role.ADMIN in order.roles:
            detail = "a key that is bound to tenants cannot be admin: it would order for all"
            raise refuse(ErrorCode.INVALID, detail)
        shown = credentials.draw()
        proof = credentials.prove(shown.secret)
        await self._ask_again()  # for the store's clock
        now = self._now_us()
        record = KeyRecord(
            id=shown.id,
            name=order.name,
            roles=sorted({str(role) for role in order.roles}),
            pools=order.pools,
            tenants=order.tenants,
            salt=proof.salt,
            digest=proof.digest,
            created=now,
            created_by=actor,
            expires=None if order.ttl is None else now + order.ttl * _MICRO,
        )
        try:
            room = await self._commands.put(record, actor, order.reason, ids.new_nonce())
        except StoreError as error:
            raise _unheard() from error
        if not room:
            detail = (
                "there is room for no more keys: revoke some, and they are forgotten in a month"
            )
            raise refuse(ErrorCode.INVALID, detail)
        await self._ask_again()
        view = self._view(record)
        fields = {name: getattr(view, name) for name in view.__struct_fields__}
        return CreatedKey(**fields, key=shown.text)

    async def revoke(self, key_id: str, actor: str, reason: str) -> KeyView:
        """Revoke a key; the same again for one that is. Raises Refusal."""
        await self._ask_again()
        record = self._ring.records.get(key_id)
        if record is None:
            raise refuse(ErrorCode.NOT_FOUND, f"there is no key {key_id!r} in the store")
        try:
            tag = ids.new_nonce()
            if not await self._commands.revoke(key_id, record.name, actor, reason, tag):
                raise refuse(ErrorCode.NOT_FOUND, f"there is no key {key_id!r} in the store")
        except StoreError as error:
            raise _unheard() from error
        await self._ask_again()
        return self._view(record)

    async def listed(self) -> KeyList:
        """Every key, the newest last. Raises Refusal."""
        await self._ask_again()
        records = sorted(self._ring.records.values(), key=lambda record: record.created)
        given = [entry.record for entry in self._given.values()]
        return KeyList(keys=[self._view(record) for record in (*given, *records)])

    def _view(self, record: KeyRecord) -> KeyView:
        revoked = self._ring.revoked.get(record.id)
        over = record.expires is not None and record.expires <= self._now_us()
        state = "revoked" if revoked is not None else "expired" if over else "valid"
        return KeyView(
            id=record.id,
            name=record.name,
            roles=record.roles,
            pools=record.pools,
            tenants=record.tenants,
            created=record.created / _MICRO,
            created_by=record.created_by,
            expires=None if record.expires is None else record.expires / _MICRO,
            revoked=None if revoked is None else revoked / _MICRO,
            state=state,
        )


def _given_record(shown: Credential) -> KeyRecord:
    proof = credentials.prove(shown.secret)
    return KeyRecord(
        id=shown.id,
        name="given",
        roles=[Role.ADMIN.value],
        salt=proof.salt,
        digest=proof.digest,
        created=0.0,
        created_by="settings",
    )


def _unheard() -> Refusal:
    return refuse(ErrorCode.STORE_UNAVAILABLE, _UNHEARD, retry_after=1.0)


_UNHEARD = "the store does not answer, so nobody knows which API keys are valid, if any is needed"
