"""What is planted: slips in the scripts and in the engine, each in stories where it can show."""

from collections.abc import Sequence
from typing import Any

from client_sdk.blocks import Stock
from limiter_service.engine import lending
from limiter_service.engine.outages import Outages
from limiter_service.engine.passes import Passes
from limiter_service.engine.policy import Policy
from limiter_service.engine.presence import Presence
from limiter_service.store import lanes
from limiter_service.store.groups import Parcel, parcels
from limiter_service.store.parcels import Call, Kin
from limiter_wire import Granted

_lent = Stock.lent

SCRIPTS = {
    "calls": {
        "a retry charges again": ("lib/acquire_known", "if known then", "if false then"),
        "a bucket grants what it does not have": ("lib/limits", "amount - level > 1e-6", "amount - level > 60"),
        "a clock that steps back gives credit": ("lib/scope", "s[SKEW], now, elapsed = s[SKEW] - elapsed, s[TIME], 0", "s[SKEW], now, elapsed = s[SKEW] - elapsed, s[TIME], -elapsed"),
        "a clock that steps back locks out": ("lib/scope", "if elapsed < 0 then", "if false then"),
        "a refund is given twice": ("lib/holding", "amount - charged, lease", "2 * (amount - charged), lease"),
        "a refund comes into a new window": ("lib/sliding", "local slot = amount < 0 and held[held_at] or s[at]", "local slot = s[at]"),
        "a lease never ends": ("lib/holding", "if wall >= granted + lease[TTL] then", "if false then"),
        "a lease that is over keeps its slot": ("lib/concurrency", '"(" .. digits(now)', '"-inf"'),
        "a grant takes no slot": ("lib/granting", "window.hold(q, p, s[TIME], ask[1], ask[TTL])", "window = window"),
        "a settle keeps its slot": ("lib/holding", "        window.release(q, p, s, at, lease[1])", "        window = window"),
        "a renewal charges the same usage each time": ("renew", "lease[CHARGES + n] = used", "used = used"),
        "a window forgets too early": ("lib/sliding", "math.max(s[at], newest - RING) + 1, newest do", "math.max(s[at], newest - RING) + 1, newest + 30 do"),
        "a probe more than allowed": ("lib/breaker", "if held >= q[Q_PROBES] or held + c[C_PASSED] >= q[Q_NEEDED] then", "if false then"),
        "a dead probe keeps its place for ever": ("lib/breaker", "if c[at + 1] <= now then", "if false then"),
        "a refusal charges the first limit": ("lib/acquire_any", "elseif worst > 0 then\n", "elseif worst > 0 then\n  take(scopes, ask, nil)\n  save_all(request, wall)\n"),
        "a key without a life": ("lib/limits", '"PX", math.ceil(needed / 500) + 1000)', '"KEEPTTL")'),
    },
    "queue": {
        "somebody barges past the queue": ("lib/acquire_known", "elseif stored[3] then", "elseif false then"),
        "somebody barges past his own line": ("enqueue", "local behind = why ~= PASS or line and true", "local behind = why ~= PASS"),
        "whoever comes last is served first": ("lib/waiting", 'return id .. struct.pack(">d", t[PLACE]) .. digest', 'return id .. struct.pack(">d", 1e9 - t[PLACE]) .. digest'),
        "a sleeping line is never woken": ("lib/serving", "for _, id in ipairs(due) do", "for _, id in ipairs({}) do"),
        "who is gone keeps his place": ("lib/waiting", "elseif t[HOLDER] == 0 then\n      return false", "elseif t[HOLDER] == 0 then\n      return true"),
        "a pass does not charge what it grants": ("lib/serving", "    save(scope, wall)", "    scope = scope"),
        "a grant that was fetched is taken back": ("enqueue", '  redis.call("HDEL", tickets, digest)\n  redis.call("ZREM", grants, digest .. struct.pack("<d", t[2]))\n  if', "  if"),
    },
    "alone": {
        "what was granted alone is charged each time": ("charge", "if known then", "if false then"),
        "what was granted alone costs nothing": ("charge", "charge(q, p, s, at, ask[i])", "s = s"),
        "who is back sees nobody": ("beat", 'redis.call("ZCARD", KEYS[1])', "1"),
    },
    "groups": {
        "a group charges a repeat beside it": ("lib/few_leases", ', expiry, "NX")', ", expiry)"),
        "a group that a repeat breaks off leaves a lease": ("lib/few_leases", 'call("UNLINK", keys[first + before])', "span = span"),
        "a group takes what a limit does not have": ("lib/few_granted", "a1 - l1 > 1e-6", "a1 - l1 > 150"),
        "a group takes what a second limit does not have": ("lib/few_granted", "a2 - l2 > 1e-6", "a2 - l2 > 8"),
        "one of a group is charged for": ("lib/few_granted", "l1, l2, l3, l4, at = l1 - a1, l2 - a2, l3 - a3, l4 - a4, at + size", "if n == 1 then l1, l2, l3, l4 = l1 - a1, l2 - a2, l3 - a3, l4 - a4 end at = at + size"),
        "a group settles the second of two reports again": ("lib/few_reported", " or known and known[key]) then", ") then"),
        "a group settles again what it has settled before": ("lib/few_settled", "text, wall,", "text, 0,"),
        "a group settles what is over": ("lib/few_reported", "or wall >= began - moved + ttl", ""),
        "several chains have the leases of the first": ("lib/in_turn", "first, at = first + all,", "first, at = first,"),
        "a chain does not see what those before it have taken": ("lib/few_saved", "texts[place] = whole", ""),
        "a long chain does not see what those before it have taken": ("lib/many", "    texts[nth] = state\n", ""),
        "a group barges past the queue": ("lib/acquire_ordinary", "if queued then", "if false then"),
        "a group goes past a circuit that is not calm": ("lib/gate", "if wall + shift < calm or wall + shift < seen then", "if false then"),
        "a long chain charges again what it has granted before": ("lib/granted", ', px, "NX")', ", px)"),
        "a long chain charges a repeat beside it": ("lib/granted", "known[n] = seen[key] or", "known[n] ="),
        "a long chain takes what a limit does not have": ("lib/granted", "if ask[i] - s[at] > 1e-6 then", "if ask[i] - s[at] > 150 then"),
        "a long chain is not charged": ("lib/granted", "s[at] = s[at] - ask[i]", "s[at] = s[at]"),
        "a grant at once is not written down": ("lib/granted", "if granted > 0 then", "if granted > 1 then"),
        "a long chain settles the second of two reports again": ("lib/settled", " or known and known[key] then", " then"),
        "a long chain settles again what it has settled before": ("lib/settled", "text, wall,", "text, 0,"),
        "a long chain settles what is over": ("lib/settled", "wall < granted + lease[TTL]", "true"),
    },
    "blocks": {
        "a block is lent while somebody waits": ("lend", "elseif texts[#KEYS - 1] then", "elseif false then"),
        "blocks hold more than their share": ("lend", "(most - (held[name] or 0))", "most"),
        "a block is charged as one call": ("lend", "ask[i] = ask[i] * calls", "ask[i] = ask[i]"),
        "a block is given back twice": ("repay", "lease[CHARGES + n] = report[i]", "n = n"),
        "a report is taken in twice": ("repay", "elseif lease[WAITED] % REPORTS >= report[3] then", "elseif false then"),
        "a block of the dead is held for ever": ("lib/blocks", "all[at + HELD_UNTIL] > wall and ", ""),
        "a clock that steps back holds blocks": ("lend", "wall, nil, terms[3])", "wall)"),
    },
}  # fmt: skip
"""By plot: part, text, its replacement."""


