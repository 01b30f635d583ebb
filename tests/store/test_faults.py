"""What a store can refuse or fail to do, and what becomes of a call then."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis._parsers.base import BaseParser
from tests_support.balancer import Balancer
from tests_support.cluster import free_ports
from tests_support.servers import Server
from tests_support.waiting import until

from limiter_service.store.client import Client
from limiter_service.store.errors import StoreUnavailable
from limiter_service.store.faults import Advice, advice, reason
from limiter_service.store.lanes import Lane
from limiter_service.store.parcels import Awaited
from limiter_service.store.scripts import Script, load

COUNT = """
redis.call("SET", KEYS[1], (redis.call("GET", KEYS[1]) or 0) + 1, "PX", 600000)
return redis.call("GET", KEYS[1])
"""


def script(text: str, flags: str | None = None) -> Script:
    """A script of the tests, with the first line that ours have."""
    return load("test", {"test": text}) if flags is None else load(flags, {flags: text})


ADD = script(COUNT)
READ = script('return redis.call("GET", KEYS[1])', "check")  # no-writes
GIVE_BACK = script(COUNT, "settle")  # allow-oom
KEY = ("sg:{p}:n",)

SAID = {
    "NOSCRIPT No matching script. Please use EVAL.": Advice.GIVE_UP,
    "LOADING Redis is loading the dataset in memory": Advice.WAIT,
    "BUSY Redis is busy running a script.": Advice.WAIT,
    "TRYAGAIN Multiple keys request during rehashing of slot": Advice.WAIT,
    "CLUSTERDOWN The cluster is down": Advice.ELSEWHERE,
    "CLUSTERDOWN Hash slot not served": Advice.ELSEWHERE,
    "MASTERDOWN Link with MASTER is down": Advice.WAIT,
    "READONLY You can't write against a read only replica.": Advice.ELSEWHERE,
    "READONLY You can't write against a read only replica. script: 1, on @user_script:1.": (
        Advice.ELSEWHERE
    ),
    "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: "
    "-READONLY You can't write against a read only replica.": Advice.ELSEWHERE,
    "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed": (
        Advice.GIVE_UP
    ),
    "OOM command not allowed when used memory > 'maxmemory'.": Advice.GIVE_UP,
    "NOREPLICAS Not enough good replicas to write.": Advice.GIVE_UP,
    "MISCONF Errors writing to the AOF file": Advice.GIVE_UP,
    "MOVED 1 127.0.0.1:7000": Advice.GIVE_UP,
    "NOAUTH Authentication required.": Advice.GIVE_UP,
    "WRONGPASS invalid username-password pair": Advice.GIVE_UP,
    "NOPERM this user has no permissions": Advice.GIVE_UP,
    "ERR max number of clients reached": Advice.UNKNOWN,
    "ERR unknown command": Advice.GIVE_UP,
}


@pytest.mark.parametrize("said", SAID)
def test_each_error_calls_for_one_thing(said: str) -> None:
    """As the client library makes exceptions of them; and people see the code."""
    error = BaseParser.parse_error(said)
    assert advice(error) is SAID[said]
    if not said.startswith(("ERR", "MOVED")):
        assert reason(error).startswith(said.partition(" ")[0])


def test_a_lost_connection_leaves_it_unknown_whether_the_call_ran() -> None:
    """So does silence."""
    for error in (redis.ConnectionError("gone"), redis.TimeoutError(), ConnectionResetError()):
        assert advice(error) is Advice.UNKNOWN


async def test_a_call_waits_while_the_server_is_a_replica(
    client: Client, running: redis.Redis
) -> None:
    """READONLY: it is asked again, and runs once when the server is a primary again."""
    await client.run(ADD, KEY, ())
    running.execute_command("REPLICAOF", "127.0.0.1", "1")
    call = asyncio.create_task(client.run(ADD, KEY, ()))
    await _refused_so_often(running, 3)
    assert not call.done()
    running.execute_command("REPLICAOF", "NO", "ONE")
    assert await call == b"2"


async def _refused_so_often(running: redis.Redis, count: int) -> None:
    """Commands that the server has refused."""

    async def refused() -> bool:
        return int(running.info("stats")["total_error_replies"]) >= count

    await until(refused, "nobody asks")


async def test_a_read_is_answered_by_a_replica_that_lost_its_primary(
    client: Client, running: redis.Redis
) -> None:
    """Unless it was told not to (MASTERDOWN): then the call waits."""
    await client.run(ADD, KEY, ())
    running.execute_command("REPLICAOF", "127.0.0.1", "1")
    assert await client.run(READ, KEY, ()) == b"1"
    running.config_set("replica-serve-stale-data", "no")
    call = asyncio.create_task(client.run(READ, KEY, ()))
    await _refused_so_often(running, 3)
    assert not call.done()
    running.config_set("replica-serve-stale-data", "yes")
    assert await call == b"1"


async def test_a_call_waits_behind_a_script_that_does_not_end(
    client: Client, own: Server, running: redis.Redis
) -> None:
    """BUSY: it is asked again, and runs when the script has been killed."""
    running.config_set("lua-time-limit", "1")
    with redis.Redis(unix_socket_path=str(own.socket), socket_timeout=30) as other:
        loop = asyncio.get_running_loop()
        endless = loop.run_in_executor(None, _eval, other, "while true do end")

        async def busy() -> bool:
            try:
                running.ping()
            except redis.ResponseError as error:
                return str(error).startswith("BUSY")
            return False

        await until(busy, "the script has ended")
        try:
            call = asyncio.create_task(client.run(ADD, KEY, ()))
            await asyncio.wait({call}, timeout=0.1)
            assert not call.done()
        finally:  # nothing else would end the server
            running.execute_command("SCRIPT", "KILL")
        assert await call == b"1"
        assert "killed" in (await endless).lower()


def _eval(connection: redis.Redis, text: str) -> str:
    try:
        connection.eval(text, 0)
    except redis.ResponseError as error:
        return str(error)
    return "it ended"


async def test_a_call_waits_while_the_server_loads(own: Server) -> None:
    """LOADING: it is asked again, and runs when the data is there."""
    options = ("--appendonly", "yes", "--key-load-delay", "50")  # it looks up every 1024 keys
    slow = Server(own.binary, own.socket.parent, *options)
    with slow, redis.Redis(unix_socket_path=str(slow.socket)) as orders:
        pipeline = orders.pipeline()
        for number in range(12_000):
            pipeline.set(f"k{number}", "x")
        pipeline.execute()
    slow.launch()
    await until(lambda: _exists(slow), "it does not begin to listen")
    client = Client(slow.url, connect_timeout=20.0, command_timeout=20.0)
    try:
        assert await client.run(ADD, KEY, ()) == b"1"
        with redis.Redis(unix_socket_path=str(slow.socket)) as orders:
            assert orders.info("errorstats")["errorstat_LOADING"]["count"] >= 1
    finally:
        await client.aclose()
        slow.__exit__(None, None, None)


async def _exists(server: Server) -> bool:
    return server.socket.exists()


async def test_a_full_store_takes_back_what_it_gave(client: Client, running: redis.Redis) -> None:
    """OOM: what needs room is refused at once; reports and questions are answered."""
    await client.run(ADD, KEY, ())
    running.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailable, match=r"^OOM "):
        await client.run(ADD, KEY, ())
    assert await client.run(GIVE_BACK, KEY, ()) == b"2"
    assert await client.run(READ, KEY, ()) == b"2"
    running.config_set("maxmemory", "0")
    assert await client.run(ADD, KEY, ()) == b"3"


async def test_a_primary_without_enough_replicas_is_not_asked_twice(
    client: Client, running: redis.Redis
) -> None:
    """NOREPLICAS: whoever set it wants to be refused."""
    running.config_set("min-replicas-to-write", "1")
    with pytest.raises(StoreUnavailable, match=r"^NOREPLICAS "):
        await client.run(ADD, KEY, ())
    assert running.info("errorstats")["errorstat_NOREPLICAS"]["count"] == 1


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_a_call_waits_while_nobody_owns_its_slot(own: Server, scheme: str) -> None:
    """CLUSTERDOWN: it is asked again, and runs when a node has taken the slot."""
    (port,) = free_ports(1)
    options = ("--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes")
    node = Server(own.binary, own.socket.parent, *options)
    with node, redis.Redis(unix_socket_path=str(node.socket)) as orders:
        client = Client(f"{scheme}://127.0.0.1:{port}", connect_timeout=20, command_timeout=20)
        call = asyncio.create_task(client.run(ADD, KEY, ()))
        await until(lambda: _asked(orders), "nobody asks")
        assert not call.done()
        orders.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        assert await call == b"1"
        await client.aclose()


async def _asked(orders: redis.Redis) -> bool:
    seen = orders.info("commandstats")
    asked = [seen[name] for name in ("cmdstat_evalsha", "cmdstat_cluster|slots") if name in seen]
    return sum(each["calls"] + each["rejected_calls"] for each in asked) >= 2


async def test_the_database_of_the_url_is_used(own: Server, running: redis.Redis) -> None:
    """Others stay empty."""
    client = Client(f"{own.url}?db=3", connect_timeout=20.0, command_timeout=20.0)
    assert await client.run(ADD, KEY, ()) == b"1"
    await client.aclose()
    assert list(running.info("keyspace")) == ["db3"]


async def test_an_unknown_script_is_sent_once_with_its_text(
    client: Client, running: redis.Redis
) -> None:
    """After SCRIPT FLUSH every call of that tick goes again, and nothing ran twice."""
    await client.run(ADD, KEY, ())
    running.script_flush()
    answers = await asyncio.gather(*(client.run(ADD, KEY, ()) for _ in range(20)))
    assert sorted(int(answer) for answer in answers) == list(range(2, 22))
    running.config_resetstat()
    await asyncio.gather(*(client.run(ADD, KEY, ()) for _ in range(20)))
    assert "cmdstat_eval" not in running.info("commandstats")


async def test_a_store_of_before_flags_gets_the_script_without_them() -> None:
    """Redis 6.2 takes the first line for a mistake: from then on it is left out."""
    sent: list[tuple[Any, ...]] = []
    known: set[str] = set()

    async def old_server(commands: Any) -> list[Any]:
        sent.extend(commands)
        return [answer(command) for command in commands]

    def answer(command: tuple[Any, ...]) -> Any:
        if command[0] == "EVALSHA":
            return b"ran" if command[1] in known else redis.exceptions.NoScriptError("No script")
        if command[1].startswith("#!"):
            text = "Error compiling script: user_script:1: unexpected symbol near '#'"
            return redis.ResponseError(f"ERR {text}")
        known.add(ADD.plain.sha if ADD.plain else "")
        return b"ran"

    lane = Lane(old_server)

    async def call() -> Any:
        call = Awaited(asyncio.get_running_loop().create_future())
        call.aim(ADD, KEY, ())
        lane.take(call, asyncio.get_running_loop().time() + 60)
        return await call.answer

    assert await call() == b"ran"
    first = len(sent)
    assert await call() == b"ran"
    assert ADD.plain is not None
    assert [command[:2] for command in sent[first:]] == [("EVALSHA", ADD.plain.sha)]


async def test_a_store_that_hangs_is_not_asked_by_every_call(
    own: Server, running: redis.Redis
) -> None:
    """The first callers wait for their deadline, 50 ms; those after them are told at once."""
    client = Client(own.url, connect_timeout=0.05, command_timeout=0.05)
    await until(_served(client), "it never answers")
    os.kill(own.pid, signal.SIGSTOP)
    try:
        reasons = []
        for _ in range(50):
            with pytest.raises(StoreUnavailable) as refused:
                await client.run(ADD, KEY, ())
            reasons.append(str(refused.value))
    finally:
        os.kill(own.pid, signal.SIGCONT)
    assert sum("asked less often" in why for why in reasons) >= 40
    await until(_served(client), "it is not asked again")
    await client.aclose()


def _served(client: Client) -> Callable[[], Any]:
    async def served() -> bool:
        try:
            await client.run(READ, KEY, ())
        except StoreUnavailable:
            return False
        return True

    return served


async def test_a_crowd_shares_a_few_connections(client: Client, running: redis.Redis) -> None:
    """Whoever is too many waits in front of them."""
    before = running.info("stats")["total_connections_received"]
    answers = await asyncio.gather(*(client.run(ADD, KEY, ()) for _ in range(3000)))
    assert sorted(map(int, answers)) == list(range(1, 3001))
    assert running.info("stats")["total_connections_received"] - before <= 4


async def test_a_call_whose_answer_is_lost_is_sent_again(own: Server, running: redis.Redis) -> None:
    """Within its deadline, over another connection: here it has run twice, as it may."""
    with Balancer([str(own.socket)]) as relay:
        url = f"redis://127.0.0.1:{relay.port}"
        client = Client(url, connect_timeout=20.0, command_timeout=20.0)
        await client.run(ADD, KEY, ())
        relay.keep_answers()
        call = asyncio.create_task(client.run(ADD, KEY, ()))

        async def ran() -> bool:
            return running.get(KEY[0]) == b"2"

        await until(ran, "it does not run")
        relay.cut()
        relay.flow()
        assert await call == b"3"
        await client.aclose()


async def test_a_client_of_the_wrong_password_is_told_so(own: Server, running: redis.Redis) -> None:
    """At once, in the server's words; and so is one without a right."""
    running.config_set("requirepass", "right")
    for url, why in (
        (f"unix://:wrong@{own.socket}", "invalid username-password pair"),
        (own.url, "already authenticated"),
    ):
        client = Client(url, connect_timeout=20.0, command_timeout=20.0)
        with pytest.raises(StoreUnavailable, match=why):
            await client.run(ADD, KEY, ())
        await client.aclose()
    running.execute_command("AUTH", "right")
    running.execute_command("ACL", "SETUSER", "poor", "on", ">pw", "+ping", "+hello", "+auth")
    client = Client(f"unix://poor:pw@{own.socket}", connect_timeout=20.0, command_timeout=20.0)
    with pytest.raises(StoreUnavailable, match="NOPERM"):
        await client.run(ADD, KEY, ())
    await client.aclose()
