"""Whether the queue keeps its order, told from who stands in it after every pass.

Within a line (one tenant and priority on one model) nobody is served before one who came earlier,
and nobody is granted anything beside the queue while somebody stands in his line. Whose caller is
gone leaves. Who would be served stands still for no longer than a pass takes.
"""

import struct
from collections.abc import Sequence

from tests_support.ledger import Broken
from world import LEASES, PLACE, Ran

GRACE = 5.0
"""Seconds that a place is kept for a caller out of sight."""

_AT_ONCE = frozenset({"acquire", "lend"})
_GAP = 2.5  # seconds without a pass after which nobody is known to look after the queue
_LATE = 1e12  # behind every place that is known


class Lines:
    """Reads a journal as it grows. `patience` is how long after GRACE a place may stand without a
    caller, while somebody looks after the queue; None where messages are lost. Raises Broken.
    """

    def __init__(self, lines: dict[str, bytes], patience: float | None) -> None:
        self._lines, self._patience = lines, patience
        self._standing: dict[str, float] = {}
        self._served: list[tuple[str, bytes, float]] = []
        self._read, self._newcomers = 0, 0
        self._seen = self._since = -_GAP
        self.gone: dict[str, float] = {}
        """Since when a caller is gone for good, by the key of its lease."""
        self.served_at = -1.0
        self.most = self.swept = 0

    def read(self, journal: Sequence[Ran]) -> None:
        """Take in what has happened since."""
        for place in range(self._read, len(journal)):
            ran = journal[place]
            letter = ran.reply[8:9]
            if ran.name == "pass":
                self.served_at = ran.at
                self._pass(ran)
            elif ran.name == "places":
                self._places(ran)
            elif ran.name == "enqueue":
                self._enqueue(ran, letter)
            elif ran.name in _AT_ONCE and letter == b"G" and self._standing:
                raise Broken(f"{ran.key} was granted at {ran.at:.3f} while others wait")
            elif ran.name == "cancel" and letter in b"GRU" and ran.request[8:16] == bytes(8):
                self._standing.pop(ran.key, None)
        self._read = len(journal)

    def lose(self, journal: Sequence[Ran]) -> None:
        """The store has forgotten some of it: who waits is seen after the next pass."""
        self.read(journal)
        self._standing = {}

    def _enqueue(self, ran: Ran, letter: bytes) -> None:
        if letter == b"W":
            if ran.key not in self._standing:
                self._newcomers += 1
                self._standing[ran.key] = _LATE + self._newcomers
            return
        self._standing.pop(ran.key, None)
        if letter == b"G":
            line = self._lines[ran.key]
            if any(self._lines[key] == line for key in self._standing):
                raise Broken(f"{ran.key} was granted at {ran.at:.3f} past its own line")

    def _pass(self, ran: Ran) -> None:
        place = self._standing.pop(ran.key, None)
        gone = self.gone.get(ran.key, ran.at)
        if self._patience is not None and ran.at - gone > GRACE + self._patience:
            raise Broken(f"{ran.key} was granted at {ran.at:.3f}, its caller is long gone")
        if place is not None:
            self._served.append((ran.key, self._lines[ran.key], place))

    def _places(self, ran: Ran) -> None:
        """Who stands in the queue now, all of them."""
        before = self._standing
        self._standing, first = {}, dict[bytes, float]()
        for digest, place, line in PLACE.iter_unpack(ran.reply):
            key = f"{LEASES}{digest.hex()}"
            self._standing[key] = place
            first[line] = min(first.get(line, _LATE), before.get(key, place))
        self.most = max(self.most, len(self._standing))
        self.swept += sum(key in self.gone for key in before.keys() - self._standing.keys())
        for key, line, place in self._served:
            if first.get(line, _LATE) < place < _LATE:
                raise Broken(f"{key} was served at {ran.at:.3f} before one who came earlier")
        self._served = []
        if ran.at - self._seen > _GAP:
            self._since = ran.at
        self._seen = ran.at
        if self._patience is not None:
            self._leave(ran.at, GRACE + self._patience)

    def _leave(self, now: float, after: float) -> None:
        for key in self._standing.keys() & self.gone.keys():
            if now - max(self.gone[key], self._since) > after:
                raise Broken(f"{key} still stands at {now:.3f}, its caller is long gone")


def waiter(text: bytes) -> tuple[str, str, list[float]]:
    """Resource, tenant and amounts of a ticket that waits (lua/lib/waiting)."""
    (limits,) = struct.unpack_from("<d", text, 8 * 13)
    start = 8 * (14 + 9)
    amounts = struct.unpack_from(f"<{int(limits)}d", text, start)
    names = text[start + 8 * int(limits) + 17 :].decode()
    resource, _, tenant = names.partition("\0")
    return resource, tenant, list(amounts)
