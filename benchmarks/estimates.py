"""How far token estimates are off, by vocabulary: raw, and once ten samples were learned.

The texts and their reference counts are those of the tests (tests/sdk/fixtures).

    python benchmarks/estimates.py
"""

import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from client_sdk.estimate import Estimator, estimate_text

FIXTURES = Path(__file__).parents[1] / "tests" / "sdk" / "fixtures"
MODELS = {
    "o200k": "gpt-4o",
    "cl100k": "gpt-4-turbo",
    "llama3": "llama-3.3-70b",
    "qwen3": "qwen3-32b",
    "tekken": "mistral-large",
}


def samples() -> Iterator[tuple[str, list[str], dict[str, list[int]]]]:
    """Each class of text, with its texts and their counts."""
    sentences = tomllib.loads((FIXTURES / "sentences.toml").read_text("utf-8"))
    for name, told in json.loads((FIXTURES / "counts.json").read_text("utf-8")).items():
        lines = sentences[name]["lines"]
        yield (
            name,
            [told["separator"].join(lines[i] for i in p) for p in told["picks"]],
            told["counts"],
        )


def main() -> None:
    """Print one row per vocabulary, the worst classes, and the time that 4 KB take."""
    print("vocabulary  chars/4  raw    learned  worst after learning")
    for vocabulary, model in MODELS.items():
        naive, raw, learned = {}, {}, {}
        for name, texts, counts in samples():
            actual = counts[vocabulary]
            estimator, errors = Estimator(), []
            guesses = []
            for text, tokens in zip(texts, actual, strict=True):
                guess = estimator.text(text, model, route=name)
                guesses.append(guess.raw)
                errors.append(abs(guess.tokens / tokens - 1))
                estimator.learn(guess, tokens)
            pairs = list(zip(texts, guesses, actual, strict=True))
            naive[name] = mean(abs(len(text) / 4 / tokens - 1) for text, _, tokens in pairs)
            raw[name] = mean(abs(guess / tokens - 1) for _, guess, tokens in pairs)
            learned[name] = mean(errors[10:])
        worst = sorted(learned, key=lambda name: -learned[name])[:2]
        told = ", ".join(f"{name} {learned[name]:.1%}" for name in worst)
        shares = [f"{mean(each.values()):6.1%}" for each in (naive, raw, learned)]
        print(f"{vocabulary:10}  {'  '.join(shares)}   {told}")
    text = "\n".join(text for _, texts, _ in samples() for text in texts)[:4096]
    start = time.perf_counter()
    for _ in range(200):
        estimate_text(text)
    print(f"4,096 characters take {(time.perf_counter() - start) / 200 * 1000:.2f} ms")


if __name__ == "__main__":
    main()
