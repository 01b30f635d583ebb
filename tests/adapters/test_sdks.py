"""The providers' own clients with one line more: their calls are limited and settled."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests_support.packages import installed

from client_sdk import Limiter, RateLimited, SyncLimiter
from client_sdk.transports import refusal_of

Used = Callable[..., tuple[int, int]]
TEXT = "The water rises behind the"
FIVE = {"x-sim-output-tokens": "5", "x-sim-input-tokens": "20"}
ASK = [{"role": "user", "content": "How high is the water?"}]


def family_of(sdk: Any) -> Any:
    """The HTTP package that an SDK wants: its own default client's."""
    for kind in sdk.__mro__:
        package = kind.__module__.partition(".")[0]
        if package in {"httpx", "httpx2"}:
            return installed(package)
    raise AssertionError(sdk)


class TestOpenAI:
    """openai, 2.x over httpx and 3.x over httpx2."""

    async def test_async(self, url: str, provider: str, used: Used):
        """Chat and responses, whole and streamed, by a transport."""
        openai = installed("openai")
        httpx = family_of(openai.DefaultAsyncHttpxClient)
        async with Limiter(url) as limiter:
            transport = limiter.transport(httpx.AsyncHTTPTransport(), pool="p")
            sdk = openai.AsyncOpenAI(
                base_url=f"{provider}/openai/v1",
                api_key="k",
                http_client=openai.DefaultAsyncHttpxClient(transport=transport),
            )
            async with sdk:
                chat = sdk.chat.completions
                whole = await chat.create(model="m", messages=ASK, extra_headers=FIVE)
                assert whole.choices[0].message.content == TEXT
                assert used() == (25, 0)
                stream = await chat.create(
                    model="m",
                    messages=ASK,
                    stream=True,
                    stream_options={"include_usage": True},
                    extra_headers=FIVE,
                )
                chunks = [chunk async for chunk in stream]
                text = [c.choices[0].delta.content or "" for c in chunks if c.choices]
                assert "".join(text) == TEXT
                assert used() == (50, 0)
                async with sdk.responses.stream(
                    model="m", input="Hi", extra_headers=FIVE
                ) as events:
                    final = await events.get_final_response()
                assert final.output_text == TEXT
                assert used() == (75, 0)

    def test_sync(self, url: str, provider: str, used: Used):
        """The blocking client, limited in place."""
        openai = installed("openai")
        with SyncLimiter(url) as limiter:
            client = limiter.transport(openai.DefaultHttpxClient(), pool="p")
            with openai.OpenAI(
                base_url=f"{provider}/openai/v1", api_key="k", http_client=client
            ) as sdk:
                chat = sdk.chat.completions
                chat.create(model="m", messages=ASK, extra_headers=FIVE)
                stream = chat.create(model="m", messages=ASK, stream=True, extra_headers=FIVE)
                text = [c.choices[0].delta.content or "" for c in stream if c.choices]
                assert "".join(text) == TEXT
                assert used()[1] == 0

    async def test_the_old_family_still_works(self, url: str, provider: str, used: Used):
        """openai takes an httpx client too."""
        openai, httpx = installed("openai"), installed("httpx")
        async with Limiter(url) as limiter:
            client = limiter.transport(httpx.AsyncClient(), pool="p")
            base = f"{provider}/openai/v1"
            async with openai.AsyncOpenAI(base_url=base, api_key="k", http_client=client) as sdk:
                await sdk.chat.completions.create(model="m", messages=ASK, extra_headers=FIVE)
        assert used() == (25, 0)

    async def test_hidden_retries_are_attempts_of_their_own(
        self, url: str, provider: str, used: Used
    ):
        """Each takes a lease; what failed has used no tokens."""
        openai = installed("openai")
        async with Limiter(url) as limiter:
            client = limiter.transport(openai.DefaultAsyncHttpxClient(), pool="p")
            sdk = openai.AsyncOpenAI(
                base_url=f"{provider}/openai/v1", api_key="k", http_client=client, max_retries=1
            )
            async with sdk:
                fault = {"x-sim-fault": "rate-limit; retry-after=0.01"}
                with pytest.raises(openai.RateLimitError) as caught:
                    await sdk.chat.completions.create(model="m", messages=ASK, extra_headers=fault)
        assert refusal_of(caught.value) is None
        assert used() == (0, 0)

    async def test_a_refusal_is_waited_for_by_the_sdk(self, url: str, provider: str):
        """Its own retry comes when there is room: all calls succeed."""
        openai = installed("openai")
        async with Limiter(url) as limiter:
            client = limiter.transport(openai.DefaultAsyncHttpxClient(), resource="p/quick-1")
            sdk = openai.AsyncOpenAI(
                base_url=f"{provider}/openai/v1", api_key="k", http_client=client, max_retries=9
            )
            async with sdk:
                calls = (
                    sdk.chat.completions.create(model="m", messages=ASK, extra_headers=FIVE)
                    for _ in range(3)
                )
                answers = await asyncio.gather(*calls)
        assert [answer.choices[0].message.content for answer in answers] == [TEXT] * 3

    async def test_a_refusal_is_the_error_that_users_know(self, url: str, provider: str):
        """`RateLimitError`, at once where waiting is no use, with ours behind it."""
        openai = installed("openai")
        async with Limiter(url) as limiter:
            client = limiter.transport(openai.DefaultAsyncHttpxClient(), resource="p/spent-1")
            sdk = openai.AsyncOpenAI(
                base_url=f"{provider}/openai/v1", api_key="k", http_client=client
            )
            async with sdk:
                await sdk.chat.completions.create(model="m", messages=ASK, extra_headers=FIVE)
                with pytest.raises(openai.RateLimitError) as caught:
                    await sdk.chat.completions.create(model="m", messages=ASK)
        assert caught.value.code == "rate_limited"
        ours = refusal_of(caught.value)
        assert isinstance(ours, RateLimited)
        assert ours.retry_after is not None
        assert ours.retry_after > 3600


