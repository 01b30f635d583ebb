"""TLS of the service's own, and of its callers."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests_support.calls import EXACT
from tests_support.keys import ADMIN, bearer
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from typer.testing import CliRunner

from client_sdk import Limiter, LimiterOptions, ServiceUnavailable, _transport
from limiter_service.cli import app

FILES = Path(__file__).parent / "certificates"
CA, SERVICE, CALLER = FILES / "ca.pem", FILES / "service.pem", FILES / "caller.pem"


@pytest.fixture(scope="module")
def url(own_store: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that serves only callers with a certificate of its authority."""
    pools = tmp_path_factory.mktemp("tls") / "pools.yaml"
    pools.write_text(EXACT)
    env = {
        "SLUICEGATE_ADMIN_KEY": ADMIN,
        "SLUICEGATE_TLS_CERTIFICATE": str(SERVICE),
        "SLUICEGATE_TLS_KEY": str(SERVICE.with_suffix(".key")),
        "SLUICEGATE_TLS_CLIENT_CA": str(CA),
    }
    arguments = ("--config", str(pools), "--redis-url", own_store.url)
    with ServiceProcess(*arguments, env=env) as service:
        yield service.url


def context(*, known: bool) -> ssl.SSLContext:
    """How a caller speaks TLS."""
    found = ssl.create_default_context(cafile=CA)
    if known:
        found.load_cert_chain(CALLER, CALLER.with_suffix(".key"))
    return found


def test_a_caller_with_a_certificate_still_needs_a_key(url: str):
    """The certificate lets it connect, the key says what it may do; browsers are held to TLS."""
    assert url.startswith("https://")
    with httpx.Client(verify=context(known=True), base_url=url) as client:
        assert client.get("/v1/stats").status_code == 401
        answer = client.get("/v1/stats", headers=bearer(ADMIN))
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_a_caller_without_a_certificate_does_not_connect(url: str):
    """The handshake ends it: nothing of its request is read."""
    with (
        httpx.Client(verify=context(known=False), base_url=url) as client,
        pytest.raises(httpx.TransportError),
    ):
        client.get("/livez")


@pytest.mark.parametrize("way", ["only", "off"])
async def test_the_sdk_shows_its_certificate(url: str, way: Any):
    """Over the channel and over HTTP."""
    options = LimiterOptions(
        channel=way,
        timeout=10,
        connect_timeout=10,
        ca_file=str(CA),
        certificate=str(CALLER),
        certificate_key=str(CALLER.with_suffix(".key")),
    )
    async with Limiter(url, api_key=ADMIN, options=options) as limiter:
        lease = await limiter.acquire("p/m", tokens=1)
        await lease.settle()


async def test_the_sdk_refuses_a_service_that_it_does_not_know(url: str):
    """The authorities of the system have not signed it."""
    options = LimiterOptions(channel="off", attempts=1, timeout=10)
    async with Limiter(url, api_key=ADMIN, options=options) as limiter:
        with pytest.raises(ServiceUnavailable, match="certificate verify failed"):
            await limiter.acquire("p/m", tokens=1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"CERTIFICATE": str(SERVICE)}, "go together"),
        ({"CLIENT_CA": str(CA)}, "go together"),
        ({"CERTIFICATE": str(SERVICE), "KEY": "/nowhere"}, "TLS cannot be spoken"),
        ({"CERTIFICATE": str(SERVICE), "KEY": str(CALLER.with_suffix(".key"))}, "TLS cannot be"),
        ({"CERTIFICATE": __file__, "KEY": __file__}, "TLS cannot be spoken"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    settings: dict[str, str],
    said: str,
    write_config: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
):
    """Before anything is bound."""
    for name, value in settings.items():
        monkeypatch.setenv(f"SLUICEGATE_TLS_{name}", value)
    done = CliRunner().invoke(app, ["serve", "--config", str(write_config(EXACT))])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("address", "verified"), [("http://a", False), ("https://a", True), ("HTTPS://a", True)]
)
def test_authorities_are_read_where_tls_is_spoken(address: str, verified: bool):
    """Nowhere else: to read them takes longer than many calls."""
    options = LimiterOptions(channel="off")
    assert _transport._connections(address, options, None)["verify"] is verified
