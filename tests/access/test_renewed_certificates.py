"""Certificates of the service that are replaced while it runs: the next caller meets others."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from tests_support import certificates
from tests_support.calls import EXACT
from tests_support.certificates import Pair, serial
from tests_support.keys import ADMIN
from tests_support.servers import Server
from tests_support.service import ServiceProcess


class Running(msgspec.Struct, frozen=True):
    """A service, the files that it reads, and certificates of two authorities."""

    url: str
    live: Path
    authorities: dict[str, Pair]
    servers: dict[str, Pair]
    callers: dict[str, Pair]

    def replace(self, *, server: str | None = None, authority: str | None = None) -> None:
        """Put others in the places of the files, as a mounted Secret does it."""
        if server is not None:
            _put(self.live / "tls.crt", Path(self.servers[server].certificate).read_text())
            _put(self.live / "tls.key", Path(self.servers[server].key).read_text())
        if authority is not None:
            _put(self.live / "ca.crt", Path(self.authorities[authority].certificate).read_text())

    def knows(self, authority: str, caller: str) -> ssl.SSLContext:
        """How a caller with a certificate speaks TLS that trusts one authority."""
        found = ssl.create_default_context(cafile=self.authorities[authority].certificate)
        found.load_cert_chain(self.callers[caller].certificate, self.callers[caller].key)
        return found

    def shown(self, authority: str, name: str | None = "127.0.0.1") -> int:
        """The serial number of the certificate that a new connection is shown."""
        context = self.knows(authority, "one")
        context.check_hostname = name is not None
        parts = urlsplit(self.url)
        with (
            socket.create_connection((parts.hostname, parts.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            certificate = secure.getpeercert()
            assert certificate is not None
            return int(str(certificate["serialNumber"]), 16)

    def answers(self, authority: str, caller: str) -> bool:
        """Whether a caller is let in."""
        try:
            verify = self.knows(authority, caller)
            return httpx.get(f"{self.url}/livez", verify=verify, timeout=20).is_success
        except httpx.TransportError:
            return False


def _put(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@contextlib.contextmanager
def serving(store: Server, home: Path, workers: int) -> Iterator[Running]:
    """A service that serves only callers with certificates."""
    if not certificates.available():
        pytest.skip("openssl is not installed")
    live = home / "live"
    live.mkdir()
    (home / "pools.yaml").write_text(EXACT)
    authorities = {name: certificates.authority(home, name) for name in ("old", "new")}
    ip = "IP:127.0.0.1"
    signed = certificates.signed
    servers = {n: signed(home, authorities["old"], n, ip) for n in ("first", "second")}
    servers["third"] = signed(home, authorities["new"], "third", ip)
    callers = {
        "one": signed(home, authorities["old"], "one", "DNS:one"),
        "other": signed(home, authorities["new"], "other", "DNS:other"),
    }
    there = Running("", live, authorities, servers, callers)
    there.replace(server="first", authority="old")
    env = {
        "SLUICEGATE_ADMIN_KEY": ADMIN,
        "SLUICEGATE_TLS_CERTIFICATE": str(live / "tls.crt"),
        "SLUICEGATE_TLS_KEY": str(live / "tls.key"),
        "SLUICEGATE_TLS_CLIENT_CA": str(live / "ca.crt"),
        "SLUICEGATE_WORKERS": str(workers),
    }
    arguments = ("--config", str(home / "pools.yaml"), "--redis-url", store.url)
    with ServiceProcess(*arguments, env=env) as service:
        yield msgspec.structs.replace(there, url=service.url)


@pytest.fixture(scope="module")
def made(own_store: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One process."""
    with serving(own_store, tmp_path_factory.mktemp("renewed"), 1) as found:
        yield found


@pytest.fixture
def running(made: Running) -> Running:
    """The same, with its first files."""
    made.replace(server="first", authority="old")
    made.shown("old")  # files are looked at with a handshake
    return made


@pytest.mark.parametrize("name", ["127.0.0.1", None])
def test_the_next_connection_is_shown_the_renewed_certificate(running: Running, name: str | None):
    """Whether it says a name or not; one that is open goes on."""
    with httpx.Client(base_url=running.url, verify=running.knows("old", "one")) as before:
        assert before.get("/livez").is_success
        assert running.shown("old", name) == serial(running.servers["first"])
        running.replace(server="second")
        assert running.shown("old", name) == serial(running.servers["second"])
        assert before.get("/livez").is_success


def test_files_that_do_not_belong_together_change_nothing(running: Running):
    """Such as a certificate whose key has not been written yet: the pair before is shown."""
    _put(running.live / "tls.crt", Path(running.servers["second"].certificate).read_text())
    assert running.shown("old") == serial(running.servers["first"])
    (running.live / "tls.key").unlink()
    assert running.shown("old") == serial(running.servers["first"])
    _put(running.live / "tls.key", Path(running.servers["second"].key).read_text())
    assert running.shown("old") == serial(running.servers["second"])


def test_another_authority_lets_in_others(running: Running):
    """And not those of the one before."""
    assert (running.answers("old", "one"), running.answers("old", "other")) == (True, False)
    running.replace(server="third", authority="new")
    assert (running.answers("new", "one"), running.answers("new", "other")) == (False, True)


def test_every_worker_reads_them_again(own_store: Server, tmp_path: Path):
    """Whichever of the processes takes the connection."""
    with serving(own_store, tmp_path, 2) as there:
        assert there.shown("old") == serial(there.servers["first"])
        there.replace(server="second")
        assert {there.shown("old") for _ in range(8)} == {serial(there.servers["second"])}
