"""The estimator against counts of real vocabularies, and what a request is made of.

Reference counts: fixtures/counts.json, written by fixtures/count.py with the vocabularies of
`quicktok-v1` 0.4.0 and `mistral-common` 1.13.1 over sentences of our own.
"""

import base64
import json
import struct
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk import exact
from client_sdk.estimate import Estimator, Ratio, _runs, estimate_text, family_of
from client_sdk.pictures import UNKNOWN, picture_tokens, size_of
from client_sdk.token_weights import FAMILIES, WEIGHTS
from limiter_wire import Calibration

HERE = Path(__file__).parent / "fixtures"
SENTENCES = tomllib.loads((HERE / "sentences.toml").read_text("utf-8"))
COUNTS: dict[str, Any] = json.loads((HERE / "counts.json").read_text("utf-8"))
# A model of each vocabulary that was counted with; tekken is Mistral's.
MODELS = {
    "o200k": "gpt-4o",
    "cl100k": "gpt-4-turbo",
    "llama3": "llama-3.3-70b",
    "qwen3": "qwen3-32b",
    "tekken": "mistral-large",
}


def texts(name: str) -> list[str]:
    """The thirty texts of a class."""
    told = COUNTS[name]
    return [told["separator"].join(SENTENCES[name]["lines"][i] for i in p) for p in told["picks"]]


def learned_error(name: str, vocabulary: str) -> float:
    """The mean error over the twenty texts that follow the first ten of a route."""
    estimator, errors = Estimator(), []
    counts = COUNTS[name]["counts"][vocabulary]
    for i, (text, actual) in enumerate(zip(texts(name), counts, strict=True)):
        guess = estimator.text(text, MODELS[vocabulary], route=name)
        if i >= 10:
            errors.append(abs(guess.raw * estimator.ratios[guess.model, name].ratio / actual - 1))
        estimator.learn(guess, actual)
    return mean(errors)


@pytest.mark.parametrize("vocabulary", MODELS)
def test_ten_samples_bring_estimates_within_seven_percent(vocabulary: str):
    """On average over all classes of text; code in TypeScript is the worst, and still within 9."""
    errors = {name: learned_error(name, vocabulary) for name in COUNTS}
    assert mean(errors.values()) <= 0.07, errors
    assert max(errors.values()) <= 0.09, errors
    assert errors["encoded"] <= 0.06, errors
    assert mean(errors[name] for name in ("en", "de", "zh", "ar", "json", "python")) <= 0.06


def test_an_estimate_is_of_use_before_anything_was_learned():
    """With the weights of its own family: a fifth off on average, and never by half."""
    errors = {}
    for name in COUNTS:
        guesses = [estimate_text(text) for text in texts(name)]
        errors[name] = sum(guesses) / sum(COUNTS[name]["counts"]["o200k"]) - 1
    assert mean(map(abs, errors.values())) < 0.15, errors
    assert max(map(abs, errors.values())) < 0.35, errors


def test_a_quarter_of_the_characters_is_a_worse_guess():
    """What many programs do is off by more than twice as much, and hopeless beyond Latin."""
    ours, theirs = [], []
    for name in COUNTS:
        actual = sum(COUNTS[name]["counts"]["o200k"])
        ours.append(abs(sum(map(estimate_text, texts(name))) / actual - 1))
        theirs.append(abs(sum(len(text) / 4 for text in texts(name)) / actual - 1))
    assert mean(ours) < mean(theirs) / 2


def test_nineteen_of_twenty_requests_stay_below_high():
    """Reserving `high` seldom is too little, once a route is known."""
    below, seen = 0, 0
    for name in COUNTS:
        estimator = Estimator()
        counts = COUNTS[name]["counts"]["o200k"]
        for i, (text, actual) in enumerate(zip(texts(name), counts, strict=True)):
            guess = estimator.text(text, "gpt-4o", route=name)
            if i >= 10:
                seen, below = seen + 1, below + (actual <= guess.high)
            estimator.learn(guess, actual)
    assert below / seen >= 0.95


