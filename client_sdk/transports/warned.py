"""Says a thing once, and remembers for a while what is not to be asked again."""

import logging
import time

_log = logging.getLogger("sluicegate")

ASK_AGAIN = 60.0
"""Seconds after which a resource that the service did not know is asked for again."""

_MOST = 1000


class Unlimited:
    """Resources whose calls pass without a limit, each with one warning."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._said: set[str] = set()

    def __contains__(self, resource: str) -> bool:
        return time.monotonic() < self._until.get(resource, 0.0)

    def add(self, resource: str, reason: str) -> None:
        """Let calls of *resource* pass for a while."""
        if len(self._until) >= _MOST:
            self._until.clear()
        self._until[resource] = time.monotonic() + ASK_AGAIN
        self.say(resource, reason)

    def say(self, subject: str, reason: str) -> None:
        """Warn, unless the same was said."""
        if subject not in self._said and len(self._said) < _MOST:
            self._said.add(subject)
            _log.warning("calls of %s pass without a limit: %s", subject, reason)
