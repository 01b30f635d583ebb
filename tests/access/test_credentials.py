"""The text of a key, and what is kept of it."""

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from limiter_service.engine import credentials
from limiter_service.engine.credentials import Credential


def test_a_drawn_key_is_read_again_and_names_no_secret():
    """Its id is the middle; what is printed of it in errors and logs has no secret."""
    drawn = credentials.draw()
    assert credentials.read(drawn.text) == drawn
    assert re.fullmatch(r"sg_[0-9a-f]{12}_[A-Za-z0-9]{43}", drawn.text)
    assert drawn.secret not in repr(drawn)
    assert len({credentials.draw().text for _ in range(100)}) == 100


@given(st.text() | st.text(string.ascii_letters + string.digits + "_sg", max_size=80))
def test_whatever_else_is_no_key(text: str):
    """Reading never fails, and what is read is the text."""
    found = credentials.read(text)
    assert found is None or found.text == text


@given(st.text(string.ascii_letters, min_size=32, max_size=50), st.data())
def test_only_the_secret_fits_its_proof(secret: str, data: st.DataObject):
    """One letter less, more, or changed is another secret."""
    proof = credentials.prove(secret)
    at = data.draw(st.integers(0, len(secret) - 1))
    other = secret[:at] + data.draw(st.sampled_from(string.digits)) + secret[at + 1 :]
    assert proof.fits(secret)
    assert not any(map(proof.fits, (other, secret[:-1], secret + "a", "")))


def test_proofs_of_one_secret_differ():
    """The salt keeps one store's digests from saying anything about another's."""
    secret = credentials.draw().secret
    first, second = credentials.prove(secret), credentials.prove(secret)
    assert first.digest != second.digest
    assert len(first.digest) == 32
    assert first.salt != second.salt


def test_a_credential_is_compared_by_value():
    """Equal texts are the same credential."""
    assert Credential("a", "b") == Credential("a", "b")
