"""What scripts that decide over many say, read for each of them."""

import struct

import pytest

from limiter_service.store.errors import StoreProtocol
from limiter_service.store.ordinary import granted, granted_alone, settled, settled_alone, terms
from limiter_service.store.packing import pack


def _request(nonce: int) -> bytes:
    return pack([nonce, 5, 600e6, 60e6, 0, 0, 1, 3, 1, 10])


STATE = pack([77, 1, 1e15, 0, 1e15, 4, 90])


def test_policies_are_told_once_without_what_ordinary_calls_do_not_need():
    """Scopes, limits, breaker; then version, time to keep, and each capacity with its rate,
    up to as many numbers as a scope of four limits has."""
    policies = [
        pack([11, 2, 60e6, 1, 3, 0, 1, 4, 500, 0.5, 1, 8, 900, 0.25]),
        pack([12, 1, 70e6, 1, 3, 0, 1, 12, 100, 0.125]),
    ]
    breaker = pack([9e9, 0.2, 1e-6, 1e7, 5e6]) + b"the rest"
    found = terms(policies, breaker)
    assert struct.unpack(f"<{len(found) // 8}d", found) == (
        2, 3, 1, 0.2, 10, 1e7, 9e9, 5e6,
        11, 60e6, 2, 500, 0.5, 900, 0.25,
        12, 70e6, 1, 100, 0.125, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    alone = terms(policies[1:], b"")
    assert len(alone) == 19 * 8
    assert struct.unpack("<3d", alone[:24]) == (1, 1, 0)


def test_each_of_a_group_is_answered_as_if_it_had_been_alone():
    """Granted ones by a lease of what they asked, denied ones by what binds."""
    asked = [_request(nonce) for nonce in (1, 2, 3)]
    reply = asked[0][:8] + b"GD?" + pack([4]) + pack([1, 250]) + STATE
    first, second, third = granted(reply, asked)
    assert first == asked[0][:8] + b"G" + asked[0][:48] + pack([4]) + asked[0][56:] + STATE
    assert second == asked[1][:8] + b"D" + pack([1, 250]) + STATE
    assert third is None


def test_a_lease_alone_is_its_own_answer():
    """It begins with the nonce."""
    request = _request(8)
    assert granted_alone(request + STATE, request) == request[:8] + b"G" + request + STATE


def test_a_report_alone_is_answered_by_its_lease():
    """As the script says it; and left over where it says so."""
    report = pack([3, 0, 0, 1, 0, 0, 0, 5])
    assert settled_alone(report[:8] + b"g" + STATE, report) == report[:8] + b"g" + STATE
    assert settled_alone(report[:8] + b"?", report) is None
    assert settled_alone(report[:8], report) is None


@pytest.mark.parametrize(("word", "letter"), [(b"", None), (b"?", None), (b"Q", b"Q")])
def test_one_word_is_for_one(word: bytes, letter: bytes | None):
    """As for several."""
    request = _request(1)
    assert granted_alone(request[:8] + word, request) == (letter and request[:8] + letter)


@pytest.mark.parametrize(("word", "letter"), [(b"", None), (b"?", None), (b"Q", b"Q")])
def test_one_word_is_for_all(word: bytes, letter: bytes | None):
    """Nothing is ordinary, or somebody waits."""
    asked = [_request(nonce) for nonce in (1, 2)]
    expected = [letter and request[:8] + letter for request in asked]
    assert granted(asked[0][:8] + word, asked) == expected


def test_leases_of_settled_calls_are_of_one_size():
    """One behind the other, none for what is left over."""
    asked = [pack([tag, 0, 0, 1, 0, 0, 0, 5]) for tag in (1, 2, 3)]
    leases = [b"lease one", b"lease two"]
    found = settled(asked[0][:8] + b"gg?" + b"".join(leases), asked)
    assert found == [asked[0][:8] + b"glease one", asked[1][:8] + b"glease two", None]
    assert settled(asked[0][:8], asked) == [None] * 3
    with pytest.raises(StoreProtocol):
        settled(asked[0][:8] + b"GG?" + b"odd", asked)
