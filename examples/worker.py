"""An asyncio worker: many calls at once, one shared budget.

    sluicegate serve
    python examples/worker.py

Without a pools file the service has an example pool, which this program uses. Start it
several times at once: together they stay within the limits.
"""

import argparse
import asyncio
import random

from client_sdk import Limiter, RateLimited

MAX_TOKENS = 400


class Answer:
    """What a provider's SDK returns, as far as accounting is concerned."""

    def __init__(self, prompt: str, chance: random.Random) -> None:
        self.text = f"an answer to {prompt!r}"
        self.input_tokens = len(prompt)
        self.output_tokens = chance.randint(50, MAX_TOKENS - self.input_tokens)


async def call_provider(prompt: str, chance: random.Random) -> Answer:
    """Stands for the call that costs money: replace it by your provider's client."""
    await asyncio.sleep(chance.uniform(0.05, 0.2))
    return Answer(prompt, chance)


async def ask(limiter: Limiter, resource: str, prompt: str, chance: random.Random) -> int:
    """Reserve, call, report; the tokens that were used, 0 when there was no room in time."""
    try:
        async with limiter.acquire(resource, tokens=MAX_TOKENS, max_wait=20) as lease:
            answer = await call_provider(prompt, chance)
            lease.used(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens)
    except RateLimited as refusal:
        print(f"{prompt}: no room in {refusal.limit}, next in {refusal.retry_after:.1f} s")
        return 0
    print(f"{prompt}: {answer.text}")
    return answer.input_tokens + answer.output_tokens


async def main() -> None:
    """Ask everything at once and print the total."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--url", default="http://127.0.0.1:8080", help="where the service is")
    options.add_argument("--resource", default="example/gpt-4o", help="pool/model")
    options.add_argument("--calls", type=int, default=20)
    given = options.parse_args()

    chance = random.Random()  # noqa: S311 - a simulated provider
    async with Limiter(given.url, tenant="worker") as limiter:
        prompts = (f"prompt {number}" for number in range(given.calls))
        used = await asyncio.gather(*(ask(limiter, given.resource, p, chance) for p in prompts))
    print(f"{sum(1 for tokens in used if tokens)} calls used {sum(used)} tokens")


if __name__ == "__main__":
    asyncio.run(main())
