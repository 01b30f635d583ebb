"""What channel, batch and hatch have in common: operations that begin at once, without a task."""

from limiter_service.engine.admission import Engine
from limiter_service.engine.begun import Begun, BegunAcquire, BegunSettle
from limiter_service.engine.callers import Caller
from limiter_service.engine.shape import Taken
from limiter_service.store.posted import Listener
from limiter_wire import Acquire, Granted, Settle, Settled

BEGUN = "sluicegate.begun"
"""Where a scope has what was begun before the application came to see it, if anything was."""


def reaches(caller: Caller, request: Acquire | Settle) -> bool:
    """Whether `begin` does not refuse for what the caller is bound to."""
    if isinstance(request, Acquire):
        return caller.can_reach(request.resource, request.tenant)
    return caller.can_reach_lease(request.lease)


def begin(
    engine: Engine, caller: Caller, request: Acquire | Settle, listener: Listener
) -> Begun | None:
    """Begin what *request* asks for, if it can be begun at once: then *listener* hears when
    `conclude` has something to say. Raises Refusal where the caller may not.
    """
    if isinstance(request, Acquire):
        caller.reaches(request.resource, request.tenant)
        return engine.begin(request, listener)
    caller.reaches_lease(request.lease)
    return engine.begin_settle(request, listener)


def start(engine: Engine, request: Acquire | Settle, listener: Listener) -> Begun | None:
    """The same for a caller that may."""
    if isinstance(request, Acquire):
        return engine.begin(request, listener)
    return engine.begin_settle(request, listener)


def conclude(engine: Engine, begun: Begun) -> Taken | Granted | Settled | None:
    """The answer; None where it takes longer. Raises Refusal."""
    if type(begun) is BegunSettle:  # several times as fast as isinstance, since calls are abstract
        return engine.conclude_settle(begun)
    assert isinstance(begun, BegunAcquire)
    return engine.conclude(begun)
