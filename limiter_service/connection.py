"""uvicorn's HTTP connection, with what callers that wait need of it and it lacks."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

STOPPING = "sluicegate.stopping"
"""In the state of the lifespan: what to call when the server begins to stop."""


class Protocol(HttpToolsProtocol):
    """Tells the application that the server stops.

    uvicorn itself says so when every request is answered, and one that waits is not: its
    caller would be broken off when the time for that is over.
    """

    def shutdown(self) -> None:
        """Let the application answer what it holds, then close."""
        super().shutdown()
        self.app_state[STOPPING]()