def test_a_long_text_is_judged_by_samples():
    """Of half a million characters a few thousand are looked at, with much the same result."""
    whole = " ".join(SENTENCES["en"]["lines"] + SENTENCES["ru"]["lines"]) * 250
    weighed = sum(estimate_text(whole[i : i + 4000]) for i in range(0, len(whole), 4000))
    assert estimate_text(whole) == pytest.approx(weighed, rel=0.1)


def test_ratios_are_kept_apart_by_model_and_route():
    """What one kind of prompt taught says nothing about another."""
    estimator = Estimator()
    for _ in range(10):
        estimator.learn(estimator.text("word " * 100, "m", route="a"), 260)
    assert estimator.text("word " * 100, "m", route="a").tokens == 260
    assert estimator.text("word " * 100, "m", route="b").tokens != 260
    assert estimator.text("word " * 100, "n", route="a").tokens != 260


def test_memory_of_ratios_is_bounded():
    """Callers make up routes: the one that learned longest ago is forgotten."""
    estimator = Estimator(most=2)
    for route in ("a", "b", "a", "c"):
        estimator.learn(estimator.text("word", "m", route=route), 2)
    assert sorted(route for _, route in estimator.ratios) == ["a", "c"]


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=True, allow_infinity=True), st.floats(-10, 1e12)),
        max_size=40,
    )
)
def test_no_report_spoils_a_ratio(pairs: list[tuple[float, float]]):
    """It stays a number between a tenth and ten, whatever is reported."""
    ratio = Ratio()
    for estimated, actual in pairs:
        ratio = ratio.learned(estimated, actual)
    assert 0.1 <= ratio.ratio <= 10
    assert ratio.spread >= 0


def test_a_ratio_follows_a_change():
    """After a model's tokenizer changed, some twenty calls bring it to the new truth."""
    ratio = Ratio()
    for _ in range(100):
        ratio = ratio.learned(100, 120)
    for _ in range(25):
        ratio = ratio.learned(100, 180)
    assert ratio.ratio == pytest.approx(1.8, rel=0.03)


@given(st.text(max_size=300), st.sampled_from(sorted(WEIGHTS)))
def test_any_text_has_a_sane_estimate(text: str, family: str):
    """Not negative, not more than a few tokens per character, and zero for nothing."""
    tokens = estimate_text(text, family)
    assert 0 <= tokens <= 6 * len(text)


CHAT = [
    {"role": "system", "content": "You are a librarian."},
    {"role": "user", "content": [{"type": "text", "text": "Which books about rivers?"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "search", "arguments": '{"subject": "rivers"}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "Three books were found."},
]
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}


def raw(*args: Any, **options: Any) -> float:
    """The estimate of a request, uncorrected."""
    return Estimator().request(*args, **options).raw


def test_every_part_of_a_request_counts():
    """Each message, its tool calls, the system prompt and the tools add to it."""
    sizes = [raw(CHAT[:i], "gpt-4o") for i in range(len(CHAT) + 1)]
    assert sizes == sorted(set(sizes))
    assert raw(CHAT, "gpt-4o", tools=[TOOL]) > sizes[-1] + 10
    assert raw(CHAT, "gpt-4o", system="Be brief, and name your sources.") > sizes[-1] + 8
    assert raw(CHAT, "claude-opus-5", tools=[TOOL]) > raw(CHAT, "claude-opus-5") + 346


def test_what_only_arranges_a_message_does_not_count():
    """Ids, roles, types and cache marks are no text."""
    bare = {"role": "user", "content": [{"type": "text", "text": "hello"}]}
    marked = {
        "role": "user",
        "id": "msg_" + "x" * 500,
        "content": [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}],
    }
    assert raw([bare], "gpt-4o") == raw([marked], "gpt-4o")


def test_the_dialects_of_messages_are_read_alike():
    """The same words in the shapes of OpenAI, Anthropic and Gemini."""
    words = "Which books about rivers are there?"
    shapes: list[dict[str, Any]] = [
        {"role": "user", "content": words},
        {"role": "user", "content": [{"type": "text", "text": words}]},
        {"role": "user", "parts": [{"text": words}]},
    ]
    assert len({raw([shape], "gpt-4o") for shape in shapes}) == 1
    call = {"type": "tool_use", "id": "t", "name": "search", "input": {"subject": "rivers"}}
    part = {"functionCall": {"name": "search", "args": {"subject": "rivers"}}}
    told = raw([{"role": "assistant", "content": [call]}], "gpt-4o")
    assert told == raw([{"role": "model", "parts": [part]}], "gpt-4o")


def png(width: int, height: int) -> str:
    """A picture's first bytes, in base64."""
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)
    return base64.b64encode(head).decode()


