"""Stores over TLS: who is trusted, who is let in, and what is said otherwise."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import redis
import uvloop
from tests_support import certificates
from tests_support.certificates import Pair
from tests_support.cluster import complete, free_ports
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from tests_support.waiting import wait_until
from typer.testing import CliRunner

from limiter_service.cli import app
from limiter_service.store.address import Tls
from limiter_service.store.client import Client
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.scripts import load

CALL = (load("snapshot", {"snapshot": "return ARGV[1]"}), ("sg:{p}:x",), ("hello",))
NAME = "store.example"
Ask = Callable[..., Awaitable[object]]


class Store(msgspec.Struct, frozen=True):
    """A server that speaks TLS alone, and asks its clients for certificates."""

    port: int
    trusted: Tls
    stranger: Pair
    other: Pair


@pytest.fixture(scope="module", params=["one", "cluster"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Store]]:
    """The scheme of its URL, and the store."""
    binary = shutil.which("redis-server")
    if binary is None or not certificates.available():
        pytest.skip("redis-server or openssl is not installed")
    home: Path = tmp_path_factory.mktemp("tls")
    ours, other = certificates.authority(home, "ours"), certificates.authority(home, "other")
    server = certificates.signed(home, ours, "server", f"DNS:{NAME},IP:127.0.0.1")
    client = certificates.signed(home, ours, "client", "DNS:client")
    stranger = certificates.signed(home, other, "stranger", "DNS:client")
    (port,) = free_ports(1)
    options = [
        *("--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "yes"),
        *("--tls-cert-file", server.certificate, "--tls-key-file", server.key),
        *("--tls-ca-cert-file", ours.certificate),
    ]
    clustered = request.param == "cluster"
    if clustered:
        options += ["--cluster-enabled", "yes", "--tls-cluster", "yes"]
    trusted = Tls(ca=ours.certificate, certificate=client.certificate, key=client.key)
    with Server(binary, home, *options) as running:
        if clustered:
            with redis.Redis(unix_socket_path=str(running.socket)) as orders:
                orders.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                wait_until(lambda: complete(orders, "1"), "the cluster does not serve")
        scheme = "rediss+cluster" if clustered else "rediss"
        yield scheme, Store(port, trusted, stranger, other)


@pytest.fixture
def said(store: tuple[str, Store]) -> Ask:
    """What a call is answered over a connection with these files."""
    scheme, there = store

    async def ask(*, host: str = "127.0.0.1", **changed: str | None) -> object:
        tls = msgspec.structs.replace(there.trusted, **changed)
        url = f"{scheme}://{host}:{there.port}"
        client = Client(url, connect_timeout=20.0, command_timeout=20.0, tls=tls)
        try:
            return await client.run(*CALL)
        except StoreUnavailable as error:
            return str(error)
        finally:
            await client.aclose()

    return ask


async def test_authority_and_certificate_open_the_way(said: Ask) -> None:
    """Both sides know each other."""
    assert await said() == b"hello"


async def test_a_client_without_a_certificate_is_not_let_in(
    said: Ask, store: tuple[str, Store]
) -> None:
    """Nor one with the certificate of somebody else's authority."""
    for files in (
        {"certificate": None, "key": None},
        {"certificate": store[1].stranger.certificate, "key": store[1].stranger.key},
    ):
        assert isinstance(await said(**files), str)


async def test_a_server_of_an_unknown_authority_is_not_trusted(
    said: Ask, store: tuple[str, Store]
) -> None:
    """The reason names the certificate."""
    reason = await said(ca=store[1].other.certificate)
    assert "certificate verify failed" in str(reason)


async def test_the_name_in_the_certificate_is_what_counts(said: Ask) -> None:
    """That of the host, or the one that is expected by a setting."""
    assert await said(server_name=NAME) == b"hello"
    wrong = await said(server_name="other.example")
    assert "Hostname mismatch" in str(wrong)
    assert await said(host="localhost", server_name=NAME) == b"hello"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_many_calls_share_connections_in_every_event_loop(
    store: tuple[str, Store], loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """What is long travels in several records, and nothing stays open."""
    scheme, there = store
    script, keys, _ = CALL

    async def calls() -> None:
        url = f"{scheme}://127.0.0.1:{there.port}"
        client = Client(url, connect_timeout=20.0, command_timeout=20.0, tls=there.trusted)
        for size in (1, 1000, 100_000, 1):
            said = [bytes([65 + n]) * size for n in range(20)]
            asked = (client.run(script, keys, (each,)) for each in said)
            assert await asyncio.gather(*asked) == said
        await client.aclose()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(calls())


def test_the_service_takes_the_files_from_its_settings(
    store: tuple[str, Store], tmp_path: Path
) -> None:
    """And says that it is ready, over that store."""
    env = environment(*store)
    with ServiceProcess(env=env) as service:
        assert httpx.get(f"{service.url}/readyz", timeout=20).status_code == 200


def test_the_doctor_takes_them_too(store: tuple[str, Store]) -> None:
    """And has a cure for each way in which TLS fails."""
    scheme, there = store
    env = environment(*store)
    for changed, code, told in (
        ({}, 0, "OK       scripts        run"),
        ({"CA": there.other.certificate}, 3, "SLUICEGATE_REDIS_CA, or"),
        ({"SERVER_NAME": "other.example"}, 3, "or SLUICEGATE_REDIS_SERVER_NAME"),
        ({"CERTIFICATE": "", "KEY": ""}, 3, "SLUICEGATE_REDIS_CERTIFICATE and"),
    ):
        given = env | {f"SLUICEGATE_REDIS_{name}": value for name, value in changed.items()}
        named = {name: value or None for name, value in given.items()}
        done = CliRunner().invoke(app, ["doctor", "--no-service"], env=named)
        assert done.exit_code == code, done.output
        assert told in done.output
        assert done.output.count("ERROR") == (code != 0)
    url = f"{scheme.replace('rediss', 'redis')}://127.0.0.1:{there.port}"
    done = CliRunner().invoke(app, ["doctor", "--no-service", "--redis-url", url])
    assert "a store that speaks TLS alone is rediss://" in done.output


def environment(scheme: str, there: Store) -> dict[str, str]:
    """What the service is told of the store."""
    return {
        "SLUICEGATE_REDIS_URL": f"{scheme}://127.0.0.1:{there.port}",
        "SLUICEGATE_REDIS_CA": str(there.trusted.ca),
        "SLUICEGATE_REDIS_CERTIFICATE": str(there.trusted.certificate),
        "SLUICEGATE_REDIS_KEY": str(there.trusted.key),
        "SLUICEGATE_REDIS_SERVER_NAME": NAME,
        "SLUICEGATE_CONNECT_TIMEOUT": "20",
        "SLUICEGATE_COMMAND_TIMEOUT": "20",
    }
