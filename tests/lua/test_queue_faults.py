"""The queue's model test can fail: each fault below, planted in the Lua, is found by it."""

from collections.abc import Callable
from random import Random

import pytest
import redis
from queue_histories import Step, drawn, run

from limiter_service.store.scripts import part

_HISTORIES = 2000

# What is broken: part, text, its replacement. One line each, as a slip of the pen would be.
FAULTS = {
    "a newcomer barges": ("enqueue", "if worst == 0 and not behind then", "if worst == 0 then"),
    "who passes others has not had its turn": ("enqueue", "m[MODEL_VIRTUAL] = m[MODEL_VIRTUAL] + terms[3]", "m = m"),
    "a newcomer passes its own line": ("enqueue", "local behind = why ~= PASS or line and true", "local behind = why ~= PASS"),
    "a newcomer passes its tenant's sleepers": ("enqueue", 'behind = redis.call("HEXISTS", book, "z" .. tenant) == 1', "behind = false"),
    "a refused newcomer keeps a place": ("enqueue", "if max_wait <= 0 then", "if max_wait < 0 then"),
    "a grant can be fetched twice": ("enqueue", 'redis.call("ZREM", grants, digest .. struct.pack("<d", t[2]))', ""),
    "asking again does not bring the caller into sight": ("enqueue", "t[SEEN], t[HOLDER] = wall, replica", "wall = wall"),
    "asking again does not bring the amounts up to date": ("enqueue", "text, t[SHAPE], t[NEEDS] = request, terms[8], ask[LIMITS]", "t[SHAPE] = terms[8]"),
    "a waiter whose time is over stays": ("enqueue", "if wall >= t[DEADLINE] then\n    leave(its_id, digest, t, text, q, open_model(string.sub(its_id, 1, 8), q), wall)\n", "if wall >= t[DEADLINE] then\n"),
    "a deadline is not kept in a pass": ("lib/serving", "if not in_sight(t) or wall >= t[DEADLINE] then", "if not in_sight(t) then"),
    "who asks again too late has not been there": ("lib/serving", 'redis.call("ZADD", grants, wall + patience, digest .. struct.pack("<d", t[HOLDER]))\n      end', "end"),
    "who is late is told so for ever": ("enqueue", 'redis.call("ZREM", grants, digest .. struct.pack("<d", t[HOLDER]))', ""),
    "a vanished caller is granted": ("lib/serving", "if not in_sight(t) or wall >= t[DEADLINE] then", "if wall >= t[DEADLINE] then"),
    "a replica lives for ever": ("lib/waiting", 'text and wall - struct.unpack("<d", text) <= grace or false', "text and true or false"),
    "a caller that was let go keeps its replica": ("cancel", "t[HOLDER], t[SEEN] = 0, wall", "t[SEEN] = wall"),
    "a short waiter closes nothing": ("lib/serving", "close(scope, id, c.rank == 0 and -1 or c.turn)", "id = id"),
    "who spends a reserved share closes nothing to those before it": ("lib/serving", "c.rank == 0 and -1 or c.turn", "c.turn"),
    "who has just come closes nothing": ("enqueue", "  close_behind_it()\nend", "end"),
    "who has just come closes more than a pass would": ("enqueue", "if short or blocked then", "if false then"),
    "who has just come is short of its own limit, and closes others": ("enqueue", "if scope >= first_of_tenant and short then", "if false then"),
    "who is short lets its model go on": ("lib/serving", "    fronts[c.model] = nil\n    return true", "    return skip(c)"),
    "a closed limit of the pool is passed": ("lib/serving", "local behind = shut and", "local behind = level ~= 1 and shut and"),
    "a tenant that is short holds up the model": ("lib/serving", "if level < 3 and due then", "if false then"),
    "a tenant's sleepers wake alone": ("lib/serving", "wake_tenant(string.sub(id, 9, 16))", "wake(id, (model_of(id)))"),
    "sleepers do not wake when a settle makes room": ("lib/serving", "wake_tenant(string.sub(room_again, i, i + 7))", "i = i"),
    "sleepers do not wake when they are due": ("lib/serving", "for _, id in ipairs(due) do", "for _, id in ipairs({}) do"),
    "who has slept does not keep its tenant's limit": ("lib/serving", "if t[PATIENT] == 1 then", "if false then"),
    "weights do not count": ("lib/queue", "line[LINE_TAG] = math.max(m[MODEL_VIRTUAL], since) + t[STEP]", "line[LINE_TAG] = math.max(m[MODEL_VIRTUAL], since) + t[COST]"),
    "virtual time stands still": ("lib/serving", "m[MODEL_VIRTUAL] = math.max(m[MODEL_VIRTUAL], c.turn - m[BEHIND_POOL])", "m[MODEL_VIRTUAL] = m[MODEL_VIRTUAL]"),
    "who leaves costs those behind it its turn": ("lib/queue", "line[LINE_TAG] - (served and 0 or line[LINE_STEP])", "line[LINE_TAG]"),
    "a served waiter costs its line nothing": ("lib/queue", "line[LINE_TAG] - (served and 0 or line[LINE_STEP])", "line[LINE_TAG] - line[LINE_STEP]"),
    "a model may fall behind the pool without bound": ("lib/waiting", "math.max(m[BEHIND_POOL], q[VIRTUAL] - m[MODEL_VIRTUAL] - 1)", "m[BEHIND_POOL]"),
    "a reserved share is never spent": ("lib/queue", "local level = credit_of(model, t, wall) - t[COST]", "local level = credit_of(model, t, wall)"),
    "a reserved share does not come back": ("lib/queue", "level + math.max(0, wall - time) * t[SHARE] / t[PERIOD]", "level"),
    "reserved shares are ignored": ("lib/queue", "if t[SHARE] == 0 then", "if true then"),
    "a pass makes one grant too many": ("lib/serving", "pass.granted >= most", "pass.granted > most"),
    "a pass charges nothing": ("lib/serving", "    save(scope, wall)", "    scope = scope"),
    "a grant that comes back refunds nothing": ("cancel", "  settle_lease(lease, nth, held, nothing, 0)\n", ""),
    "a grant that comes back is not written": ("cancel", '  save_all("", wall)\n', ""),
    "a line is last come, first served": ("lib/waiting", '"[" .. id, "(" .. id .. top, "LIMIT", 0, 1', '"[" .. id, "(" .. id .. top, "LIMIT", -1, 1'),
    "a waiter that can never fit stays": ("lib/serving", "if wait == NEVER then\n        return nil", "if wait == NEVER then\n        return false"),
    "waiters by another policy are served by it": ("lib/serving", "elseif chain.shape ~= t[SHAPE] then", "elseif false then"),
    "the time of the next pass is that of the last waiter": ("lib/serving", "if pass.due < 0 or due < pass.due then", "if due > pass.due then"),
    "who is out of sight is not swept": ("sweep", "if not in_sight(glance) then", "if false then"),
    "a sweep ends with its first part": ("sweep", 'return #places == count and places[count] or ""', 'return ""'),
    "a swept caller costs those behind it its turn": ("sweep", "string.sub(id, 1, 8), q), wall)", "string.sub(id, 1, 8), q), wall, true)"),
    "an empty queue stays": ("lib/waiting", 'redis.call("UNLINK", queue, order, front, asleep, grants, book, tickets)', "keep = keep"),
}  # fmt: skip

