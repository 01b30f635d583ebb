"""Joining the halves of an answer: pure."""

from hypothesis import given
from hypothesis import strategies as st

from client_sdk.llm.recovering import Seam, together
from limiter_wire import Provenance, Usage

PIECES = st.lists(st.text(alphabet="ab \n", max_size=5), max_size=8)


@given(st.text(alphabet="ab \n", max_size=12), PIECES)
def test_white_space_at_the_seam_comes_once(before: str, after: list[str]):
    """Whether the provider says again what was taken off, or goes on behind it."""
    owed = before[len(before.rstrip()) :]
    rest = "".join(after).lstrip()
    seam = Seam(before)
    said_again = before + "".join(seam.joined(piece) for piece in _cut(owed + rest))
    assert said_again == before + rest
    seam = Seam(before)
    gone_on = before + "".join(seam.joined(piece) for piece in _cut(rest))
    assert gone_on == before + rest


def _cut(text: str) -> list[str]:
    return [text[at : at + 2] for at in range(0, len(text), 2)]


def test_tokens_of_two_requests_add_up():
    """With the worse provenance; what is unknown makes the sum unknown."""
    partial = Usage(input_tokens=5, output_tokens=2, provenance=Provenance.PARTIAL)
    final = Usage(input_tokens=7, output_tokens=3)
    both = together(partial, final)
    assert (both.input_tokens, both.output_tokens) == (12, 5)
    assert both.provenance is Provenance.PARTIAL
    unknown = Usage(provenance=Provenance.UNKNOWN)
    assert together(unknown, final) == unknown
