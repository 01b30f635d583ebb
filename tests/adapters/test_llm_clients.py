"""`LLMClient` over a client of the other HTTP family."""

from collections.abc import Callable

from tests_support.packages import installed

from client_sdk import Limiter, LLMClient, StreamOutcome, SyncLimiter, SyncLLMClient

ASK = [{"role": "user", "content": "How high is the water?"}]
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}
TEXT = "The water rises behind the"


async def test_tasks(url: str, provider: str, used: Callable[..., tuple[int, int]]):
    """Whole and streamed, settled with what was used; the client stays open."""
    httpx2 = installed("httpx2")
    async with httpx2.AsyncClient() as http, Limiter(url) as limiter:
        given = {"base_url": f"{provider}/openai/v1", "api_key": "k", "resource": "p/m"}
        async with LLMClient("m", http_client=http, limiter=limiter, **given) as llm:
            answer = await llm.get_response_with_tools(ASK, extra_headers=FIVE)
            stream = llm.get_streaming_response_with_tools(ASK, extra_headers=FIVE)
            assert "".join([chunk.content async for chunk in stream]) == TEXT == answer.text
            assert stream.result.outcome is StreamOutcome.COMPLETED
        assert not http.is_closed
    assert used() == (50, 0)


def test_threads(url: str, provider: str, used: Callable[..., tuple[int, int]]):
    """The same without tasks."""
    httpx2 = installed("httpx2")
    with httpx2.Client() as http, SyncLimiter(url) as limiter:
        given = {"base_url": f"{provider}/openai/v1", "api_key": "k", "resource": "p/m"}
        with SyncLLMClient("m", http_client=http, limiter=limiter, **given) as llm:
            stream = llm.get_streaming_response_with_tools(ASK, extra_headers=FIVE)
            assert "".join(chunk.content for chunk in stream) == TEXT
    assert used() == (25, 0)
