"""Blocks: what workers have handed out themselves is what their blocks were charged."""

import struct
from collections import defaultdict
from collections.abc import Mapping

from limiter_service.engine.policy import Policy
from tests_support.trial import diary, rules
from tests_support.trial.diary import Call
from tests_support.trial.evidence import Evidence, Found

_CHARGES, _HEAD, _STAGE = 9, 9, 3
ENDED = 2


def stage_and_amounts(report: bytes) -> tuple[int, tuple[float, ...]]:
    """What a report on a block says: 0 it is held, 1 it was given back, 2 it is over; and what
    stays charged on each limit (lua/repay).
    """
    told = struct.unpack(f"<{len(report) // 8}d", report)
    return int(told[_STAGE]), told[_STAGE + 1 :]


def check(evidence: Evidence, policies: Mapping[str, Policy], found: Found) -> None:
    """Nothing is handed out that was not charged, and nothing stays charged that nobody holds,
    but for blocks of which nobody has said that they are over: their workers are dead.
    """
    charged, ended, lost = _charged(evidence, policies, found)
    least, most = _used(evidence, found)
    left = sum(much for key, much in charged.items() if key not in ended)
    total = sum(charged.values())
    if total + lost < least - 1e-6:
        found.wrong(f"{least:g} tokens were handed out of blocks of {total:g}")
    if evidence.durable and total > most + left + 1e-6:
        found.wrong(f"blocks stay charged with {total:g}, and {most:g} tokens were used of them")


def _charged(
    evidence: Evidence, policies: Mapping[str, Policy], found: Found
) -> tuple[dict[str, float], set[str], float]:
    """What each block has charged to the budget; which are over; what a failover has lost."""
    charged: dict[str, float] = {}
    ended: set[str] = set()
    lost = 0.0
    for place, entry in enumerate(evidence.entries):
        ran = entry.ran
        if ran.name not in {"lend", "repay"}:
            continue
        limits = policies[ran.key].limits
        nth = next(n for n, limit in enumerate(limits) if limit.name.endswith(rules.BUDGET))
        if ran.name == "lend":
            much = struct.unpack_from("<d", ran.reply, _HEAD + 8 * (_CHARGES + nth))[0]
            if place in evidence.kept:
                found.blocks += 1
                charged[ran.key] = much
            else:
                lost += much
        elif place in evidence.kept and ran.key in charged:
            stage, amounts = stage_and_amounts(ran.request)
            if stage:
                charged[ran.key] = amounts[nth]
                found.called_back += ran.reply[8:9] == b"g" and ran.key not in ended
            if stage == ENDED:
                ended.add(ran.key)
    return charged, ended, lost


def _used(evidence: Evidence, found: Found) -> tuple[float, float]:
    """What calls that were handed out have used, at least and at most."""
    reports: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in evidence.calls:
        if call.begin.settle is not None and call.begin.settle.lease.startswith(rules.BLOCK):
            reports[call.worker, call.begin.settle.lease].append(call)
    least = most = 0.0
    for call in evidence.calls:
        if call.told != diary.GRANTED or not (call.end and call.end.lease.startswith(rules.BLOCK)):
            continue
        found.handed += 1
        asked = call.begin.acquire
        assert asked is not None
        assert asked.tokens is not None
        told = reports.get((call.worker, call.end.lease), [])
        usages = [each.begin.settle.usage for each in told if each.begin.settle is not None]
        tokens = [usage.input_tokens for usage in usages if usage is not None]
        if tokens and told[0].end is not None:
            least, most = least + tokens[0], most + tokens[0]
        elif call.worker in evidence.killed:  # it may have used it, and told nobody
            most += max(asked.tokens, *tokens, 0)
        else:
            least, most = least + asked.tokens, most + asked.tokens
    return least, most