def _fewer(self: Presence) -> float:
    return 1.0 / max(1, self.replicas - 1) if self._said else 0.0


async def _charge_nothing(self: Outages, pool: Any, entry: Any) -> None:
    pool.journal.done(entry)


async def _rest_for_ever(_self: Passes, pool: Any, _loop: Any) -> None:
    await pool.wake.wait()


def _from_now(self: Stock, granted: Granted, _asked_at: float, now: float) -> None:
    _lent(self, granted, now, now)


def _mixed(calls: Sequence[Call], now: float) -> list[Parcel]:
    kin = Kin()
    for call in calls:
        call.kin = call.kin and kin
    return parcels(calls, now)


def _nothing(policy: Policy, _calls: int, _tokens: int) -> list[float]:
    return [0.0 for _ in policy.limits]


ENGINE: dict[str, dict[str, tuple[Any, str, Any]]] = {
    "queue": {
        "nobody looks again when time has made room": (Passes, "_rest", _rest_for_ever),
    },
    "alone": {
        "a share of too few replicas": (Presence, "part", property(_fewer)),
        "what was granted alone is forgotten": (Outages, "_charge_one", _charge_nothing),
    },
    "groups": {
        "calls that meet other limits are in a group": (lanes, "parcels", _mixed),
    },
    "blocks": {
        "a block that is over is handed out": (Stock, "lent", _from_now),
        "a report forgets the calls under way": (lending, "_reserved", _nothing),
    },
}
"""By plot: who, which of its parts, its replacement."""

LATE: dict[str, tuple[int, int, float]] = {
    "a refund comes into a new window": (105, 3000, 2.0),
    "nobody looks again when time has made room": (26, 1000, 1.0),
    "a clock that steps back holds blocks": (249, 1000, 1.0),
    "a long chain settles what is over": (12, 4000, 1.0),
}
"""What takes long to show: a seed, how many calls, and at which pace."""

SHOWN_BY = {
    "a clock that steps back gives credit": 45,
    "a clock that steps back locks out": 25,
    "a window forgets too early": 15,
    "a sleeping line is never woken": 41,
    "who is gone keeps his place": 41,
}
"""What a story shows that is not among the first: its seed, for a search that begins there."""
