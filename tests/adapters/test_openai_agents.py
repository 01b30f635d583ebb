"""OpenAI Agents: one line, and every agent of the process is limited."""

from collections.abc import Callable

from tests_support.packages import installed

from client_sdk import Limiter

Used = Callable[..., tuple[int, int]]
TEXT = "The water rises behind the"
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}


async def test_an_agent(url: str, provider: str, used: Used):
    """Over the responses interface, whole and streamed."""
    agents = installed("agents")
    from client_sdk.adapters.openai_agents import use_limiter

    agents.set_tracing_disabled(True)
    async with Limiter(url) as limiter:
        sdk = use_limiter(
            limiter,
            pool="p",
            base_url=f"{provider}/openai/v1",
            api_key="k",
            default_headers=FIVE,
        )
        async with sdk:
            agent = agents.Agent(name="reader", instructions="Be short.", model="m")
            answer = await agents.Runner.run(agent, "How high is the water?")
            assert answer.final_output == TEXT
            assert used() == (25, 0)
            streamed = agents.Runner.run_streamed(agent, "How high is the water?")
            async for _event in streamed.stream_events():
                pass
            assert streamed.final_output == TEXT
    assert used() == (50, 0)
