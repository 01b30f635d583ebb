"""What threads need in place of `_shell_async`: nothing is coalesced, nothing is shielded."""

import time
from typing import Any, TypeVar

from client_sdk import _codec
from client_sdk._codec import Op
from client_sdk._transport import SyncTransport
from client_sdk.errors import SluicegateError

T = TypeVar("T")


class Exchange:
    """Sends operations, each in a request of its own. Threads may share it."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def send(self, op: Op) -> Any:
        """The answer to *op*. Raises the exception for what the service refused."""
        if op.waits:  # in a batch it is not held: threads share few connections
            (result,) = _codec.answers([op], *self._transport.post("/v1/batch", _codec.batch([op])))
        else:
            result = _codec.answer(op, *self._transport.post(op.path, op.body))
        if isinstance(result, SluicegateError):
            raise result
        return result

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def acquisition(lease: T) -> T:
    """A lease is there at once; enter it, or settle it by hand."""
    return lease


def shielded(done: T) -> T:
    """Nothing can cancel a thread in the middle."""
    return done


def abandonable(done: T, _abandon: object) -> T:
    """Nothing can cancel a thread in the middle."""
    return done


sleep = time.sleep
