"""How a provider call ended, judged by the exception that left the `with` block. Pure."""

from limiter_wire import Outcome

_BY_STATUS = {
    400: Outcome.INVALID_REQUEST,
    401: Outcome.AUTH,
    402: Outcome.QUOTA_EXHAUSTED,
    403: Outcome.PERMISSION,
    404: Outcome.NOT_FOUND,
    408: Outcome.TIMEOUT,
    413: Outcome.INVALID_REQUEST,
    422: Outcome.INVALID_REQUEST,
    429: Outcome.RATE_LIMITED,
    503: Outcome.OVERLOADED,
    529: Outcome.OVERLOADED,
}
_SERVER_ERROR = 500


def outcome_of(error: BaseException | None) -> Outcome:
    """The outcome to report for *error*.

    What is not known to come from the provider is `cancelled`: neutral, and without usage
    the reservation stays spent, since the provider may have served the call.
    """
    if error is None:
        return Outcome.SUCCESS
    status = _status(error)
    if status is not None:
        known = _BY_STATUS.get(status)
        if known is not None:
            return known
        return Outcome.SERVER_ERROR if status >= _SERVER_ERROR else Outcome.INVALID_REQUEST
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, TimeoutError) or names & {"TimeoutException", "APITimeoutError"}:
        return Outcome.TIMEOUT
    if isinstance(error, ConnectionError) or names & {"TransportError", "APIConnectionError"}:
        return Outcome.CONNECTION
    return Outcome.CANCELLED


def _status(error: BaseException) -> int | None:
    """The HTTP status that provider SDKs and HTTP clients hang on their exceptions."""
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        if isinstance(status, int):
            return status
    return None
