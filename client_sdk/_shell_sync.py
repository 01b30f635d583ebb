"""What threads need in place of `_shell_async`: nothing is shielded."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from client_sdk import _answers, _codec
from client_sdk._channel_sync import Channel
from client_sdk._codec import Op
from client_sdk._dial import address
from client_sdk._roster import NoChannel
from client_sdk._transport import SyncTransport
from client_sdk.errors import ServiceUnavailable, SluicegateError
from client_sdk.options import LimiterOptions

T = TypeVar("T")


class Exchange:
    """Sends operations over the channel, or each in a request of its own where there is none.
    Threads may share it.
    """

    def __init__(
        self, url: str, api_key: str | None, options: LimiterOptions, http_transport: Any
    ) -> None:
        self._transport = SyncTransport(url, api_key, options, http_transport)
        self._channel: Channel | None = None
        if options.channel != "off" and http_transport is None:
            self._channel = Channel(address(url, api_key, options), options)
        self._only = options.channel == "only"

    def send(self, op: Op) -> Any:
        """The answer to *op*. Raises the exception for what the service refused."""
        if self._channel is not None:
            try:
                return self._channel.send(op)
            except NoChannel as error:
                if self._only:
                    unavailable = ServiceUnavailable(str(error), phase=op.operation)
                    raise error.refusal or unavailable from error
        return self._post(op)

    begin = send

    def instead(self, op: Op, stopped: BaseException) -> Any:  # noqa: ARG002  # as of the other
        """Nothing is ever stopped."""
        raise stopped

    def landed(self) -> None:
        """Nothing is under way that a thread has not waited for."""

    def tell(self, recalled: Callable[[str], None]) -> None:
        """Let *recalled* hear of resources whose blocks are to be given back."""
        if self._channel is not None:
            self._channel.tell(recalled)

    def look(self, path: str) -> tuple[int, bytes]:
        """Status and body of a route for reading, over HTTP whatever the channel."""
        return self._transport.get(path)

    def _post(self, op: Op) -> Any:
        if op.waits:  # a batch is answered at once, and does not hold one of few connections
            posted = self._transport.post("/v1/batch", _codec.batch([op]))
            (result,) = _answers.answers([op], *posted)
        else:
            posted = self._transport.post(op.path, op.body, op.headers)
            result = _answers.answer(op, *posted)
        if isinstance(result, SluicegateError):
            raise result
        return result

    def close(self) -> None:
        """Wait for answers under way, then close the connections."""
        if self._channel is not None:
            self._channel.close()
        self._transport.close()


def acquisition(lease: T) -> T:
    """A lease is there at once; enter it, or settle it by hand."""
    return lease


def shielded(done: T) -> T:
    """Nothing can cancel a thread in the middle."""
    return done


class Aside:
    """Work beside a stream that must not hold it up."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def do(self, work: Callable[[], Any]) -> None:
        """Begin *work*, which raises nothing."""
        thread = threading.Thread(target=work, name="sluicegate-aside", daemon=True)
        thread.start()
        self._threads.append(thread)

    def finished(self) -> None:
        """Wait for what was begun."""
        for thread in self._threads:
            thread.join()


def opened(source: Any) -> Any:
    """*source*, or what it returns when it is a function."""
    return source() if callable(source) else source


class Cancelled(BaseException):
    """Nothing can call off a thread in the middle: this is never raised."""


Stopped = (Cancelled,)
"""Why an answer does not come the way that it was asked for."""


def is_called_off(cancelled: Cancelled) -> bool:  # noqa: ARG001  # as of the other shell
    """So nothing is left to undo."""
    return True


sleep = time.sleep
