"""The fuse in front of a dead store."""

from limiter_service.store.fuse import FAILURES_IN_A_ROW, PAUSE, Fuse


def blown(now: float) -> Fuse:
    fuse = Fuse()
    for _ in range(FAILURES_IN_A_ROW):
        assert fuse.admits(now)
        fuse.failed(now, "gone")
    return fuse


def test_failures_in_a_row_blow_it() -> None:
    """One success between them, and it counts anew."""
    fuse = Fuse()
    for _ in range(FAILURES_IN_A_ROW - 1):
        fuse.failed(0.0, "gone")
    fuse.succeeded()
    for _ in range(FAILURES_IN_A_ROW - 1):
        fuse.failed(0.0, "gone")
    assert fuse.admits(0.0)
    fuse.failed(0.0, "gone")
    assert fuse.blown
    assert not fuse.admits(0.0)


def test_a_blown_fuse_lets_one_call_through_now_and_then() -> None:
    """Whatever becomes of that call: one that hangs does not keep the next from going."""
    fuse = blown(10.0)
    times = [10.0 + i / 100 for i in range(200)]
    admitted = [now for now in times if fuse.admits(now)]
    assert len(admitted) == 3
    assert all(b - a >= PAUSE - 1e-9 for a, b in zip([10.0, *admitted], admitted, strict=False))


def test_an_answer_mends_it() -> None:
    """At once, for everybody."""
    fuse = blown(10.0)
    assert fuse.admits(10.0 + PAUSE)
    fuse.succeeded()
    assert not fuse.blown
    assert all(fuse.admits(10.0 + PAUSE) for _ in range(10))
