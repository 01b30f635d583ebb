"""A state machine that drives the breaker's scripts and the reference side by side."""

import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis
from circuit_reference import US, Circuit, Pin, Report, Rules
from hypothesis import strategies as st
from hypothesis import target
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests_support.scripts import CLOCK, FAKE_CLOCK, POOL, START
from tests_support.straight import say

from limiter_service.engine.breaking import REASONS, decode
from limiter_service.engine.breaking import Circuit as Stored
from limiter_service.store.keys import Keys
from limiter_service.store.scripts import Script, load

TRIAL = Path(__file__).with_name("trial.lua").read_text()
MODEL = "m/1"
STATES = ["closed", "open", "half_open"]
MODES = ["none", "open", "closed", "observe"]
LATCHES = ["none", "quota_exhausted", "credentials_refused"]
CLASSES = {"success": 1, "failure": 2, "throttle": 3, "neutral": 4, "quota": 5, "refused": 6}
CLASSES |= {"model_quota": 7, "model_refused": 8}
OUTCOMES = [*["success"] * 4, *["failure"] * 5, *["throttle"] * 2, *["neutral"] * 3]
OUTCOMES += ["quota", "refused", "refused", "model_quota", "model_refused", "model_refused"]

done: Counter[str] = Counter()
"""What all machines of this process have compared."""


class Call(NamedTuple):
    """A call that was let through."""

    token: int
    generation: int
    probe: bool


class Loaded(NamedTuple):
    """The scripts under test."""

    trial: Script
    override: Script


def scripts(faults: Mapping[str, str] | None = None) -> Loaded:
    """The scripts with the fake clock, and with other texts for the files in *faults*."""
    parts = {"trial": TRIAL, "lib/clock": FAKE_CLOCK, **(faults or {})}
    return Loaded(load("trial", parts), load("override", parts))


