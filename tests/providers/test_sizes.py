"""Figures in messages about prompts that are too long."""

import pytest

from limiter_wire import Outcome
from limiter_wire.providers import ContextTokens, classify

MESSAGES = [
    # message, context_limit, prompt_tokens, max_tokens, requested, excess
    (
        (
            "This model's maximum context length is 8192 tokens. However, you requested 9000 "
            "tokens (8000 in the messages, 1000 in the completion). Please reduce the length."
        ),
        (8192, 8000, 1000, 9000, 808),
    ),
    (
        (
            "This model's maximum context length is 16385 tokens. However, your messages resulted "
            "in 17000 tokens."
        ),
        (16_385, None, None, 17_000, 615),
    ),
    (
        "The requested token count exceeds the model's maximum context length of 32,768",
        (32_768, None, None, None, None),
    ),
    (
        (
            "This model's maximum context length is 4096 tokens. However, you requested 1000 "
            "output tokens and your prompt contains at least 3500 input tokens, so 4500 in all."
        ),
        (4096, 3500, 1000, None, 404),
    ),
    (
        (
            "You passed 5000 input tokens and requested 100 output tokens. However, the model's "
            "context length is only 4096 tokens."
        ),
        (4096, 5000, 100, None, 1004),
    ),
    ("prompt is too long: 210000 tokens > 200000 maximum", (200_000, 210_000, None, None, 10_000)),
    (
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
        (200_000, 190_000, 20_000, None, 10_000),
    ),
    (
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        (1_048_576, 1_200_000, None, None, 151_424),
    ),
    (
        "This model's maximum prompt length is 131072 but the request contains 140000 tokens.",
        (131_072, 140_000, None, None, 8928),
    ),
    (
        (
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
            "maximum context length"
        ),
        (32_768, 40_000, None, None, 7232),
    ),
    (
        "the request (9000 tokens) exceeds the available context size (8192 tokens), try more",
        (8192, 9000, None, None, 808),
    ),
    (
        "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000",
        (4081, 5000, None, None, 919),
    ),
    ("size limit exceeded by 120 tokens", (None, None, None, None, 120)),
    (
        "Please reduce the length. Current length is 9000 while limit is 8192",
        (8192, 9000, None, None, 808),
    ),
    ("prompt token count of 9000 exceeds the limit of 8192", (8192, 9000, None, None, 808)),
    ("exceeded model token limit: 8192 (requested: 9000)", (8192, None, None, 9000, 808)),
    ("input too long: 9000 input tokens, limit is 8192", (8192, 9000, None, None, 808)),
    (
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: "
            "4000 `inputs` tokens and 500 `max_new_tokens`"
        ),
        (4097, 4000, 500, None, 403),
    ),
]


@pytest.mark.parametrize(("message", "figures"), MESSAGES, ids=[m[:40] for m, _ in MESSAGES])
def test_the_figures_are_read(message: str, figures: tuple[int | None, ...]):
    """Whoever says it, and on whatever host: window, prompt, answer asked for, excess."""
    failure = classify("generic", status=400, body={"error": {"message": message}})
    assert failure.category is Outcome.CONTEXT_LENGTH_EXCEEDED
    names = ("context_limit", "prompt_tokens", "max_tokens", "requested", "excess")
    expected = ContextTokens(**dict(zip(names, figures, strict=True)))
    assert failure.tokens == expected


def test_a_server_may_give_the_figures_as_fields():
    """llama.cpp does, beside a message."""
    body = {
        "error": {
            "code": 400,
            "message": "too big",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 9000,
            "n_ctx": 8192,
        }
    }
    failure = classify("llamacpp", status=400, body=body)
    assert failure.tokens == ContextTokens(context_limit=8192, prompt_tokens=9000, excess=808)


@pytest.mark.parametrize(
    "message",
    [
        "Input is too long for requested model.",
        "Please reduce the length of the messages.",
        "Your input exceeds the context window of this model.",
        "the input length exceeds the context length",
    ],
)
def test_a_phrase_is_enough_where_there_are_no_figures(message: str):
    """Then nothing can be learned but that it is too long."""
    failure = classify("generic", status=400, body={"message": message})
    assert (failure.category, failure.tokens) == (Outcome.CONTEXT_LENGTH_EXCEEDED, None)


@pytest.mark.parametrize(
    ("status", "message", "category"),
    [
        (429, "Too many tokens, please wait before trying again.", Outcome.RATE_LIMITED),
        (
            429,
            "Number of input tokens has exceeded the per-minute rate limit",
            Outcome.RATE_LIMITED,
        ),
        (400, "Invalid 'user': string too long. Exceeds the context", Outcome.INVALID_REQUEST),
        (400, "Too many input tokens per minute (TPM)", Outcome.INVALID_REQUEST),
        (404, "maximum context length", Outcome.NOT_FOUND),
        (401, "maximum context length is 8192 tokens", Outcome.AUTH),
    ],
)
def test_what_only_sounds_like_length_is_something_else(
    status: int, message: str, category: Outcome
):
    """Rates count tokens too, and other strings are long."""
    assert classify("generic", status=status, body={"message": message}).category is category


def test_an_answer_that_is_too_large_is_not_a_prompt_that_is():
    """`max_tokens` above the model's cap: change that, and keep the prompt."""
    text = "max_tokens: 9000 > 8192, which is the maximum allowed number of output tokens for x"
    failure = classify("anthropic", status=400, body={"error": {"message": text}})
    assert failure.category is Outcome.INVALID_REQUEST
    assert failure.tokens == ContextTokens(max_tokens=8192, requested=9000, excess=808)
