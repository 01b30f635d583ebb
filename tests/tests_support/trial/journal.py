"""What the scripts have done, written down by themselves, and what the store still knows of it."""

import re
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

import limiter_service
from limiter_service.store import scripts
from tests_support.ledger import Ran

_AROUND = (Path(__file__).parent / "journal.lua").read_text()
_PASS = 'redis.call("HSET", tickets, digest, ticket)\n'
_NOTED = _PASS + (
    "    granted[#granted + 1] = { digest, lease }\n"  # which a pass tells nobody but the waiter
)
_SERVED = """
note.dispatch = function()
  for _, grant in ipairs(granted) do
    journal("pass", hex(grant[1]), "", "........G" .. head(grant[2], 1), true)
  end
end
"""
_CLOCK = """local function now_us()
  local time = redis.call("TIME")
  journal_at = time[1] * 1000000 + time[2]
  return journal_at
end
"""
_LINE = re.compile(
    r"^(\d+):.*? JOURNAL (-?\d+) (\d+) ([a-z ]+) ([0-9a-f]{32}) ([0-9a-f]*)\. ([0-9a-f]*)\.$"
)
_PROMOTED = re.compile(r"^(\d+):.*Setting secondary replication ID")
LONE = -2
"""The number of what services do without the store."""

_LONE = re.compile(r"^LONE (\d+) (alone|longer|ended) ([0-9a-f]{32}) ([0-9a-f]*)\. ([0-9a-f]*)\.$")
_TOGETHER = " together"
_NEAR = 0.05  # seconds, less than any step
_STEP = re.compile(r"^CLOCK (\d+) (-?\d+)$")


def installed(home: Path, slips: Mapping[str, str] | None = None) -> Path:
    """A directory with the service as it is, but for scripts that write down what they do; so does
    the service, of what it grants without the store.

    *slips* are other texts for files under lua/: bugs that are to be found.
    """
    original = Path(limiter_service.__file__).parent
    copy = home / original.name
    copy.mkdir()
    for each in original.iterdir():
        if each.name != "lua":
            (copy / each.name).symlink_to(each)
    shutil.copy(Path(__file__).parent / "lone.py", home / "sitecustomize.py")
    for name, text in _texts(slips or {}).items():
        path = copy / "lua" / f"{name}.lua"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home


def _texts(slips: Mapping[str, str]) -> dict[str, str]:
    names = [path.relative_to(root).with_suffix("") for root in _roots() for path in _lua(root)]
    texts = {str(name): slips.get(str(name)) or scripts.part(str(name)) for name in names}
    texts["lib/clock"] = _CLOCK
    assert texts["lib/serving"].count(_PASS) == 1, "a pass no longer writes down a grant as it did"
    texts["lib/serving"] = texts["lib/serving"].replace(_PASS, _NOTED)
    for name in scripts.NAMES:
        text = _AROUND.replace("-- @decide", texts[name]).replace("@name", name)
        if name == "dispatch":
            text = "local granted = {}\n" + text.replace("-- @served", _SERVED)
        texts[name] = text
    return texts


def _roots() -> Iterator[Path]:
    yield Path(str(scripts._root()))


def _lua(root: Path) -> Iterator[Path]:
    yield from (path for path in root.rglob("*.lua") if not path.name.startswith("."))


class Entry(msgspec.Struct, frozen=True):
    """One line: what ran in which term of which server as a primary, as how manyth of the pool
    (-1: nothing was changed), and when by a clock that nobody has moved; `ahead` is how far the
    server's was. `grouped` is what was decided together with others, in one call.
    """

    term: tuple[int, int]
    nth: int
    at: float
    ahead: float
    ran: Ran
    grouped: bool = False


class _Clocks:
    """How far ahead the clock of each server was when it was read."""

    def __init__(self) -> None:
        self._ahead: dict[int, float] = {}
        self._before: dict[int, float] = {}
        self._read: dict[int, tuple[float, float]] = {}
        self._last = 0.0

    def step(self, pid: int, ahead: float) -> None:
        """It is so far ahead from now on."""
        self._before[pid] = self._ahead.get(pid, 0.0)
        self._ahead[pid] = ahead

    def read(self, pid: int, told: float) -> tuple[float, float]:
        """When a server has read *told*, by a clock that nobody has moved, and how far it was."""
        if self._read.get(pid, (0.0, 0.0))[0] == told:  # by the same call
            by = self._read[pid][1]
        else:
            # What was under way when the clock was moved may have read it before.
            by, old = self._ahead.get(pid, 0.0), self._before.pop(pid, None)
            if old is not None and abs(told - old - self._last) < _NEAR:
                by = old if abs(told - by - self._last) > _NEAR else by
        self._read[pid], self._last = (told, by), told - by
        return self._last, by


def read(path: Path) -> list[Entry]:
    """What is written in a log, in the order in which it happened."""
    entries: list[Entry] = []
    lone: list[Entry] = []
    clocks, promoted = _Clocks(), Counter[int]()
    for line in path.read_text(errors="replace").splitlines():
        if step := _STEP.match(line):
            clocks.step(int(step[1]), int(step[2]) / 1e6)
        elif heir := _PROMOTED.match(line):
            promoted[int(heir[1])] += 1
        elif alone := _LONE.match(line):
            told, name, key, *texts = alone.groups()
            at, (request, reply) = int(told) / 1e6, map(bytes.fromhex, texts)
            lone.append(Entry((0, 0), LONE, at, 0.0, Ran(at, name, key, request, reply)))
        elif found := _LINE.match(line):
            pid, name = int(found[1]), found[4].removesuffix(_TOGETHER)
            at, ahead = clocks.read(pid, int(found[3]) / 1e6)
            ran = Ran(at, name, found[5], bytes.fromhex(found[6]), bytes.fromhex(found[7]))
            term, grouped = (pid, promoted[pid]), name != found[4]
            entries.append(Entry(term, int(found[2]), at, ahead, ran, grouped))
    return list(_in_order(entries, lone))


def _in_order(entries: list[Entry], lone: list[Entry]) -> Iterator[Entry]:
    """What services have done at its time: a server that was stopped in the middle of a script
    writes down long afterwards what it had read the clock for.
    """
    waiting = deque(sorted(lone, key=lambda entry: entry.at))
    for entry in entries:
        while waiting and waiting[0].at <= entry.at:
            yield waiting.popleft()
        yield entry
    yield from waiting


def survivors(entries: list[Entry], count: int) -> set[int]:
    """The places of those entries of which the store knows; *count* is how many it counts.

    A number that was given twice was lost once: what comes later stands, unless it comes from a
    server that did not know that its term was over.
    """
    places: dict[int, list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault(entry.nth, []).append(place)
    kept: set[int] = set()
    before, term = len(entries), (-1, 0)
    for nth in range(count, 0, -1):
        found = [place for place in places.get(nth, ()) if place < before]
        if not found:
            raise LookupError(f"number {nth} of {count} is in no log")
        same = [place for place in found if entries[place].term == term]
        before = (same or found)[-1]
        term = entries[before].term
        kept.add(before)
    return kept
