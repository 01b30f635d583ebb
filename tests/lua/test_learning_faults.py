"""The model of learned limits can fail: each fault below, planted in the Lua, is found by it."""

from collections.abc import Callable
from random import Random

import pytest
import redis
from histories import Step
from learning_histories import drawn, run

from limiter_service.store.scripts import part

# What is broken: part, text, its replacement. One line each, as a slip of the pen would be.
FAULTS = {
    "two statements are enough": ("lib/learning", "k[L_SEEN] >= SIGHTINGS", "k[L_SEEN] >= 2"),
    "other statements in between do not matter": ("lib/learning", "k[L_OTHER], k[L_SEEN], k[L_FIRST] = o.stated, 0, now", "k[L_OTHER], k[L_FIRST] = o.stated, now"),
    "a limit grows at once": ("lib/learning", "(lower or now >= k[L_FIRST] + SPREAD)", "true"),
    "a refusal states no limit": ("lib/learning", "if not often and not (lower and o.refused) then", "if not often then"),
    "a refusal raises a limit": ("lib/learning", "not (lower and o.refused)", "not o.refused"),
    "what was said before the last change counts": ("lib/learning", "elseif granted < k[L_SINCE] then", "elseif false then"),
    "a statement is not renewed": ("lib/learning", "      k[L_UNTIL] = now + o.life\n    end\n    return", "    end\n    return"),
    "a stated limit never ends": ("lib/learned", "elseif k[L_LIMIT] > 0 and now < k[L_UNTIL] then", "elseif k[L_LIMIT] > 0 then"),
    "a higher limit counts where limits only shrink": ("lib/learned", "if mode == BOTH then", "if mode <= BOTH then"),
    "a limit that may grow only shrinks": ("lib/learned", "if mode == BOTH then", "if false then"),
    "a stated limit counts before an operator's": ("lib/learned", "if is_held(k, now) then\n      capacity", "if is_held(k, now) and k[L_LIMIT] == 0 then\n      capacity"),
    "an override never ends": ("lib/learned", "k[L_HELD] > 0 and (k[L_HELD_UNTIL] < 0 or now < k[L_HELD_UNTIL])", "k[L_HELD] > 0"),
    "terms are not looked at anew": ("lib/learned", "if math.max(wall + s[SKEW], s[TIME]) >= s[at] then", "if false then"),
    "terms are forgotten by the next write": ("lib/limits", "last = last + TERMS + 2 * q[COUNT]", "s[VERSION] = q[VERSION]"),
    "a reload forgets what is learned": ("lib/scope", 'aside = (aside or "") .. learned().text(records, now)', 'aside = aside or ""'),
    "a rate stays when its limit falls": ("lib/learned", "q[p + 3] = list[at + 1]", "q[p + 3] = q[p + 3]"),
    "a capacity stays when its limit falls": ("lib/learned", "q[p + 2] = list[at]\n", "q[p + 2] = q[p + 2]\n"),
    "what remains raises a level": ("lib/learning", "local fixed = excess and excess >= 1 and fixed_since(k, granted)\n  if fixed and excess - fixed >= 1 then", "local fixed = excess and fixed_since(k, granted)\n  if fixed then"),
    "a correction is made by everybody who was told": ("lib/learning", "      return sum\n", "      return 0\n"),
    "a level is compared with now, not with the grant": ("lib/learning", "excess = cell[cell_at] + back - o.remaining", "excess = s[at] + back - o.remaining"),
    "a refused call is counted against what remains": ("lib/learning", "excess = cell[cell_at] + back - o.remaining", "excess = cell[cell_at] - o.remaining"),
    "a bucket that was whole since is corrected": ("lib/learning", "if s[at] >= capacity and excess <= q[p + 3] * (now - granted) then", "if false then"),
    "what was said of a window that has ended counts": ("lib/learning", "if later > 30 or kind == 3 and later ~= 0 then", "if false then"),
    "a settle learns nothing": ("lib/settle_any", "  elseif told_limits then\n", "  elseif false then\n"),
    "an observation is not written": ("observe", 'save_all("", wall)', "wall = wall"),
    "a change is told twice": ("observe", "learning.publish(events, KEYS[#KEYS], model, wall)\nif g.c", "learning.publish(events, KEYS[#KEYS], model, wall)\nlearning.publish(events, KEYS[#KEYS], model, wall)\nif g.c"),
    "calls granted before a cut cut again": ("lib/learning", "if granted > k[L_CUT] and", "if granted > 0 and"),
    "a cut has no floor": ("lib/learning", "math.max(parts, LEAST) / PARTS", "math.max(parts, 1) / PARTS"),
    "a second cut starts from the whole": ("lib/learning", "math.floor(CUT * PARTS * learned().share(k, now))", "math.floor(CUT * PARTS)"),
    "a cut leaves the level": ("lib/learning", "    s[at] = math.min(s[at], 0)\n", ""),
    "a rate that was cut stays so": ("lib/learned", "k[L_SHARE] + math.floor(math.max(0, now - k[L_CUT]) / REGAINED) / PARTS", "k[L_SHARE]"),
    "a rate grows back twice as fast": ("lib/learned", "math.floor(math.max(0, now - k[L_CUT]) / REGAINED) / PARTS", "2 * math.floor(math.max(0, now - k[L_CUT]) / REGAINED) / PARTS"),
    "a share is looked at anew too late": ("lib/learned", "now + REGAINED - math.max(0, now - k[L_CUT]) % REGAINED", "now + REGAINED"),
    "a cut counts under an override": ("lib/learned", "if share < 1 and not is_held(k, now) then", "if share < 1 then"),
    "an override is cut": ("lib/learning", " and not learned().is_held(k, now) then\n    local parts", " then\n    local parts"),
    "refusals without a lease cut each time": ("lib/learning", "n and granted or now - REGAINED, now)", "granted, now)"),
}  # fmt: skip

_HISTORIES = 300

# Where the search would be long, it begins with a history that is known to show the fault. When
# it does so no more, as after a change of what is drawn, the fault is searched for as any other.
SHOWN_BY = {
    "what was said of a window that has ended counts": 70,
    "a cut has no floor": 190,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_model_finds_the_fault(valkey_db: redis.Redis, fault: str) -> None:
    """Within some hundred histories, the scripts with this fault differ from the reference."""
    name, text, replacement = FAULTS[fault]
    whole = part(name)
    assert whole.count(text) == 1, "the fault no longer fits the script"
    one = run(valkey_db, {name: whole.replace(text, replacement)})

    with pytest.raises((AssertionError, redis.ResponseError)):
        _until_it_differs(one, SHOWN_BY.get(fault, 0))


def _until_it_differs(one: Callable[[tuple[int, list[Step]]], None], first: int) -> None:
    for seed in (first, *range(_HISTORIES)):
        one(drawn(Random(seed)))
