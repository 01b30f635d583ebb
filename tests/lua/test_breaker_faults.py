"""The breaker's model test can fail: each fault below, planted in the Lua, is found by it."""

import base64
from collections.abc import Iterator

import pytest
import redis
from circuits import TRIAL, machine, scripts
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import ExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from limiter_service.store.scripts import part

# What is broken: part, text, its replacement. One line each, as a slip of the pen would be.
FAULTS = {
    "reports of an old generation count": ("lib/report", "if r.generation ~= c[C_GENERATION] then", "if false then"),
    "opening makes no new generation": ("lib/breaker", "c[C_GENERATION], c.changed = state, now, c[C_GENERATION] + 1, true", "c[C_GENERATION], c.changed = state, now, c[C_GENERATION] + (state == OPEN and 0 or 1), true"),
    "the lease of a probe never ends": ("lib/breaker", "if c[at + 1] <= now then", "if false then"),
    "the lease of a probe ends a microsecond late": ("lib/breaker", "if c[at + 1] <= now then", "if c[at + 1] < now then"),
    "a probe that reports late still votes": ("lib/report", "elseif at > #c or c[at + 1] <= now then", "elseif at > #c then"),
    "who holds no lease votes": ("lib/report", 'return "nolease"', "c[#c + 1], c[#c + 2], at = r.token, now + 1, #c + 1"),
    "a lease is taken although a limit refuses": ("trial", "  if granted then", "  if why == PASS then"),
    "more probes than the policy allows": ("lib/breaker", "held >= q[Q_PROBES]", "held > q[Q_PROBES]"),
    "more probes than are needed": ("lib/breaker", "or held + c[C_PASSED] >= q[Q_NEEDED]", ""),
    "lost probes never open": ("lib/breaker", "if c[C_LOST] >= q[Q_LOST] then", "if false then"),
    "a success does not forgive lost probes": ("lib/report", "c[C_PASSED], c[C_LOST], c[C_VOTED] = c[C_PASSED] + 1, 0, r.token", "c[C_PASSED], c[C_VOTED] = c[C_PASSED] + 1, r.token"),
    "a probe that breaks after its first token has passed": ("lib/report", "if r.early and r.class == FAILURE and c[C_VOTED] == r.token then", "if false then"),
    "any stream that breaks takes back the vote of a probe": ("lib/report", "and c[C_VOTED] == r.token then", "and c[C_VOTED] > 0 then"),
    "a first token ends a run": ("lib/report", "if not r.begun then", "if true then"),
    "the end of a stream does not end a run": ("lib/report", "c[C_RUN], c[C_RUN_WORKERS], c[C_RUN_SINCE], c.changed = 0, 0, 0, true", "local _ = c"),
    "the last Retry-After wins, not the longest": ("lib/report", "if till > c[C_COOL] then", "if true then"),
    "a Retry-After is not bounded": ("lib/report", "local till = now + math.min(r.retry_after, q[Q_LONGEST])", "local till = now + r.retry_after"),
    "a stale report loses its Retry-After": ("lib/report", "if r.class == THROTTLE and r.retry_after > 0 and q[Q_WIDE] == 0 then", "if r.class == THROTTLE and r.retry_after > 0 and q[Q_WIDE] == 0 and r.generation == c[C_GENERATION] then"),
    "a Retry-After does not prolong the opening": ("lib/breaker", "math.max(open, math.min(asked, q[Q_LONGEST]))", "open"),
    "the window keeps a bucket too long": ("lib/report", "math.min(newest - c[C_NEWEST], BUCKETS)", "math.min(newest - c[C_NEWEST], 1)"),
    "one bad worker opens for the fleet": ("lib/report", "local wanted = math.min(q[Q_WORKERS], count_bits(active % 4294967296))", "local wanted = 1"),
    "a lone worker never opens": ("lib/report", "local wanted = math.min(q[Q_WORKERS], count_bits(active % 4294967296))", "local wanted = q[Q_WORKERS]"),
    "a neutral outcome is counted as a success": ("lib/report", "if class == NEUTRAL then\n    return\n  elseif", "if class == NEUTRAL then\n    class = SUCCESS\n  end\n  if"),
    "a neutral outcome is a vote": ("lib/report", "elseif r.class == SUCCESS then\n    c[C_PASSED]", "elseif r.class == SUCCESS or r.class == NEUTRAL then\n    c[C_PASSED]"),
    "a throttled call is a failure": ("lib/report", "elseif class == THROTTLE then\n    c[at + 3] = c[at + 3] + calls", "elseif false then\n    c[at + 3] = c[at + 3] + calls"),
    "a slow probe closes": ("lib/report", "if r.class == FAILURE or (r.class == SUCCESS and r.slow) then", "if r.class == FAILURE then"),
    "a stream counts at its first token and at its end": ("lib/report", "elseif class == SUCCESS and r.early then", "elseif false then"),
    "a stream that breaks off is two calls": ("lib/report", "      take_back(c)\n", ""),
    "closing forgets how often it opened": ("lib/report", "c[C_CLOSED_AT] = now", "c[C_CLOSED_AT], c[C_OPENED] = now, 0"),
    "healthy time earns nothing back": ("lib/breaker", "math.max(0, c[C_OPENED] - math.floor((now - c[C_CLOSED_AT]) / q[Q_DECAY]))", "c[C_OPENED]"),
    "the open time does not grow": ("lib/breaker", "2 ^ (c[C_OPENED] - 1)", "1"),
    "the jitter is one-sided": ("lib/breaker", "(2 * luck - 1)", "luck"),
    "a burst that hits one worker opens": ("lib/report", "if workers >= wanted and spread then", "if workers >= wanted then"),
    "a success does not end a run": ("lib/report", "if not r.begun then", "if false then"),
    "the cooldown does not hold while half-open": ("lib/breaker", "elseif cool > now then", "elseif cool > now and state ~= HALF then"),
    "an override never ends": ("lib/breaker", "if c[C_OVERRIDE] > 0 and till >= 0 and now >= till then", "if false then"),
    "an override leaves the probes their votes": ("lib/breaker", "if c[C_STATE] == HALF then\n    c[C_OPEN_UNTIL] = now", "if false then\n    c[C_OPEN_UNTIL] = now"),
    "a circuit held closed opens": ("lib/report", "elseif c[C_OVERRIDE] == 0 then\n    trip", "elseif true then\n    trip"),
    "observing tells each time": ("lib/report", "c[C_SILENT] = now + q[Q_OPEN]", "c[C_SILENT] = 0"),
    "an order for another generation is obeyed": ("override", "if expected >= 0 and expected ~= c[C_GENERATION] then", "if false then"),
    "a reset leaves the latch": ("override", "    unlatch(p, why, events)\n", ""),
    "a clock that steps back is not adopted": ("lib/breaker", "c[C_SHIFT], now, c.changed = c[C_SHIFT] + c[C_SEEN] - now, c[C_SEEN], true", "now = c[C_SEEN]"),
    "a clock that steps back is adopted by writers only": ("lib/breaker", "c[C_SHIFT], now, c.changed = c[C_SHIFT] + c[C_SEEN] - now, c[C_SEEN], true", "c[C_SHIFT], now = c[C_SHIFT] + c[C_SEEN] - now, c[C_SEEN]"),
    "all may try when a latch ends": ("lib/pin", "if now < p[P_TRIAL_UNTIL] then", "if false then"),
    "any success lifts a latch": ("lib/pin", "if trial then\n      unlatch", "if true then\n      unlatch"),
    "refused credentials need not follow each other": ("lib/pin", "    elseif p[P_REFUSED] > 0 then\n      p[P_REFUSED], p.changed = 0, true\n", ""),
    "a retry costs nothing": ("lib/pin", "attempt > 1 and -1 or share_earned(", "share_earned("),
    "first attempts are remembered for ever": ("lib/pin", "math.exp((p[P_SEEN] - now) / q[Q_MEMORY])", "1"),
    "retries are not refused": ("lib/admission", "return left > 0 and RETRIES or PASS, left", "return PASS, 0"),
    "a circuit that is not calm is taken for it": ("lib/admission", "whole or now < calm or now < seen", "whole or now < seen"),
    "a cooling circuit counts as calm": ("lib/breaker", "math.max(c[C_COOL], c[C_CLOSED_AT]", "math.max(0, c[C_CLOSED_AT]"),
    "of two refusals the shorter is told": ("lib/admission", "(why == PASS or longer > wait)", "why == PASS"),
    "a latch holds what an operator passes": ("lib/admission", "if not g.c or g.c[C_OVERRIDE] == 0 then", "if true then"),
    "an acquire does not see that a circuit is not calm": ("lib/calm", "if wall + shift < calm or wall + shift < seen then", "if wall + shift < seen then"),
    "an acquire does not see that the pool is latched": ("lib/calm", "if now < calm or now < seen then\n    return nil\n  elseif ratio", "if now < seen then\n    return nil\n  elseif ratio"),
    "a first attempt earns nothing while all is well": ("lib/calm", "balance = balance + earns", "balance = balance + 0"),
    "a success is counted although something has failed": ("lib/success", " or spotless == 0 then", " then"),
    "a success is counted in a bucket that is over": ("lib/success", "if math.floor(now / span) ~= newest or span ~= width then", "if span ~= width then"),
    "a success does not end a row of refused credentials": ("lib/success", "if wall + pin_shift < holds or wall + pin_shift < pin_seen then", "if wall + pin_shift < pin_seen then"),
    "a model's quota latches nothing": ("lib/report", "if r.class == QUOTA_OF_MODEL then", "if false then"),
    "a model's latch is over as soon as an opening": ("lib/breaker", "local life = kind == 1 and math.max(q[Q_QUOTA], asked) or q[Q_CREDENTIAL]", "local life = q[Q_OPEN]"),
    "one refusal of credentials latches a model": ("lib/report", "(c[C_REFUSALS] >= q[Q_REFUSED] or c[C_LATCH] == 2)", "true"),
    "a model whose trial is refused again goes on": ("lib/report", "(c[C_REFUSALS] >= q[Q_REFUSED] or c[C_LATCH] == 2)", "c[C_REFUSALS] >= q[Q_REFUSED]"),
    "a success does not forgive a model's refusals": ("lib/report", "    c[C_REFUSALS] = 0\n", ""),
    "a calm success does not see a model's refusals": ("lib/report", "c[C_REFUSALS] + 1, 0, true", "c[C_REFUSALS] + 1, c[C_SPOTLESS], true"),
    "a latch of a model is told as an opening": ("lib/breaker", "c[C_LATCH] > 0 and LATCHED or NOT_OPEN_YET", "NOT_OPEN_YET"),
    "the ramp begins at nothing": ("lib/breaker", "return 0.1 + 0.9 *", "return 0.9 *"),
}  # fmt: skip

