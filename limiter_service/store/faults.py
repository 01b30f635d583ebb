"""What the errors of a store mean for a script call: did it run, and is it asked again?

| | ran | then |
|---|---|---|
| NOSCRIPT | no | EVAL at once (store/lanes) |
| MOVED, ASK | no | to the node that it names (store/links) |
| TRYAGAIN, LOADING, BUSY, MASTERDOWN | no | again until the deadline |
| READONLY, CLUSTERDOWN | no | again, where the primary is now: that may be another server |
| refused connection, lost connection, no answer | unknown | again a few times, by its request id |
| OOM, NOREPLICAS, MISCONF, NOAUTH, WRONGPASS, NOPERM and any other | no | given up at once |
"""

from enum import Enum, auto

from redis import exceptions

FAILURES = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""What the client library raises. A cluster's own errors are no RedisError."""


class Advice(Enum):
    """What to do with a call that failed."""

    WAIT = auto()
    """It has not run, and will when something that is under way is over."""
    ELSEWHERE = auto()
    """It has not run, and perhaps never will at that server."""
    UNKNOWN = auto()
    """It may have run. Every script of ours may be sent twice."""
    GIVE_UP = auto()
    """The server is there and will not: asking again at once changes nothing."""


_BY_CODE = {
    "BUSY": Advice.WAIT,
    "LOADING": Advice.WAIT,
    "TRYAGAIN": Advice.WAIT,
    "CLUSTERDOWN": Advice.ELSEWHERE,  # a master that others have cut off does not know its heir
    "MASTERDOWN": Advice.WAIT,
    "READONLY": Advice.ELSEWHERE,
}
_UNKNOWN = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.RedisClusterException,  # no node can be connected
    OSError,
)
_ONE_SERVER = "it is a node of a cluster: give its URL as redis+cluster://"


def advice(error: BaseException) -> Advice:
    """What a failed call calls for."""
    known = _BY_CODE.get(_code(error))
    if known is not None:
        return known
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return Advice.GIVE_UP
    if isinstance(error, exceptions.SlotNotCoveredError):
        return Advice.ELSEWHERE  # who owns the slot is not known now
    return Advice.UNKNOWN if isinstance(error, _UNKNOWN) else Advice.GIVE_UP


def reason(error: BaseException) -> str:
    """One line for people."""
    text = " ".join(str(error).split()) or type(error).__name__
    code = getattr(error, "status_code", None)
    if code in {"MOVED", "ASK"}:
        return _ONE_SERVER
    known = code and code != "ERR" and not text.startswith(code)
    return f"{code} {text}" if known else text


def of_one_slot(error: BaseException) -> bool:
    """Whether the failure says nothing of the server: only this slot is on its way."""
    return isinstance(error, exceptions.TryAgainError)


def _code(error: BaseException) -> str:
    """The word in front of a server's error. The library cuts off those it knows; before
    Redis 7 an error inside a script has it in the middle.
    """
    code = getattr(error, "status_code", None)
    if code and code != "ERR":
        return str(code)
    if not isinstance(error, exceptions.ResponseError):
        return ""
    text = str(error)
    if text.startswith("Error running script"):
        text = text.rpartition(" -")[2]
    return text.partition(" ")[0]


def is_unknown_script(reply: object) -> bool:
    """Whether the server does not have the script that it was asked for."""
    return isinstance(reply, exceptions.NoScriptError)


def knows_no_flags(reply: object) -> bool:
    """Whether the server is older than the first line of our scripts (Redis 6.2)."""
    return isinstance(reply, exceptions.ResponseError) and "near '#'" in str(reply)
