"""Heads that are kept in mind."""

from limiter_service.front import Bounds
from limiter_service.heads import LONGEST_KNOWN, MOST_KNOWN, Head, Heads


def heads() -> Heads:
    """Some that know nothing."""
    return Heads(Bounds(body=65536, head=16384, body_timeout=10.0))


def read(them: Heads) -> Head:
    """What a plain head says."""
    found = them.read(b"/v1/acquire", [(b"content-length", b"31")])
    assert found is not None
    return found


def test_a_head_is_known_when_it_is_met_again():
    """Also when others were met since."""
    them = heads()
    head = read(them)
    for raw in (b"a", b"b", b"c"):
        them.met(raw, head)
    assert them.known == {}
    them.met(b"b", head)
    assert them.known == {b"b": head}


def test_known_heads_are_bounded():
    """Whoever sends each of many twice pushes out the oldest."""
    them = heads()
    head = read(them)
    names = [b"%d" % n for n in range(MOST_KNOWN + 8)]
    for raw in names:
        them.met(raw, head)
        them.met(raw, head)
    assert [*them.known] == names[8:]


def test_what_was_met_once_is_forgotten_some_time():
    """Names of requests that never come again must not fill the memory."""
    them = heads()
    head = read(them)
    for n in range(20_000):
        them.met(b"%d" % n, head)
    assert len(them._met) <= 4096
    assert them.known == {}


def test_long_heads_are_not_kept():
    """They would take more memory than to read them again is worth."""
    them = heads()
    head = read(them)
    for raw in (b"a" * LONGEST_KNOWN, b"b" * (LONGEST_KNOWN + 1)):
        them.met(raw, head)
        them.met(raw, head)
    assert [len(each) for each in them.known] == [LONGEST_KNOWN]
