"""Sentinels and servers that speak TLS alone: found, followed to another primary, looked at."""

import contextlib
import shutil
from collections.abc import Iterator

import httpx
import msgspec
import pytest
from tests_support import certificates
from tests_support.certificates import Pair
from tests_support.sentinels import Watched
from tests_support.service import ServiceProcess
from tests_support.waiting import until
from typer.testing import CliRunner, Result

from limiter_service.cli import app
from limiter_service.store.address import Tls
from limiter_service.store.client import Client
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import load

pytestmark = pytest.mark.timeout(120)
CALL = (load("snapshot", {"snapshot": "return ARGV[1]"}), ("sg:{p}:x",), ("hello",))
NAME = "store.example"


class Setting(msgspec.Struct, frozen=True):
    """Three servers and three sentinels, what their clients need, and files of others."""

    watched: Watched
    trusted: Tls
    stranger: Pair
    other: Pair

    def env(self, **changed: str) -> dict[str, str]:
        """What the service and the command line are told."""
        files = {
            "SLUICEGATE_REDIS_CA": str(self.trusted.ca),
            "SLUICEGATE_REDIS_CERTIFICATE": str(self.trusted.certificate),
            "SLUICEGATE_REDIS_KEY": str(self.trusted.key),
            "SLUICEGATE_CONNECT_TIMEOUT": "20",
            "SLUICEGATE_COMMAND_TIMEOUT": "20",
        }
        return files | changed


@contextlib.contextmanager
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """All of them know each other by certificates of one authority."""
    binary = shutil.which("redis-server")
    if binary is None or not certificates.available():
        pytest.skip("redis-server or openssl is not installed")
    home = tmp_path_factory.mktemp("secured")
    ours, other = certificates.authority(home, "ours"), certificates.authority(home, "other")
    server = certificates.signed(home, ours, "server", f"DNS:{NAME},IP:127.0.0.1")
    client = certificates.signed(home, ours, "client", "DNS:client")
    stranger = certificates.signed(home, other, "stranger", "DNS:client")
    tls = Tls(ca=ours.certificate, certificate=server.certificate, key=server.key)
    trusted = Tls(ca=ours.certificate, certificate=client.certificate, key=client.key)
    with Watched(binary, home, tls=tls) as watched:
        yield Setting(watched, trusted, stranger, other)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A setting that stays as it is."""
    with setting(tmp_path_factory) as made:
        yield made


@pytest.fixture
def doomed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """A setting whose primary will die."""
    with setting(tmp_path_factory) as made:
        yield made


async def said(secured: Setting, **changed: str | None) -> object:
    """What a call is answered over connections with these files."""
    tls = msgspec.structs.replace(secured.trusted, **changed)
    client = Client(secured.watched.url, connect_timeout=20.0, command_timeout=20.0, tls=tls)
    try:
        return await client.run(*CALL)
    except StoreUnavailable as error:
        return str(error)
    finally:
        await client.aclose()


def looked(secured: Setting, **env: str) -> Result:
    """`sluicegate doctor` over it."""
    words = ["doctor", "--no-service", "--redis-url", secured.watched.url]
    return CliRunner().invoke(app, words, env=secured.env(**env))


async def test_sentinels_and_the_primary_are_asked_over_tls(secured: Setting) -> None:
    """Both sides know each other, by the address or by a name that is expected."""
    assert secured.watched.url.startswith("rediss+sentinel://")
    assert await said(secured) == b"hello"
    assert await said(secured, server_name=NAME) == b"hello"


async def test_who_is_not_known_is_not_let_in(secured: Setting) -> None:
    """Without a certificate, or with one of somebody else's authority."""
    stranger = {"certificate": secured.stranger.certificate, "key": secured.stranger.key}
    for files in ({"certificate": None, "key": None}, stranger):
        assert "No master found" in str(await said(secured, **files))


@pytest.mark.parametrize("changed", ["authority", "name"])
async def test_sentinels_that_are_not_known_are_not_believed(
    secured: Setting, changed: str
) -> None:
    """The reason names the certificate."""
    if changed == "authority":
        reason = await said(secured, ca=secured.other.certificate)
    else:
        reason = await said(secured, server_name="other.example")
    assert "certificate verify failed" in str(reason)


def test_the_doctor_sees_what_the_service_would(secured: Setting) -> None:
    """With the same variables; how a failover would go; and the cure where it cannot connect."""
    done = looked(secured)
    assert done.exit_code == 0, done.output
    primary = secured.watched.primary
    assert (
        "OK       sentinels      3 of 3 in the URL answer, 3 watch "
        f"127.0.0.1:{primary} with quorum 2; 2 replicas" in done.output
    )
    assert "WARNING  replication    2 replicas; min-replicas-to-write is 0" in done.output
    strange = looked(secured, SLUICEGATE_REDIS_CA=secured.other.certificate)
    assert strange.exit_code == 3
    assert strange.output.count("ERROR") == 1
    assert "cure: SLUICEGATE_REDIS_CA, or SLUICEGATE_REDIS_SERVER_NAME" in strange.output


async def test_the_next_primary_is_found_over_tls(doomed: Setting) -> None:
    """By a service that runs, and without a restart."""
    watched = doomed.watched
    first = watched.primary
    env = doomed.env(SLUICEGATE_REDIS_URL=watched.url)
    ask = {"resource": "example/m", "tokens": 1}
    with ServiceProcess(env=env) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
            assert (await http.post("/v1/acquire", json=ask)).json()["degraded"] is False
            watched.kill()

            async def granted() -> bool:
                answer = await http.post("/v1/acquire", json=ask)
                return answer.status_code == 200 and not answer.json()["degraded"]

            await until(granted, "the next primary is not found", 60)
    assert watched.primary != first