# Where the search would be long, it begins with a history that is known to show the fault. When
# it does so no more, as after a change of what is drawn, the fault is searched for as any other.
SHOWN_BY = {
    "a waiter whose time is over stays": 19,
    "who is late is told so for ever": 22,
    "a waiter that can never fit stays": 26,
    "a sweep ends with its first part": 32,
    "a served waiter costs its line nothing": 42,
    "who has just come is short of its own limit, and closes others": 45,
    "who spends a reserved share closes nothing to those before it": 67,
    "asking again does not bring the amounts up to date": 80,
    "a reserved share does not come back": 137,
    "who has slept does not keep its tenant's limit": 199,
    "a swept caller costs those behind it its turn": 366,
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_model_finds_the_fault(valkey_db: redis.Redis, fault: str) -> None:
    """Within some hundred histories, the scripts with this fault differ from the reference."""
    name, text, replacement = FAULTS[fault]
    whole = part(name)
    assert whole.count(text) == 1, "the fault no longer fits the script"
    one = run(valkey_db, {name: whole.replace(text, replacement)})

    with pytest.raises((AssertionError, redis.ResponseError, StopIteration, IndexError, KeyError)):
        _until_it_differs(one, SHOWN_BY.get(fault, 0))


def _until_it_differs(one: Callable[[tuple[int, list[Step]]], None], first: int) -> None:
    for seed in (first, *range(_HISTORIES)):
        one(drawn(Random(seed)))