_shares = st.sampled_from([0.25, 0.5, 0.75, 1.0])
RULES = st.builds(
    Rules,
    span=st.sampled_from([US, 5 * US]),
    least=st.integers(1, 12),
    failures=_shares,
    slow=st.sampled_from([0.5, 0.75, 2.0]),
    run=st.sampled_from([0, 1, 3, 5]),
    workers=st.integers(1, 3),
    jitter=st.sampled_from([0.0, 0.25]),
    decay=st.sampled_from([20 * US, 60 * US]),
    probes=st.integers(1, 3),
    needed=st.integers(1, 4),
    lost=st.integers(1, 3),
    throttled=st.sampled_from([0.5, 0.75, 2.0, 2.0]),
    ramp=st.sampled_from([0, 10 * US]),
    burst=st.sampled_from([US // 4, US // 4, 1]),
    ratio=st.sampled_from([0.25, 0.25, -1.0]),
    floor=st.sampled_from([0.0, 1e-6, 3e-7]),
    refused=st.integers(1, 3),
    wide=st.booleans(),
)
_workers = st.integers(0, 3)
_luck = st.sampled_from([0.0, 0.25, 0.5, 0.9990234375])
_asked = st.sampled_from([0, 0, 2 * US, 15 * US, 90 * US])


class Circuits(RuleBasedStateMachine):
    """One circuit and its pin, on a real server and in the reference."""

    client: redis.Redis
    loaded: Loaded

    @initialize(rules=RULES)
    def begin(self, rules: Rules) -> None:
        """An empty store and a policy."""
        self.client.flushall()
        keys = Keys(POOL)
        self.keys = [keys.circuit(MODEL), keys.pin(), keys.events()]
        self.note, self.events = keys.note(MODEL), keys.events()
        self.rules, self.circuit, self.pin = rules, Circuit(rules), Pin(rules)
        self.policy = struct.pack("<26d", *rules.numbers(), 0) + MODEL.encode()
        self.wall, self.token = START, 1
        self.calls: list[Call] = []
        self.past: list[Report] = []
        self.opens = self.probes = 0

    # Single steps.

    @rule(room=st.sampled_from([True, True, True, False]), attempt=st.integers(1, 3), luck=_luck)
    def acquire(self, room: bool, attempt: int, luck: float) -> None:
        """Somebody asks."""
        self.ask(room=room, attempt=attempt, luck=luck)

    def ask(self, *, room: bool, attempt: int, luck: float) -> bool:
        """One acquire; *room* is whether its limits would grant it. Whether it was granted."""
        self.token += 1
        now, stepped = self.circuit.clock.now(self.wall)
        pin_now, pin_stepped = self.pin.clock.now(self.wall)
        why, wait, probe = self.circuit.gate(now, luck)
        trial = sure = False
        sure = True
        if self.circuit.override == "none":
            pinned, longer, trial = self.pin.gate(pin_now)
            if pinned != "pass" and (why == "pass" or longer > wait):
                why, wait, probe, trial = pinned, longer, False, False
            elif why == "pass" and attempt > 1:
                sure = abs(self.pin.balance(pin_now) - 1) > 1e-6
                if not self.pin.retry(pin_now):
                    why, wait, probe, trial = "retry_budget", -2, False, False
        decided, events = self._run(1, [self.token, room, attempt, luck])
        found = REASONS[decided[0]] or "pass"
        if not sure:
            why = found
        assert found == why, f"{found} instead of {why}"
        done[why] += 1
        if why == "retry_budget":
            assert decided[1] > 0, "when to retry"
        else:
            assert decided[1] == wait, f"told to wait {decided[1]} instead of {wait}"
        if why == "pass" and room:
            assert decided[2] == probe, "whether it is a probe"
            if probe:
                self.circuit.probe(now, self.token)
            if trial:
                self.pin.take_trial(pin_now, self.token)
            self.pin.attempt(pin_now, attempt, self.token)
            self.calls.append(Call(self.token, self.circuit.generation, probe))
            self.probes += probe
            done["probes"] += probe
        self._compare(events, stepped, pin_stepped)
        return why == "pass" and room

    @rule(
        what=st.sampled_from(OUTCOMES),
        nth=st.integers(0, 5),
        worker=_workers,
        slow=st.booleans(),
        asked=_asked,
        early=st.sampled_from([False, False, False, True]),
        luck=_luck,
    )
    def end(
        self, what: str, nth: int, worker: int, slow: bool, asked: int, early: bool, luck: float
    ) -> None:
        """A call that was let through ends, in whatever order."""
        if not self.calls:
            self.ask(room=True, attempt=1, luck=luck)
        if self.calls:
            call = self.calls.pop(-1 - nth % len(self.calls))
            self.settle(
                Report(
                    what=what, generation=call.generation, token=call.token, worker=worker,
                    slow=slow, asked=asked, early=early, luck=luck,
                )
            )  # fmt: skip

    def settle(self, r: Report) -> None:
        """One report."""
        now, stepped = self.circuit.clock.now(self.wall)
        pin_now, pin_stepped = self.pin.clock.now(self.wall)
        self.pin.report(pin_now, r)
        taken = self.circuit.report(now, r)
        order = [CLASSES[r.what], r.generation, r.token, r.worker, r.slow, r.asked, r.early, r.luck]
        order.append(r.begun)
        decided, events = self._run(2, order)
        assert decided[0] == taken, f"{decided[0]} instead of {taken}"
        done[taken] += 1
        self.past.append(r)
        self._compare(events, stepped, pin_stepped)

    @precondition(lambda self: self.past)
    @rule(nth=st.integers(0, 3))
    def repeat(self, nth: int) -> None:
        """The report of a probe arrives twice, or that of any call very late."""
        r = self.past[-1 - nth % len(self.past)]
        if r.generation != self.circuit.generation or self.circuit.state == "half_open":
            self.settle(r)

    @rule(step=st.one_of(st.integers(0, US), st.integers(US, 20 * US), st.sampled_from([61 * US])))
    def wait(self, step: int) -> None:
        """Time passes."""
        self.wall += step

    @rule(halves=st.integers(1, 3))
    def wait_leases(self, halves: int) -> None:
        """Half a lease, a lease, one and a half."""
        self.wall += halves * self.rules.lease // 2

    @rule(step=st.sampled_from([-1, -2 * US, -3600 * US]))
    def step_back(self, step: int) -> None:
        """The store fails over to a host that is behind."""
        self.wall += step

    # Steering: what a random walk does not find.

    def until(self, then: int, off: int = 0) -> None:
        """Move the clock to a time inside the circuit."""
        now, _ = self.circuit.clock.now(self.wall)
        self.wall += max(0, then + off - now)

    @precondition(lambda self: self.circuit.state == "open" and self.circuit.override == "none")
    @rule(k=st.integers(1, 5), off=st.sampled_from([-1, 0, 0, 1]), luck=_luck)
    def half_open_round(self, k: int, off: int, luck: float) -> None:
        """Many ask in the moment when the circuit may be probed."""
        self.until(max(self.circuit.open_until, self.circuit.cool), off)
        self.ask(room=k != 5, attempt=1, luck=luck)
        for _ in range(k):
            self.ask(room=True, attempt=1, luck=luck)

    @precondition(lambda self: self.circuit.probes)
    @rule(
        outcomes=st.lists(st.sampled_from(["success"] * 3 + ["neutral", "throttle", "failure"]),
                          min_size=1, max_size=4),
        worker=_workers, slow=st.sampled_from([False, False, False, True]), asked=_asked,
    )  # fmt: skip
    def probes_end(self, outcomes: list[str], worker: int, slow: bool, asked: int) -> None:
        """Probes report one after the other, and others take their place."""
        for what in outcomes:
            held = [call for call in self.calls if call.token in self.circuit.probes]
            if not held:
                break
            self.calls.remove(held[0])
            self.settle(
                Report(
                    what=what, generation=held[0].generation, token=held[0].token,
                    worker=worker, slow=slow, asked=asked,
                )
            )  # fmt: skip
            self.ask(room=True, attempt=1, luck=0.5)

    @rule(
        acts=st.lists(
            st.sampled_from(
                [
                    *["success"] * 4,
                    "slow",
                    "neutral",
                    "failure",
                    "pause",
                    "lose",
                    "lose",
                    "late",
                    "broken",
                    "begun",
                    "stray",
                ]
            ),
            min_size=2,
            max_size=6,
        ),
        healthy=st.sampled_from([0, 0, 20 * US, 61 * US]),
    )
    def outage(self, acts: list[str], healthy: int) -> None:
        """A circuit opens and is probed: probes succeed, fail, are throttled, or are lost."""
        self.wall += healthy
        if self.circuit.state == "closed":
            self.run_of("failure", 13, 0, 3, slow=False, gap=0)
        if self.circuit.state == "open" and self.circuit.override == "none":
            self.until(max(self.circuit.open_until, self.circuit.cool))
        for act in acts:
            for _ in range(2):
                self.ask(room=True, attempt=1, luck=0.5)
            if not self.circuit.probes:
                return
            token = next(iter(self.circuit.probes))
            if act in {"lose", "late"}:
                self.until(self.circuit.probes[token])
                if act == "late":
                    generation = self.circuit.generation
                    self.settle(Report(what="success", generation=generation, token=token))
            elif act == "pause":
                asked = Report(
                    what="throttle", generation=self.circuit.generation, token=token, asked=2 * US
                )
                self.settle(asked)
                self.ask(room=True, attempt=1, luck=0.5)
            elif act == "stray":
                # A stream whose probe was lost breaks: it is nobody's vote.
                generation = self.circuit.generation
                self.settle(Report(what="failure", generation=generation, token=1, early=True))
            elif act in {"broken", "begun"}:
                end = Report(
                    what="failure" if act == "broken" else "success",
                    generation=self.circuit.generation, token=token, early=True,
                )  # fmt: skip
                begun = msgspec.structs.replace(end, what="success", early=False, begun=True)
                self.settle(begun)
                self.ask(room=True, attempt=1, luck=0.5)
                self.settle(end)
            else:
                what, slow = ("success", True) if act == "slow" else (act, False)
                generation = self.circuit.generation
                self.settle(Report(what=what, generation=generation, token=token, slow=slow))

    @precondition(lambda self: self.circuit.override == "none")
    @rule(healthy=st.lists(st.sampled_from([0, US, 20 * US, 45 * US, 61 * US]), min_size=2,
          max_size=3))  # fmt: skip
    def relapses(self, healthy: list[int]) -> None:
        """A circuit opens, recovers, and after some time opens again."""
        for time in healthy:
            self.run_of("failure", 13, 0, 3, slow=False, gap=0)
            for _ in range(self.rules.needed):
                if self.circuit.state == "open":
                    self.until(max(self.circuit.open_until, self.circuit.cool))
                if not self.ask(room=True, attempt=1, luck=0.5):
                    break
                call = self.calls[-1]
                self.settle(Report(what="success", generation=call.generation, token=call.token))
            self.wall += time

    @rule(good=st.integers(1, 2), bad=st.integers(3, 9), rotten=_workers)
    def bad_worker(self, good: int, bad: int, rotten: int) -> None:
        """One worker fails while others do not."""
        self.run_of("success", good, rotten + 1, 2, slow=False, gap=0)
        self.run_of("failure", bad, rotten, 1, slow=False, gap=US // 8)

    @precondition(lambda self: self.circuit.state == "half_open")
    @rule(times=st.integers(1, 4), off=st.sampled_from([-1, 0, 1]))
    def lose_probes(self, times: int, off: int) -> None:
        """Holders of probes die, and others ask when their leases end."""
        for _ in range(times):
            if not self.circuit.probes:
                break
            self.until(max(self.circuit.probes.values()), off)
            self.ask(room=True, attempt=1, luck=0.25)
            if self.calls and off == 0:
                late = self.calls[0]
                self.settle(Report(what="success", generation=late.generation, token=late.token))

    @rule(first=st.sampled_from([20 * US, 35 * US, 90 * US]), second=st.sampled_from([1, 3 * US]),
          what=st.sampled_from(["throttle", "failure"]))  # fmt: skip
    def throttle_pair(self, first: int, second: int, what: str) -> None:
        """A long Retry-After, then a shorter one."""
        for asked in (first, second):
            if not self.calls:
                self.ask(room=True, attempt=1, luck=0.5)
            if self.calls:
                call = self.calls.pop()
                kind = "throttle" if asked == second else what
                self.settle(
                    Report(what=kind, generation=call.generation, token=call.token, asked=asked)
                )
        self.ask(room=True, attempt=1, luck=0.5)

    @rule(off=st.sampled_from([-1, 0, 1]), buckets=st.integers(1, 13), what=st.sampled_from(
          ["failure", "success"]))  # fmt: skip
    def window_edge(self, off: int, buckets: int, what: str) -> None:
        """Calls end just before, at and after the edge of a bucket."""
        now, _ = self.circuit.clock.now(self.wall)
        self.wall += (now // self.rules.span + buckets) * self.rules.span - now + off
        self.run_of(what, 2, 0, 1, slow=False, gap=0)

    @rule(
        what=st.sampled_from(["failure", "success", "throttle", "neutral"]),
        count=st.integers(1, 9),
        worker=_workers,
        workers=st.integers(1, 3),
        slow=st.booleans(),
        gap=st.sampled_from([0, 50_000, US // 8]),
    )
    def run_of(
        self, what: str, count: int, worker: int, workers: int, *, slow: bool, gap: int
    ) -> None:
        """Calls of one or more workers end alike."""
        for i in range(count):
            if not self.calls and not self.ask(room=True, attempt=1, luck=0.5):
                return
            call = self.calls.pop()
            self.wall += gap
            self.settle(
                Report(
                    what=what, generation=call.generation, token=call.token,
                    worker=worker + i % workers, slow=slow,
                )
            )  # fmt: skip

    @rule(outcomes=st.lists(st.sampled_from(["success", "failure"]), min_size=1, max_size=6))
    def first_tokens(self, outcomes: list[str]) -> None:
        """Streams report their first token, and then end well or badly."""
        for i, what in enumerate(outcomes):
            if not self.calls and not self.ask(room=True, attempt=1, luck=0.5):
                return
            call = self.calls.pop()
            end = Report(
                what=what, generation=call.generation, token=call.token, worker=i % 2, early=True
            )
            self.settle(msgspec.structs.replace(end, what="success", early=False, begun=True))
            self.settle(end)

    @rule(what=st.sampled_from(["success", "quota", "refused", "neutral", "failure"]),
          first=st.sampled_from(["quota", "refused"]),
          off=st.sampled_from([-1, 0, 0]), die=st.booleans())  # fmt: skip
    def latched(self, what: str, first: str, off: int, die: bool) -> None:
        """A pool is latched, its time ends, one call may try, and its end decides."""
        if self.pin.latch == "none":
            self.run_of(first, 3, 0, 1, slow=False, gap=0)
        now, _ = self.pin.clock.now(self.wall)
        self.wall += max(0, self.pin.until + off - now)
        if self.ask(room=True, attempt=1, luck=0.5):
            self.ask(room=True, attempt=1, luck=0.5)
            call = self.calls[-1]
            if die:
                self.wall += self.rules.lease
                self.ask(room=True, attempt=1, luck=0.5)
            self.settle(Report(what=what, generation=call.generation, token=call.token))
            self.ask(room=True, attempt=1, luck=0.5)

    @rule(first=st.sampled_from(["model_quota", "model_refused"]),
          acts=st.lists(st.sampled_from(["success", "success", "model_quota", "model_refused",
          "failure", "neutral"]), min_size=1, max_size=4),
          off=st.sampled_from([-1, 0, 0]), asked=_asked, again=st.booleans())  # fmt: skip
    def model_latched(
        self, first: str, acts: list[str], off: int, asked: int, *, again: bool
    ) -> None:
        """One model is latched, its time ends, and probes find out."""
        for _ in range(3):
            if not self.ask(room=True, attempt=1, luck=0.5):
                break
            call = self.calls.pop()
            generation, token = call.generation, call.token
            self.settle(Report(what=first, generation=generation, token=token, asked=asked))
        if self.circuit.state == "open" and self.circuit.override == "none":
            self.until(self.circuit.open_until, off)
        for what in [first] * again + acts:
            if self.ask(room=True, attempt=1, luck=0.5):
                call = self.calls.pop()
                self.settle(Report(what=what, generation=call.generation, token=call.token))

    @rule(outcomes=st.lists(st.sampled_from(["success", "success", "refused", "model_refused"]),
          min_size=3, max_size=8))  # fmt: skip
    def credentials(self, outcomes: list[str]) -> None:
        """Credentials are refused now and then; a success of the same moment forgives."""
        for what in [*outcomes, "success", "model_refused", "success"]:
            self.run_of(what, 1, 0, 1, slow=False, gap=0)

    @rule(mode=st.sampled_from(["closed", "observe", "observe", "open"]),
          life=st.sampled_from([-1, 8 * US]))  # fmt: skip
    def held(self, mode: str, life: int) -> None:
        """Calls fail while an operator holds the circuit."""
        self.order(mode=mode, life=life, expected="right")
        self.run_of("failure", 13, 0, 3, slow=False, gap=0)
        self.run_of("failure", 2, 0, 2, slow=False, gap=US // 8)

    @rule(
        firsts=st.integers(0, 9), retries=st.integers(1, 12), gap=st.sampled_from([0, US, 5 * US])
    )
    def retry_storm(self, firsts: int, retries: int, gap: int) -> None:
        """First attempts, then retries until they are refused."""
        for _ in range(firsts):
            self.ask(room=True, attempt=1, luck=0.5)
        self.wall += gap
        for _ in range(retries):
            self.ask(room=True, attempt=2, luck=0.5)

    # Operators.

    @rule(mode=st.sampled_from(MODES), life=st.sampled_from([-1, US, 8 * US]),
          expected=st.sampled_from(["any", "any", "right", "wrong"]))  # fmt: skip
    def order(self, mode: str, life: int, expected: str) -> None:
        """An operator holds the circuit, or lets go of it."""
        now, stepped = self.circuit.clock.now(self.wall)
        self.circuit.lift(now)
        generation = self.circuit.generation
        asked = {"any": -1, "right": generation, "wrong": generation + 1}[expected]
        letter = self._order(MODES.index(mode), life, asked)
        assert letter == ("C" if expected == "wrong" else "G"), "the generation that was expected"
        if letter == "G" and (mode != "none" or self.circuit.override != "none"):
            until = 0 if mode == "none" else -1 if life < 0 else now + life
            self.circuit.hold(mode, until, now, "why")
        self.circuit.dirty |= letter == "G"
        held = letter == "G" and mode != "none"
        assert not held or self.client.exists(self.note), "the note of who holds it"
        self._compare(None, stepped, stepped_pin=False)
        self._assert_kept()

    @precondition(lambda self: self.circuit.override_until > 0)
    @rule(off=st.sampled_from([-1, 0]), luck=_luck)
    def override_ends(self, off: int, luck: float) -> None:
        """The time of an override is over, perhaps while calls are under way."""
        self.until(self.circuit.override_until, off)
        self.ask(room=True, attempt=1, luck=luck)

    @rule()
    def reset(self) -> None:
        """An operator says that all is well."""
        now, stepped = self.circuit.clock.now(self.wall)
        _, pin_stepped = self.pin.clock.now(self.wall)
        self.circuit.lift(now)
        latched = self.pin.latch != "none" or self.pin.refused or self.pin.cool
        if latched:
            self.pin.release("why")
            self.pin.cool = 0
        assert self._order(-1, -1, -1) == "G"
        self.circuit.reset("why")
        self._compare(None, stepped, bool(latched and pin_stepped))

    # Comparison.

    def _run(self, what: int, values: list[Any]) -> tuple[list[Any], list[Any]]:
        order = struct.pack(f"<{len(values) + 1}d", what, *values)
        answer = self._call(self.loaded.trial, self.keys, [self.policy, order])
        decided, events, self.generation, self.factor = msgspec.msgpack.decode(answer)
        return decided or [], events or []

    def _order(self, mode: int, life: int, expected: int) -> str:
        self.token += 1
        order = struct.pack("<5d", self.token, mode, life, expected, 0)
        keys = [*self.keys[:2], self.note, self.keys[2]]
        arguments = [self.policy, order, b"note", b"actor", b"why", b"channel"]
        answer = self._call(self.loaded.override, keys, arguments)
        published = self._published()
        if answer[8:9] == b"G":
            again = self._call(self.loaded.override, keys, arguments)
            assert again == answer, "an order whose answer was lost is given again"
            assert self._published() == [], "an order that is given again tells nothing"
        self.told = published
        (self.generation,) = struct.unpack("<d", answer[9:])
        self.factor = -1.0
        return chr(answer[8])

    def _call(self, script: Script, keys: list[Any], arguments: list[Any]) -> Any:
        asked = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        clock = ("SET", CLOCK, self.wall, "EX", 3600)
        told = (("GET", self.keys[0]), ("GET", self.keys[1]))
        try:
            replies = say(self.client, clock, ("DEL", self.events), asked, *told)
        except redis.exceptions.NoScriptError:
            replies = say(self.client, ("EVAL", script.text, *asked[2:]), *told)
        *_, answer, self.stored, self.pinned = replies
        return answer

    def _compare(self, events: list[Any] | None, stepped: bool, stepped_pin: bool) -> None:
        done["steps"] += 1
        for side, back in ((self.circuit, stepped), (self.pin, stepped_pin)):
            if side.dirty or back:
                side.clock.write(self.wall)
                side.dirty = False
        told = self.pin.told + self.circuit.told
        self.circuit.told, self.pin.told = [], []
        found = self.told if events is None else [_event(e) for e in events]
        assert sorted(found) == sorted(told), f"events {found} instead of {told}"
        opens = sum(e[2] == "open" and e[0] == "breaker" for e in told)
        self.opens += opens
        done["opens"] += opens
        self._compare_circuit()
        self._compare_pin()

    def _compare_circuit(self) -> None:
        mine, now = self.circuit, self.circuit.clock.now(self.wall)[0]
        assert self.generation == mine.generation, "generation"
        if self.factor >= 0:
            assert abs(self.factor - mine.ramp(now)) < 1e-9, "ramp"
        text = self.stored
        stored = decode(struct.unpack(f"<{len(text) // 8}d", text) if text else None)
        expected = {
            "state": STATES.index(mine.state),
            "generation": mine.generation,
            "open_until": mine.open_until,
            "opened": mine.opened,
            "cool": mine.cool,
            "override": MODES.index(mine.override),
            "override_until": mine.override_until,
            "passed": mine.passed,
            "lost": mine.lost,
            "run": len(mine.row),
            "closed_at": mine.closed_at,
            "latch": LATCHES.index(mine.latch),
            "refusals": mine.refusals,
        }
        found = {name: getattr(stored, name) for name in expected}
        assert found == expected, f"{found} instead of {expected}"
        assert dict(stored.probes) == mine.probes, "probes under way"
        self._compare_window(stored)

    def _compare_window(self, stored: Stored) -> None:
        sums = [sum(stored.window[i::6]) for i in range(4)]
        tally = [self.circuit.tally(what) for what in ("ok", "failed", "slow", "throttled")]
        assert sums == tally, f"window {sums} instead of {tally}"
        for field, what in ((4, "failed"), (5, "seen")):
            bits = 0
            for workers in stored.window[field::6]:
                bits |= int(workers)
            expected = sum(1 << worker for worker in self.circuit.workers(what))
            assert bits == expected, f"workers {bits:b} instead of {expected:b}"

    def _compare_pin(self) -> None:
        mine, now = self.pin, self.pin.clock.now(self.wall)[0]
        text = self.pinned
        if not text:
            assert (mine.latch, mine.cool, mine.refused) == ("none", 0, 0)
            return
        _, _, seen, balance, latch, until, _, trial, deadline, refused, cool = struct.unpack(
            "<11d", text
        )
        assert LATCHES[int(latch)] == mine.latch, "latch"
        held = (trial, deadline) if deadline else None
        assert (until, held, refused, cool) == (mine.until, mine.trial, mine.refused, mine.cool)
        kept = mine.balance(int(seen))
        assert abs(balance - kept) < 1e-6, f"retry budget {balance} instead of {kept}"
        assert now >= seen

    def _published(self) -> list[tuple[str, ...]]:
        entries = self.client.xrange(self.events)
        return [_event([x for pair in fields.items() for x in pair]) for _, fields in entries]

    def _assert_kept(self) -> None:
        kept = self.client.pttl(self.keys[0])
        forever = self.circuit.override != "none" and self.circuit.override_until < 0
        if self.client.exists(self.keys[0]):
            assert (kept == -1) == forever, "how long the circuit is kept"

    def teardown(self) -> None:
        """A store must not be left with what an operator keeps for ever."""
        if hasattr(self, "opens"):
            target(float(self.opens), label="opens")
            target(float(self.probes), label="probes")
        self.client.flushall()


def _event(fields: list[Any]) -> tuple[str, ...]:
    texts = [field.decode() if isinstance(field, bytes) else str(field) for field in fields]
    told = dict(zip(texts[::2], texts[1::2], strict=True))
    return (told["type"], told.get("from", ""), told.get("to", ""), told.get("reason", ""))


def machine(client: redis.Redis, loaded: Loaded) -> type[Circuits]:
    """The machine over one server and one set of scripts."""
    return type("CircuitsHere", (Circuits,), {"client": client, "loaded": loaded})