# Where the search would be long, it begins with a short history that shows the fault, as hypothesis
# writes it down. When it does so no more, as after a change of the machine, the fault is searched
# for as any other.
SHOWN_BY = {
    "a Retry-After does not prolong the opening": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQREAQQBBAEEA",
    "a first token ends a run": "AEEAQQZBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQQIAAUEBAUEAAA==",
    "the cooldown does not hold while half-open": "AEEAQQNBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQREAQQBBAEEBAEEBAAFBAAFBAAFBAAAAQQYAQQIAQRcAQQBBA0EAQQAAQQBBAA==",
    "retries are not refused": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQFBAEEAQQEAAEEAQRAAQQBBAEEB",
    "the last Retry-After wins, not the longest": "AEEAQQFBAEEAQQBBAUEAQQBBAkEDQQFBAEEAQQBBAEEAQQEAAEEBQQABQQBBAEEAAQBBAgFBAAAAQQABQQBBAEEAAQBBAgFBAAAAQQoAAUEAAUEAAEEAAEEAAUEAQRIBQQ4BAAAAAAAAAQEAAAEBAQAAAAAAAEEIQRFBAEEAQQA=",
    "a probe that reports late still votes": "AEEAQQFBAEEAQQBBAUEBQQFBAUEBQQFBAEEAQQFBAEEAQQEAAEEAQQoAAUEKAUEAAEEA",
    "a success is counted although something has failed": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQIAAEEAQQEAAUEAAUEAAUEAAA==",
    "a stream counts at its first token and at its end": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQQIAAUEAAA==",
    "a success does not end a row of refused credentials": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQIAAEEAQQEAAUEAAUEAAUECAA==",
    "a clock that steps back is not adopted": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQQAAAEEFAEEAAEEKAAFBAAFBAABBAA==",
    "a probe that breaks after its first token has passed": "AEEAQQFBAEEAQQBBAUEAQQBBAUEDQQFBAEEAQQBBAEEAQQEAAEEAQQoAAUEAAUELAEEA",
    "a clock that steps back is adopted by writers only": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQFBAEEAQQEAAEEAQQEAAUEAAUEAAUEAAABBBQBBAgBBDABBAUEAQQAAQQMAAUEAAUEAAA==",
    "a reset leaves the latch": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQQEAAUEAAUECAUEAAABBAAA=",
    "a Retry-After is not bounded": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQREAQQJBAEEA",
    "a cooling circuit counts as calm": "AEEAQQJBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQREAQQBBAEEA",
    "a model whose trial is refused again goes on": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQIAAEEAQRUAAUEAAAFBAEEBQQE=",
    "a slow probe closes": "AEEAQQFBAEEAQQBBAUEAQQBBAUECQQFBAEEAQQBBAEEAQQEAAEEAQQoAAUEAAUEEAEEA",
    "a stale report loses its Retry-After": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQQoAAUEAAUEAAEEAAEEAAABBEQBBAEEAQQA=",
    "a stream that breaks off is two calls": "AEEAQQFBAEEAQQBBAkEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQQIAAUEAAUEBAA==",
    "a success does not forgive lost probes": "AEEAQQFBAEEAQQBBAUEAQQBBAUECQQJBAEEAQQBBAEEAQQEAAEEBQQoAAUEAAUEAAEEAAEEAAUEAQQBBBAEBAQEAAAAAAEEKAUEIAUEAAEEA",
    "a success is counted in a bucket that is over": "AEEAQQlBAEEAQQBBAUEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEAQQAAAEEGAEEBRACxYigAQQ0AQQNBAUEA",
    "of two refusals the shorter is told": "AEEAQQFBAEEAQQBBAUEAQQBBAUECQQFBAEEAQQBBAEEAQQEAAEEAQQoAAUELAUEAAEEAAEEBAAFBAAFBAgFBAAA=",
    "the end of a stream does not end a run": "AEEAQQFBAEEAQQBBAkEAQQBBAUEBQQFBAEEAQQBBAEEAQQEAAEEBQQABQQBBAEEBAABBAgFBAAFBAQFBAAA=",
    "the ramp begins at nothing": "AEEAQQFBAEEAQQBBAUEAQQBBAUEBQQFBAEEBQQBBAEEAQQEAAEEAQQMAAUEAAUEAAA==",
}  # fmt: skip


