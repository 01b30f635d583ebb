"""Scripts with faults in them: pure, and in the order in which the faults are named."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from msgspec.structs import replace

from limiter_service.provider_sim.dialects.base import Dialect, Place
from limiter_service.provider_sim.faults.notation import Effect, Fault
from limiter_service.provider_sim.faults.script import Drop, Pause, Script, Send, Step
from limiter_service.provider_sim.problems import Kind, Problem

_PAGE = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body>502</body></html>\n"
_PING_EVERY = 0.05
_GZIP = 31  # zlib's number for a gzip header around a window of 2^15

Again = Callable[[], Iterator[Step]]


def damaged(
    script: Script, faults: Iterable[Fault], *, dialect: Dialect, problem: Problem, again: Again
) -> Script:
    """The script with all of `faults`.

    `problem` describes errors for the request, whatever their kind; `again` gives the steps
    of another answer to it, as a gateway sends that tries twice.
    """
    for fault in faults:
        script = _damage(script, fault, dialect, problem, again)
    return script


def _damage(
    script: Script, fault: Fault, dialect: Dialect, problem: Problem, again: Again
) -> Script:
    match fault.effect:
        case Effect.DROP_BEFORE_HEADERS:
            return replace(script, before=(*script.before, Drop(fault.reset)))
        case Effect.STALL_BEFORE_HEADERS:
            return replace(script, before=(*script.before, Pause(fault.seconds)))
        case Effect.STALL_BEFORE_TOKEN | Effect.SLOW_FIRST_TOKEN:
            return replace(script, steps=_paused(script.steps, fault.seconds))
        case Effect.STALL_AFTER_CHUNKS:
            return replace(script, steps=_then(script.steps, fault, [Pause(fault.seconds)]))
        case Effect.DROP_AFTER_BYTES:
            return replace(script, steps=_cut(script.steps, fault))
        case Effect.DROP_AFTER_CHUNKS:
            stop: list[Step] = [Drop(fault.reset)]
            return replace(script, steps=_then(script.steps, fault, stop))
        case _:
            pass
    # What follows changes the size of the body.
    script = replace(script, head=replace(script.head, length=None))
    wait = fault.retry_after
    if wait is None and fault.kind is Kind.RATE_LIMIT:
        wait = problem.retry_after
    kind = replace(problem, kind=fault.kind, retry_after=wait)
    match fault.effect:
        case Effect.CONTENT_TYPE:
            return replace(script, head=replace(script.head, media_type=fault.text))
        case Effect.GZIP:
            headers = {**script.head.headers, "content-encoding": "gzip"}
            head = replace(script.head, headers=headers)
            return replace(script, head=head, steps=_zipped(script.steps))
        case Effect.HTML:
            head = replace(script.head, media_type="text/html; charset=utf-8")
            return replace(script, head=head, steps=iter([Send(_PAGE, 0.0)]))
        case Effect.ERROR_BODY:
            answer = dialect.error(kind)
            head = replace(script.head, media_type=answer.media_type)
            return replace(script, head=head, steps=iter([Send(answer.body, 0.0)]))
        case _:
            return replace(script, steps=_steps(script.steps, fault, dialect, kind, again))


def _steps(
    steps: Iterator[Step], fault: Fault, dialect: Dialect, kind: Problem, again: Again
) -> Iterator[Step]:
    match fault.effect:
        case Effect.TRICKLE:
            return _trickled(steps, fault)
        case Effect.PING_ONLY:
            return chain(_places(steps, {Place.OPENING}), _pings(fault, dialect))
        case Effect.PINGS:
            ping = Send(dialect.keepalive() * fault.number, 0.0, Place.OPENING)
            return _before_each(steps, ping)
        case Effect.GARBAGE_AFTER_CHUNKS:
            return _then(steps, fault, [Send(dialect.broken(), 0.0)])
        case Effect.ERROR_AFTER_CHUNKS:
            return _then(steps, fault, [Send(dialect.stream_error(kind), 0.0)], end=True)
        case Effect.TRUNCATE:
            return _places(steps, {Place.OPENING, Place.CONTENT})
        case Effect.TRUNCATE_AFTER_CHUNKS:
            return _then(steps, fault, [], end=True)
        case Effect.NO_TERMINATOR:
            return _places(steps, {Place.OPENING, Place.CONTENT, Place.CLOSING})
        case Effect.HOLD_OPEN:
            return chain(steps, [Pause(fault.seconds)])
        case Effect.DUPLICATE_START:
            return chain(_places(again(), {Place.OPENING}), steps)
        case Effect.SPLICE_AFTER_CHUNKS:
            return chain(_then(steps, fault, [], end=True), again())
        case _:  # errors are no damage to an answer: there is none
            return steps


def _then(
    steps: Iterator[Step], fault: Fault, inserted: list[Step], *, end: bool = False
) -> Iterator[Step]:
    """`inserted` after so many chunks of output, or at their end; perhaps nothing after it."""
    left = fault.number
    due = False
    for step in steps:
        last = isinstance(step, Send) and step.place in {Place.CLOSING, Place.END}
        content = isinstance(step, Send) and step.is_chunk
        if not due and ((content and left == 0) or last):
            due = True
            yield from _at(inserted, step)
            if end:
                return
        yield step
        left -= content
    if not due:
        yield from inserted


def _at(inserted: list[Step], step: Step) -> Iterator[Step]:
    """The inserted steps at the time of the one that they come before."""
    for new in inserted:
        timed = isinstance(new, Send) and isinstance(step, Send)
        yield replace(new, at=step.at) if timed and isinstance(step, Send) else new


def _cut(steps: Iterator[Step], fault: Fault) -> Iterator[Step]:
    left = fault.number
    for step in steps:
        if isinstance(step, Send):
            if len(step.data) >= left:
                yield replace(step, data=step.data[:left])
                break
            left -= len(step.data)
        yield step
    yield Drop(fault.reset)


def _paused(steps: Iterator[Step], seconds: float | None) -> Iterator[Step]:
    """A pause before the first output, shown or not."""
    waiting = True
    for step in steps:
        if waiting and isinstance(step, Send) and step.tokens:
            waiting = False
            yield Pause(seconds)
        yield step


def _places(steps: Iterator[Step], places: set[Place]) -> Iterator[Step]:
    return (step for step in steps if not isinstance(step, Send) or step.place in places)


def _before_each(steps: Iterator[Step], ping: Send) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Send) and step.is_chunk:
            yield replace(ping, at=step.at)
        yield step


def _pings(fault: Fault, dialect: Dialect) -> Iterator[Step]:
    left = fault.count
    every = _PING_EVERY if fault.seconds is None else fault.seconds
    while left is None or left > 0:
        yield Send(dialect.keepalive(), 0.0, Place.OPENING)
        yield Pause(every)
        left = None if left is None else left - 1


def _trickled(steps: Iterator[Step], fault: Fault) -> Iterator[Step]:
    """Pieces of so many bytes, a while apart, whatever the frames are."""
    size, pause = fault.number, Pause(_PING_EVERY if fault.seconds is None else fault.seconds)
    for step in steps:
        if not isinstance(step, Send) or not step.data:
            yield step
            continue
        for at in range(0, len(step.data), size):
            last = at + size >= len(step.data)
            data = step.data[at : at + size]
            yield replace(step, data=data, tokens=step.tokens if last else 0)
            yield pause


def _zipped(steps: Iterator[Step]) -> Iterator[Step]:
    packer = zlib.compressobj(wbits=_GZIP)
    at = 0.0
    for step in steps:
        if isinstance(step, Send):
            at = step.at
            if step.data:
                packed = packer.compress(step.data) + packer.flush(zlib.Z_SYNC_FLUSH)
                yield replace(step, data=packed)
                continue
        yield step
    yield Send(packer.flush(zlib.Z_FINISH), at, Place.END)