def jpeg(width: int, height: int) -> str:
    """The same in another format, with a segment before the frame."""
    frame = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width)
    return base64.b64encode(b"\xff\xd8\xff\xe0\0\x04ab" + frame).decode()


@pytest.mark.parametrize(
    ("part", "size"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png(640, 480)}"}},
            (640, 480),
        ),
        ({"type": "image", "source": {"type": "base64", "data": jpeg(800, 600)}}, (800, 600)),
        ({"inline_data": {"mime_type": "image/png", "data": png(300, 200)}}, (300, 200)),
        (
            {
                "type": "image",
                "source": {"data": base64.b64encode(b"GIF89a\x05\0\x07\0").decode()},
            },
            (5, 7),
        ),
        ({"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}, UNKNOWN),
        ({"type": "image", "source": {"data": "no picture!"}}, UNKNOWN),
    ],
)
def test_the_size_of_a_picture_is_seen_where_it_travels_along(
    part: dict[str, Any], size: tuple[int, int]
):
    """PNG, JPEG and GIF say it in their first bytes; an address says nothing."""
    assert size_of(part) == size


@pytest.mark.parametrize(
    ("size", "family", "detail", "tokens"),
    [
        ((1024, 1024), "o200k", "auto", 765),  # four squares, and the base
        ((4096, 8192), "o200k", "high", 1105),
        ((4096, 8192), "o200k", "low", 85),
        ((1000, 1000), "claude", "auto", 1334),
        ((200, 200), "claude", "auto", 54),
        ((300, 300), "gemini", "auto", 258),
        ((1024, 1024), "gemini", "auto", 1032),
    ],
)
def test_a_picture_costs_what_its_provider_publishes(
    size: tuple[int, int], family: str, detail: str, tokens: int
):
    """Squares at OpenAI, area at Anthropic, crops at Gemini."""
    assert picture_tokens(size, family, detail) == tokens


def test_a_picture_in_a_message_counts_by_its_size_not_by_its_bytes():
    """Base64 is no text."""
    url = f"data:image/png;base64,{png(512, 512)}" + "A" * 40_000
    part = {"type": "image_url", "image_url": {"url": url, "detail": "high"}}
    empty = raw([{"role": "user", "content": ""}], "gpt-4o")
    assert raw([{"role": "user", "content": [part]}], "gpt-4o") == empty + 255


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4o-mini", "o200k"),
        ("gpt-4-turbo", "cl100k"),
        ("gpt-6.1-sol", "o200k"),
        ("claude-3-5-haiku-latest", "claude3"),
        ("us.anthropic.claude-sonnet-4-5-v1", "claude3"),
        ("claude-opus-4-8", "claude"),
        ("claude-fable-5", "claude"),
        ("meta-llama/Llama-4-Scout", "llama4"),
        ("mixtral-8x7b", "mistral"),
        ("unheard-of", "o200k"),
    ],
)
def test_a_model_has_a_family(model: str, family: str):
    """By its name; nobody's is OpenAI's newest."""
    assert family_of(model) == family