class Known(ExampleDatabase):
    """Knows one history, of whatever is tested."""

    def __init__(self, history: str) -> None:
        super().__init__()
        self._history = base64.b64decode(history)

    def fetch(self, key: bytes) -> Iterator[bytes]:  # noqa: ARG002  # whatever it is
        """The history."""
        yield self._history

    def save(self, key: bytes, value: bytes) -> None:
        """Learns nothing."""

    def delete(self, key: bytes, value: bytes) -> None:
        """Forgets nothing."""


SEARCH = settings(
    max_examples=2000,  # the hardest needs some hundred
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_model_finds_the_fault(valkey_db: redis.Redis, fault: str) -> None:
    """Within a few hundred runs, the scripts with this fault differ from the reference."""
    name, text, replacement = FAULTS[fault]
    whole = TRIAL if name == "trial" else part(name)
    assert whole.count(text) == 1, "the fault no longer fits the script"
    broken = machine(valkey_db, scripts({name: whole.replace(text, replacement)}))
    with pytest.raises((AssertionError, redis.ResponseError)):
        _until_it_differs(broken, SHOWN_BY.get(fault))


def _until_it_differs(broken: type[RuleBasedStateMachine], known: str | None) -> None:
    if known is not None:
        look = settings(SEARCH, derandomize=False, database=Known(known), phases=[Phase.reuse])
        run_state_machine_as_test(broken, settings=look)
    run_state_machine_as_test(broken, settings=SEARCH)
