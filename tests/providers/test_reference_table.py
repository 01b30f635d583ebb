"""Classification against a table of provider facts that may lie beside the checkout.

The table is not part of the project; without it these tests are skipped. Each row is turned
into observations that its patterns match, and what the table says of each (first match
wins; own provider, parent, anybody) is what `classify` must say.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from limiter_wire import Outcome
from limiter_wire.providers import Backoff, Failure, Impact, classify, classify_local

TABLE = Path(__file__).parents[3] / "shared" / "data" / "error_taxonomy.json"
PARENTS = {"vertex": "google", "azure": "openai", "sglang": "vllm"}
CTX_SAMPLE = "This model's maximum context length is 8192 tokens, you requested 9000 tokens"
RETRIES = {"pre-content": "before_content", "other": "elsewhere"}
IMPACTS = {
    "fail": {Impact.FAILURE, Impact.CAPACITY},
    "throttle": {Impact.THROTTLE},
    "ok": {Impact.ALIVE},
    "ignore": {Impact.NEUTRAL},
}
AN_HOUR = 3600
PINS = {Impact.QUOTA_PIN, Impact.AUTH_PIN, Impact.MODEL_PIN}

rows: list[dict[str, Any]] = json.loads(TABLE.read_text()) if TABLE.is_file() else []
pytestmark = pytest.mark.skipif(not rows, reason="the table of facts is not at hand")


def alternatives(pattern: str) -> list[str]:
    """Texts that *pattern* matches, one for each of its alternatives."""
    parts, depth, current = [], 0, ""
    for letter in re.sub(r"\(\?[!:][^)]*\)", "", pattern).replace("(?!.*Per(Day|Minute))", ""):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "|" and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [text for part in [*parts, current] for text in expanded(part)]


def expanded(text: str) -> list[str]:
    """One alternative without groups and classes."""
    inner = re.search(r"\(([^()]*)\)", text)
    if inner and text[inner.start() - 1 : inner.start()] != "\\":
        options = inner[1].split("|")
        heads = [text[: inner.start()] + option + text[inner.end() :] for option in options]
        return list(itertools.chain.from_iterable(map(expanded, heads)))
    text = text.replace(r"\b", "").replace("^", "").replace("$", "").replace(r"\(", "(")
    text = text.replace(r"\)", ")").replace(r"\.", ".")
    text = re.sub(r"\[(.)[^]]*\]", r"\1", text)
    return [re.sub(r"\.(\*|\{[^}]*\})", " ", text).replace("?", "")]


def observations() -> list[tuple[str, str, str, int, str, str]]:
    """Row id, provider, where, status, code and message of every observation."""
    found = []
    for row in rows:
        codes = alternatives(row["code"])
        message = row["message"].replace("@CTX", CTX_SAMPLE)
        messages = [message] if row["message"] == "@CTX" else alternatives(message)
        for status in str(row["http"]).split("|"):
            number = 0 if status == "None" else int(status)
            provider = "generic" if row["provider"] == "*" else row["provider"]
            for code, text in itertools.product(codes, messages):
                found.append((row["id"], provider, row["where"], number, code, text))
    return found


def stated(provider: str, where: str, status: int, code: str, message: str) -> dict[str, Any]:
    """The row that the table itself gives: the first that matches."""
    order = [provider, PARENTS.get(provider), "*"]
    for name, row in itertools.product(order, rows):
        if row["provider"] != name or row["where"] != where:
            continue
        if where == "http" and str(status) not in str(row["http"]).split("|"):
            continue
        if row["message"] == "@CTX":
            if re.search(row["code"], code, re.IGNORECASE) or message == CTX_SAMPLE:
                return row
            continue
        said = ((row["code"], code), (row["message"], message))
        if all(re.search(pattern, text, re.IGNORECASE) for pattern, text in said):
            return row
    raise LookupError((provider, where, status, code, message))


def classified(provider: str, where: str, status: int, code: str, message: str) -> Failure:
    """The same observation, as a provider sends it."""
    if where == "client":
        return classify_local(code)
    body = {"error": {"code": code, "message": message}} if code or message else None
    return classify(provider, status=status, body=body, stream=where == "stream")


@pytest.mark.parametrize("row", [row["id"] for row in rows] or ["none"])
def test_a_row_of_the_table_classifies_as_it_states(row: str):
    """Category, retry, what the breaker does, what is pinned, what goes back, and the pause."""
    mine = [each for each in observations() if each[0] == row]
    hits = 0
    for _, provider, where, status, code, message in mine:
        expected = stated(provider, where, status, code, message)
        hits += expected["id"] == row
        failure = classified(provider, where, status, code, message)
        seen = (failure, expected)
        assert failure.category == expected["category"], seen
        if (failure.retry_after or 0) < AN_HOUR:  # the table's remark: longer is a reset
            assert failure.retry == RETRIES.get(expected["retry"], expected["retry"]), seen
        assert failure.refund == expected["refund"], seen
        _same_impact(failure, expected["breaker"])
        _same_pause(failure, expected["backoff"])
    assert hits, f"no observation reaches {row}: {mine}"


def _same_impact(failure: Failure, stated_impact: str) -> None:
    if stated_impact.startswith("latch:"):
        assert failure.impact in PINS, failure
        assert failure.pin == stated_impact.partition(":")[2], failure
    else:
        assert failure.impact in IMPACTS[stated_impact], failure
        assert failure.pin is None, failure
    if failure.impact is Impact.CAPACITY:
        assert failure.category is Outcome.OVERLOADED


def _same_pause(failure: Failure, text: str) -> None:
    """Without a hint in the observation, the last resort of the row is what remains."""
    if "explong" in text:
        assert failure.backoff is Backoff.LONG, (failure, text)
    elif "none, then exp" in text:
        assert failure.backoff is Backoff.AT_ONCE, (failure, text)
    elif re.search(r"\bexp\b", text):
        assert failure.backoff is Backoff.EXPONENTIAL, (failure, text)
    elif "window" in text or "midnight" in text or "<=600" in text:
        assert failure.backoff is Backoff.WINDOW, (failure, text)