def test_every_family_has_every_class():
    """A missing weight would count a script as nothing."""
    classes = set(WEIGHTS["o200k"])
    assert "other" in classes
    assert {frozenset(weights) for weights in WEIGHTS.values()} == {frozenset(classes)}
    assert {family for _, family in FAMILIES} <= set(WEIGHTS)


def test_an_exact_counter_replaces_the_estimate_of_its_family():
    """And only of that: others are estimated as before."""
    estimator = Estimator({"o200k": len})
    guess = estimator.text("word", "gpt-4o")
    assert (guess.tokens, guess.high, guess.exact) == (4, 4, True)
    assert not estimator.text("word", "claude-opus-5").exact
    assert estimator.request([{"content": "word"}], "gpt-4o").raw == 3 + 4 + 4


def test_exact_counters_are_those_that_are_installed():
    """Whatever is found counts, and what is not found is not missed."""
    found = exact.counters()
    assert set(found) <= set(WEIGHTS)
    for count in found.values():
        assert 3 <= count("The quick brown fox jumps.") <= 10
    if not found:
        with pytest.raises(ModuleNotFoundError):
            exact.counter_from_file(Path("tokenizer.json"))


def test_the_client_loads_no_weights_before_they_are_needed():
    """`import client_sdk` stays cheap."""
    probe = "import sys, client_sdk; sys.exit('client_sdk.token_weights' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_an_estimator_adopts_what_others_learned():
    """Unless it knows more itself; what holds for the whole model weighs little."""
    estimator = Estimator()
    estimator.adopt("m", "r", Calibration(ratio=1.5, spread=0.02, samples=40))
    assert estimator.ratios["m", "r"] == Ratio(samples=40, ratio=1.5, spread=0.02)
    estimator.adopt("m", "r", Calibration(ratio=9.0, spread=0.5, samples=40))
    assert estimator.ratios["m", "r"].ratio == 1.5
    estimator.adopt("m", "new", Calibration(ratio=1.2, spread=0.1, samples=900, of_route=False))
    assert estimator.ratios["m", "new"].samples == 2
    estimator.learn(estimator.text("word " * 50, "m", route="new"), 500)
    estimator.adopt("m", "new", Calibration(ratio=1.2, spread=0.1, samples=900, of_route=False))
    assert estimator.ratios["m", "new"].samples == 3


def test_what_is_adopted_is_bounded_too():
    """As what is learned: the oldest go first."""
    estimator = Estimator(most=2)
    for route in "abc":
        estimator.adopt("m", route, Calibration(ratio=2.0, spread=0.0, samples=1))
    assert [route for _, route in estimator.ratios] == ["b", "c"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [  # as o200k counts them
        ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", 43),
        ("dGhlIHF1aWNrIGJyb3duIGZveCBqdW1wcw", 23),
        ("QW5kIHRoZSByaXZlciBmbG9vZGVkIHRoZSByb2FkIHRvIHRoZSBtaWxsLg==", 42),
        ("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85", 37),
    ],
)
def test_keys_and_digests_are_told_from_words(text: str, tokens: int):
    """Letters and digits in one run are no words: a few characters make a token."""
    assert estimate_text(text) == pytest.approx(tokens, rel=0.16)


@pytest.mark.parametrize(
    "text",
    ["internationalization", "getUserByIdFromDatabase", "1234567890123456", "deadbeef", "FACADE",
     "the 2nd of 12 rivers", "x86_64", "/usr/lib/python3/dist", "3.14159265", "utf8mb4"],
)  # fmt: skip
def test_words_numbers_and_paths_are_no_keys(text: str):
    """Nothing of them is counted as a key."""
    assert {run.lastgroup for run in _runs().finditer(text)}.isdisjoint({"hex", "code"})