class TestAnthropic:
    """anthropic 2.x, which takes httpx2 alone."""

    async def test_async(self, url: str, provider: str, used: Used):
        """Whole and streamed."""
        anthropic = installed("anthropic")
        async with Limiter(url) as limiter:
            client = limiter.transport(anthropic.DefaultAsyncHttpxClient(), pool="p")
            sdk = anthropic.AsyncAnthropic(
                base_url=f"{provider}/anthropic", api_key="k", http_client=client
            )
            common = {"model": "m", "max_tokens": 100, "messages": ASK, "extra_headers": FIVE}
            async with sdk:
                whole = await sdk.messages.create(**common)
                assert whole.content[0].text == TEXT
                assert used() == (25, 0)
                async with sdk.messages.stream(**common) as stream:
                    final = await stream.get_final_message()
                assert final.content[0].text == TEXT
        assert used() == (50, 0)

    def test_sync(self, url: str, provider: str, used: Used):
        """The blocking client."""
        anthropic = installed("anthropic")
        with SyncLimiter(url) as limiter:
            client = limiter.transport(anthropic.DefaultHttpxClient(), pool="p")
            sdk = anthropic.Anthropic(
                base_url=f"{provider}/anthropic", api_key="k", http_client=client
            )
            with (
                sdk,
                sdk.messages.stream(
                    model="m", max_tokens=100, messages=ASK, extra_headers=FIVE
                ) as stream,
            ):
                assert stream.get_final_text() == TEXT
        assert used() == (25, 0)

    async def test_a_refusal_is_the_error_that_users_know(self, url: str, provider: str):
        """`RateLimitError`, with ours behind it."""
        anthropic = installed("anthropic")
        async with Limiter(url) as limiter:
            client = limiter.transport(anthropic.DefaultAsyncHttpxClient(), resource="p/spent-2")
            sdk = anthropic.AsyncAnthropic(
                base_url=f"{provider}/anthropic", api_key="k", http_client=client
            )
            common = {"model": "m", "max_tokens": 100, "messages": ASK, "extra_headers": FIVE}
            async with sdk:
                await sdk.messages.create(**common)
                with pytest.raises(anthropic.RateLimitError) as caught:
                    await sdk.messages.create(**common)
        assert isinstance(refusal_of(caught.value), RateLimited)


