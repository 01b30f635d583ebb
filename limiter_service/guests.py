"""Connections of one process: how many there may be, in all and of one address, and how long
each may take to say what it wants. Pure.
"""

import ipaddress
from collections import Counter
from collections.abc import Hashable, Sequence
from enum import StrEnum

import msgspec

GUESTS = "sluicegate.guests"
"""Where the state of the lifespan has the guests of the process."""

_OWN_FILES = 256
"""Files that the process opens itself: connections to the store, logs, the pools file."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Manners(msgspec.Struct, frozen=True, kw_only=True):
    """What every connection must keep: bytes and seconds of a head, seconds of a body, seconds in
    which an answer that does not fit into the network must be read.
    """

    head: int = 16_384
    head_timeout: float = 4.0
    body_timeout: float = 4.0
    unread_timeout: float = 30.0


class Rude(StrEnum):
    """Why a connection is closed that its client would have kept."""

    CROWD = "crowd"
    """One too many, of all."""
    ADDRESS = "address"
    """One too many of its address."""
    SLOW_HEAD = "slow_head"
    SLOW_BODY = "slow_body"
    """Or a message of a channel."""
    UNREAD = "unread"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"


class Guests:
    """Who is connected, and how many were shown the door, by reason. *exempt* are proxies, behind
    whose address many callers stand.
    """

    def __init__(
        self,
        most: int = 10_000,
        most_of_one: int = 2_500,
        exempt: Sequence[Network] = (),
        manners: Manners | None = None,
    ) -> None:
        self.manners = manners or Manners()
        self._most, self._most_of_one, self._exempt = most, most_of_one, exempt
        self._addresses: dict[Hashable, str] = {}
        self._of_one: Counter[str] = Counter()
        self.closed: Counter[Rude] = Counter(dict.fromkeys(Rude, 0))

    def __len__(self) -> int:
        return len(self._addresses)

    def enter(self, connection: Hashable, host: str) -> bool:
        """Count a connection; False when it is one too many, and is not counted."""
        address = neighbourhood(host)
        if len(self._addresses) >= self._most:
            self.closed[Rude.CROWD] += 1
            return False
        if self._of_one[address] >= self._most_of_one and not self._is_exempt(host):
            self.closed[Rude.ADDRESS] += 1
            return False
        self._addresses[connection] = address
        self._of_one[address] += 1
        return True

    def leave(self, connection: Hashable) -> None:
        """Forget a connection; one that is not counted is no mistake."""
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        self._of_one[address] -= 1
        if self._of_one[address] == 0:
            del self._of_one[address]

    def _is_exempt(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._exempt)


def neighbourhood(host: str) -> str:
    """Who is counted together: an address, or the network of one in IPv6."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def networks(text: str) -> list[Network]:
    """The addresses and networks of a list with commas; `*` is all of them, names are left out."""
    found: list[Network] = []
    for part in filter(None, map(str.strip, text.split(","))):
        if part == "*":
            return [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            continue
    return found


def files_for(connections: int) -> int:
    """How many files a process with so many connections opens."""
    return connections + _OWN_FILES


def most_of(wanted: int, wanted_of_one: int, files: int | None) -> tuple[int, int]:
    """Connections in all and of one address, where a process may open *files* (None: any number):
    no address gets so many that nothing is left for others.
    """
    most = wanted if files is None else max(16, min(wanted, files - _OWN_FILES))
    return most, min(wanted_of_one, max(8, most * 3 // 4))
