"""What a provider SDK makes of faults: run by stream_reliability.py, in the SDK's interpreter.

Standard input has the cases as JSON, standard output gets the counts:

complete  the whole text, byte by byte
error     a typed exception of the SDK, where the fault leaves no whole answer
silent    no exception, and yet the answer is not whole
raw       an exception that is not the SDK's own
"""

import asyncio
import json
import sys
from collections import Counter
from typing import Any

AT_ONCE = 32
ASKED = [{"role": "user", "content": "How high is the water?"}]
TIMEOUT = 4.0


async def openai_text(client: Any, case: dict[str, Any]) -> str:
    """The text that arrives."""
    stream = await client.chat.completions.create(
        model="gpt-4o", messages=ASKED, stream=True, extra_headers=case["headers"]
    )
    text = ""
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
    return text


async def anthropic_text(client: Any, case: dict[str, Any]) -> str:
    """The text that arrives."""
    stream = await client.messages.create(
        model="claude-x",
        max_tokens=1000,
        messages=ASKED,
        stream=True,
        extra_headers=case["headers"],
    )
    text = ""
    async for event in stream:
        if event.type == "content_block_delta":
            text += getattr(event.delta, "text", "")
    return text


async def main(name: str, provider: str) -> None:
    """Ask for every case and count."""
    if name == "openai":
        import openai as sdk  # noqa: PLC0415  # one of the two may be missing

        client: Any = sdk.AsyncOpenAI(base_url=f"{provider}/v1", api_key="k", timeout=TIMEOUT)
        ask, own = openai_text, sdk.OpenAIError
    else:
        import anthropic as sdk  # type: ignore[no-redef]  # noqa: PLC0415

        client = sdk.AsyncAnthropic(base_url=provider, api_key="k", timeout=TIMEOUT)
        ask, own = anthropic_text, sdk.AnthropicError
    counts: Counter[str] = Counter()
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(case: dict[str, Any]) -> None:
        async with gate:
            try:
                async with asyncio.timeout(10 * TIMEOUT):
                    text = await ask(client, case)
            except own:
                counts["error"] += 1
            except Exception:  # noqa: BLE001  # counted
                counts["raw"] += 1
            else:
                counts["complete" if text == case["text"] else "silent"] += 1

    await asyncio.gather(*map(one, json.load(sys.stdin)))
    print(json.dumps({key: counts[key] for key in ("complete", "error", "silent", "raw")}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
