"""The store dies and comes back, with what it knew or without, in the middle of an outage."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests_support.crowd import Nursery
from tests_support.crowd_member import End
from tests_support.races import PATIENT, Fleet, Provider, pools_file
from tests_support.servers import Server, valkey_binary
from tests_support.service import ServiceProcess
from tests_support.waiting import until

from limiter_wire import Outcome

pytestmark = PATIENT


class Mortal:
    """A store to be killed at will, a replica over it, and eight workers with a circuit."""

    def __init__(self, store: Server, fleet: Fleet) -> None:
        self.store, self.fleet = store, fleet

    async def reborn(self) -> None:
        """Killed without a warning, and started again."""
        await asyncio.to_thread(self.store.kill)
        await asyncio.to_thread(self.store.start)

        async def ready() -> bool:
            return (await self.fleet.replicas[0].get("/readyz")).status_code == 200

        await until(ready, "the replica does not find it again")


@pytest.fixture(params=["yes", "no"])
async def mortal(
    request: pytest.FixtureRequest, tmp_path: Path, nursery: Nursery, provider_url: str
) -> AsyncIterator[Mortal]:
    """A store that writes every change to disk before it answers, or never any."""
    binary = valkey_binary()
    if binary is None:
        pytest.skip("the platform has no embedded Valkey")
    config = tmp_path / "pools.json"
    config.write_bytes(pools_file())
    home = tmp_path / "store"
    home.mkdir()
    options = ("--appendonly", request.param, "--appendfsync", "always")
    with (
        Server(binary, home, *options) as store,
        ServiceProcess("--config", str(config), "--redis-url", store.url) as replica,
    ):
        async with (
            httpx.AsyncClient(base_url=replica.url, timeout=60) as client,
            httpx.AsyncClient(base_url=provider_url, timeout=60) as simulator,
            nursery.crowd([f"w{n}" for n in range(8)], [replica.url], provider_url) as members,
        ):
            provider = Provider(simulator)
            fleet = Fleet(f"one/mortal-{request.param}", [client], provider)
            fleet.members = members
            yield Mortal(store, fleet)
            await provider.well()


@pytest.mark.parametrize("mortal", ["yes"], indirect=True)
async def test_a_store_that_dies_in_a_round_of_probes_remembers_who_holds_one(mortal: Mortal):
    """Nobody else is let through afterwards, and the holder's vote counts."""
    fleet = mortal.fleet
    await fleet.trip()
    holder, *others = fleet.members
    await fleet.provider.outage(fleet.model, "server-error")
    lease = await fleet.take(holder)
    before = await fleet.provider.calls(fleet.model)
    tasks = await fleet.all_call(others)
    for _ in range(2):
        await fleet.all_refused(tasks)
        await mortal.reborn()
    await fleet.all_refused(tasks)
    assert await fleet.provider.calls(fleet.model) == before
    view = await fleet.view()
    assert (view["state"], view["probes"]["held"], view["generation"]) == ("half_open", 1, 3)
    await fleet.stop(tasks)
    said = await holder.do(End(lease=lease))
    assert (said.what, (await fleet.view())["probes"]["ok"]) == ("settled", 1)
    second = await fleet.take(others[0])
    assert (await others[0].do(End(lease=second))).breaker == "closed"


@pytest.mark.parametrize("mortal", ["no"], indirect=True)
async def test_a_store_that_has_forgotten_everything_begins_closed_and_learns_anew(mortal: Mortal):
    """A dead provider costs the calls of one trip; what is reported of before is unknown."""
    fleet = mortal.fleet
    await fleet.trip()
    holder, *others = fleet.members
    await fleet.provider.outage(fleet.model, "server-error")
    lease = await fleet.take(holder)
    await mortal.reborn()
    assert await fleet.state() == "closed"
    assert await fleet.told() == []
    said = await holder.do(End(lease=lease, outcome=Outcome.SERVER_ERROR))
    assert (said.what, said.code) == ("failed", "unknown_lease")
    await fleet.trip(*others)
    assert (await fleet.view())["open_count"] == 1