class TestGoogle:
    """google-genai."""

    async def test_async(self, url: str, provider: str, used: Used):
        """Given an httpx client, its own aiohttp is not used."""
        genai, httpx = installed("google.genai"), installed("httpx")
        async with Limiter(url) as limiter:
            client = limiter.transport(httpx.AsyncClient(), pool="p")
            options = {"base_url": f"{provider}/gemini", "headers": FIVE}
            sdk = genai.Client(api_key="k", http_options={**options, "httpx_async_client": client})
            whole = await sdk.aio.models.generate_content(model="m", contents="Hi")
            assert whole.text == TEXT
            assert used() == (25, 0)
            stream = await sdk.aio.models.generate_content_stream(model="m", contents="Hi")
            assert "".join([piece.text or "" async for piece in stream]) == TEXT
            await client.aclose()
        assert used() == (50, 0)

    def test_sync(self, url: str, provider: str, used: Used):
        """The blocking client."""
        genai, httpx = installed("google.genai"), installed("httpx")
        with SyncLimiter(url) as limiter, httpx.Client() as http:
            options = {"base_url": f"{provider}/gemini", "headers": FIVE}
            client = limiter.transport(http, pool="p")
            sdk = genai.Client(api_key="k", http_options={**options, "httpx_client": client})
            pieces = list(sdk.models.generate_content_stream(model="m", contents="Hi"))
        assert "".join(piece.text or "" for piece in pieces) == TEXT
        assert used() == (25, 0)


async def test_mistral(url: str, provider: str, used: Used):
    """mistralai: whole and streamed."""
    installed("mistralai")
    mistral, httpx2 = installed("mistralai.client"), installed("httpx2")
    async with Limiter(url) as limiter, httpx2.AsyncClient() as http:
        client = limiter.transport(http, pool="p")
        sdk = mistral.Mistral(api_key="k", server_url=f"{provider}/mistral", async_client=client)
        common = {"model": "m", "messages": ASK, "http_headers": FIVE}
        whole = await sdk.chat.complete_async(**common)
        assert whole.choices[0].message.content == TEXT
        assert used() == (25, 0)
        stream = await sdk.chat.stream_async(**common)
        async with stream:
            pieces = [event.data async for event in stream]
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == TEXT
    assert used() == (50, 0)


@pytest.mark.parametrize("name", ["groq", "together"])
async def test_relatives_of_openai(url: str, provider: str, used: Used, name: str):
    """groq and together: whole and streamed."""
    package, httpx = installed(name), installed("httpx")
    kind = {"groq": "AsyncGroq", "together": "AsyncTogether"}[name]
    # groq begins each path with /openai/v1 itself, together with /v1.
    base = {"groq": provider, "together": f"{provider}/openai"}[name]
    async with Limiter(url) as limiter, httpx.AsyncClient() as http:
        client = limiter.transport(http, pool="p")
        sdk = getattr(package, kind)(base_url=base, api_key="k", http_client=client, max_retries=0)
        async with sdk:
            common = {"model": "m", "messages": ASK, "extra_headers": FIVE}
            whole = await sdk.chat.completions.create(**common)
            assert whole.choices[0].message.content == TEXT
            assert used() == (25, 0)
            stream = await sdk.chat.completions.create(**common, stream=True)
            text = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            assert "".join(text) == TEXT
    assert used()[1] == 0


async def test_cohere(url: str, provider: str, used: Used):
    """cohere: whole and streamed."""
    cohere, httpx = installed("cohere"), installed("httpx")
    async with Limiter(url) as limiter, httpx.AsyncClient() as http:
        client = limiter.transport(http, pool="p")
        sdk = cohere.AsyncClientV2(api_key="k", base_url=f"{provider}/cohere", httpx_client=client)
        common = {
            "model": "m",
            "messages": ASK,
            "request_options": {"additional_headers": FIVE},
        }
        whole = await sdk.chat(**common)
        assert whole.message.content[0].text == TEXT
        assert used() == (25, 0)
        pieces = [piece async for piece in sdk.chat_stream(**common)]
        deltas = [p.delta.message.content.text for p in pieces if p.type == "content-delta"]
    assert "".join(deltas) == TEXT
    assert used() == (50, 0)


async def test_ollama(url: str, provider: str, used: Used):
    """ollama, whose client is made inside: it is limited in place."""
    ollama = installed("ollama")
    async with Limiter(url) as limiter:
        sdk = ollama.AsyncClient(host=f"{provider}/ollama", headers=FIVE)
        limiter.transport(sdk._client, pool="p")
        whole = await sdk.chat(model="m", messages=ASK)
        assert whole.message.content == TEXT
        assert used() == (25, 0)
        pieces = [one async for one in await sdk.chat(model="m", messages=ASK, stream=True)]
        assert "".join(piece.message.content or "" for piece in pieces) == TEXT
        await sdk._client.aclose()
    assert used() == (50, 0)
