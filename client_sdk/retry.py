"""What to send again, and when. Pure."""

from client_sdk.errors import ServiceUnavailable


def again(error: Exception) -> bool | float:
    """The hook given to stamina: whether to retry *error*, or the wait that the service asked for.

    Only failures of the network and of the store are repeated: with the same request id
    they charge once. A refusal is an answer.
    """
    if not isinstance(error, ServiceUnavailable):
        return False
    return True if error.retry_after is None else min(error.retry_after, 1.0)
