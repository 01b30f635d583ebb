"""Where a service may listen, and to whom it answers there."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis
from tests_support.calls import EXACT
from tests_support.servers import Server
from tests_support.service import ServiceProcess
from typer.testing import CliRunner

from limiter_service.cli import app

# Keys do not depend on the kind of the store.
pytestmark = pytest.mark.parametrize("server", ["valkey"], indirect=True)

KEY = "sg_0a1b_" + "k" * 43


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command that ends by itself."""
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def bearer(key: str) -> dict[str, str]:
    """The headers of a caller with a key."""
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def arguments(
    db: redis.Redis, server: Server, write_config: Callable[[str], Path]
) -> tuple[str, ...]:
    """A service over an empty store, on every address."""
    return (
        *("--config", str(write_config(EXACT)), "--redis-url", server.url),
        *("--host", "0.0.0.0"),
    )


def test_other_addresses_than_loopback_need_a_key(arguments: tuple[str, ...]):
    """The refusal says three ways out."""
    code, said = run("serve", *arguments, "--port", "0")
    assert code == 2
    assert "--host 0.0.0.0 needs API keys, and there are none" in said
    for way in ("sluicegate keys create", "SLUICEGATE_ADMIN_KEY_FILE", "--allow-anonymous"):
        assert way in said


def test_a_first_key_is_made_in_the_store(arguments: tuple[str, ...], server: Server):
    """Then the service starts, and asks everybody for one."""
    code, key = run("keys", "create", "ops", "--role", "admin", "--redis-url", server.url)
    assert code == 0
    with ServiceProcess(*arguments) as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/stats").status_code == 401
        assert httpx.get(f"{url}/v1/stats", headers=bearer(key.split()[0])).status_code == 200
        assert httpx.get(f"{url}/livez").status_code == 200


def test_without_a_key_only_who_was_allowed_comes_in(arguments: tuple[str, ...]):
    """`--allow-anonymous` says that the network is trusted."""
    with ServiceProcess(*arguments, "--allow-anonymous") as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/stats").status_code == 200


@pytest.mark.parametrize("place", ["variable", "file"])
def test_a_key_may_be_given(arguments: tuple[str, ...], place: str, tmp_path: Path):
    """In the environment, or in a file; it is an admin's, and workers have it too."""
    file = tmp_path / "admin"
    file.write_text(f"# of the platform team\n{KEY}\n")
    env = {
        "variable": {"SLUICEGATE_ADMIN_KEY": KEY},
        "file": {"SLUICEGATE_ADMIN_KEY_FILE": str(file)},
    }
    with ServiceProcess(*arguments, "--workers", "2", env=env[place]) as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        for _ in range(6):
            assert httpx.get(f"{url}/v1/keys").status_code == 401
            assert httpx.get(f"{url}/v1/keys", headers=bearer(KEY)).status_code == 200


@pytest.mark.parametrize("text", ["", "hunter2", "sg_0a1b_tooshort"])
def test_what_is_given_must_be_a_key(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, text: str
):
    """A weak word of one's own is refused, and not repeated."""
    monkeypatch.setenv("SLUICEGATE_ADMIN_KEY", text)
    code, said = run("serve", *arguments, "--port", "0")
    assert code == 2
    assert "SLUICEGATE_ADMIN_KEY holds no key of the form sg_<id>_<secret>" in said
    assert not text or text not in said
