"""How large reservations are against what calls use, when the output's size is learned.

    python benchmarks/reservation.py [--quantiles 0.95,0.96,0.97,0.98] [--max-output 4096]

Calls of the traces come in their order, and settle when an answer of their size would be
complete. The real script learns (lua/sizes), a quarter of a second after each settle. Compared
is `input + expected_output` with the sum of what the calls really used:

reserved   what is held over what is used. Bar: 1.25.
under      the part of calls that used more than was held. Bar: 5 %.
missing    the tokens that those lacked, over all that were used
whole      what `sum(input, max_output)` holds over what is used
"""

import asyncio
import heapq
import math
import random
from collections.abc import Sequence
from pathlib import Path

from harness import PATIENT, Report, Value, options, say, store

from limiter_service.demo.workload import Call, generate, read_trace
from limiter_service.engine import ids
from limiter_service.engine.sizes import EXPECTED, SUGGESTED, Sizes, sizes_of
from limiter_service.store.client import Client
from limiter_service.store.commands import Commands
from limiter_service.store.keys import Keys

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"
FILES = {
    "conversation": "AzureLLMInferenceTrace_conv.csv",
    "long context": "mooncake_synthetic_trace.jsonl",
}
FIRST_TOKEN, TOKENS_PER_SECOND, DELAY = 0.5, 80.0, 0.25


async def learned(commands: Commands, name: str, calls: Sequence[Call]) -> list[Sizes]:
    """What is known when each call comes."""
    key, known, found = Keys("bench").sizes(name, ""), Sizes(), []
    running: list[tuple[float, int]] = []
    for call in calls:
        news = []
        while running and running[0][0] <= call.at:
            news.append((float(heapq.heappop(running)[1]), 0.0, 0.0))
        if news:
            reply = await commands.sizes(key, ids.new_nonce(), 3_600_000, news)
            known = sizes_of(reply.numbers)
        found.append(known)
        took = FIRST_TOKEN + call.output_tokens / TOKENS_PER_SECOND
        heapq.heappush(running, (call.at + took + DELAY, call.output_tokens))
    return found


def row(
    name: str, q: float, calls: Sequence[Call], known: Sequence[Sizes], most: int
) -> dict[str, Value]:
    """The figures of one trace and quantile."""
    held = used = under = missing = 0
    for call, sizes in zip(calls, known, strict=True):
        seen = sizes.expected_output is not None
        output = min(most, math.ceil(sizes.quantile(q))) if seen else most
        held += call.input_tokens + output
        used += call.input_tokens + call.output_tokens
        under += output < call.output_tokens
        missing += max(0, call.output_tokens - output)
    whole = sum(call.input_tokens + most for call in calls)
    return {
        "trace": name,
        "quantile": f"{q:g}{' (used)' if q == EXPECTED else ''}",
        "calls": len(calls),
        "reserved": held / used,
        "under": f"{under / len(calls):.1%}",
        "missing": f"{missing / used:.2%}",
        "whole": whole / used,
    }


def cut(name: str, calls: Sequence[Call], known: Sequence[Sizes]) -> dict[str, Value]:
    """How many answers the suggested bound would cut off."""
    pairs = [(c, s.suggested_max_tokens) for c, s in zip(calls, known, strict=True)]
    told = [(call, bound) for call, bound in pairs if bound is not None]
    over = sum(call.output_tokens > bound for call, bound in told)
    last = told[-1][1]
    return {
        "trace": name,
        "quantile": f"{SUGGESTED:g}",
        "suggestions": len(told),
        "cut off": f"{over / len(told):.2%}",
        "the last one": last,
    }


async def main() -> None:
    """Print one row per trace and quantile."""
    parser = options(__doc__)
    parser.add_argument("--quantiles", default="0.95,0.96,0.97,0.98")
    parser.add_argument("--max-output", type=int, default=4096)
    asked = parser.parse_args()
    quantiles = [float(text) for text in asked.quantiles.split(",")]
    report, rows, cuts = Report(asked.json), [], []
    with store(asked.server) as server:
        client = Client(server.url, connect_timeout=PATIENT, command_timeout=PATIENT)
        commands = Commands(client)
        for trace, file in FILES.items():
            path = TRACES / file
            if path.exists():
                name, calls = trace, read_trace(path, random.Random(1))
            else:
                name, calls = f"{trace} (drawn)", generate(20, random.Random(1))
            say(f"{name}: {len(calls)} calls")
            known = await learned(commands, name, calls)
            rows += [row(name, q, calls, known, asked.max_output) for q in quantiles]
            cuts.append(cut(name, calls, known))
        await client.aclose()
    report.table("Reservation by input + expected_output", rows)
    report.table("The suggested max_tokens", cuts)
    report.close()


if __name__ == "__main__":
    asyncio.run(main())
