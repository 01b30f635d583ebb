"""What can go wrong between the service and its store.

StoreError
  StoreUnavailable   no answer in time; trying again may work
  StoreNotReplicated no replica of the store has the change yet; the same call may see that it has
  StoreProtocol      an answer that makes no sense: a bug, or somebody else's data
"""

from typing import Any


class StoreError(Exception):
    """The store did not do what it was asked."""


class StoreUnavailable(StoreError):  # a state, not a mistake
    """The store gave no answer within the deadline; nothing is known about the call."""


class StoreNotReplicated(StoreError):  # a state
    """The store has done it, and no replica of the store has said that it has it too."""

    def __init__(self, reply: Any) -> None:
        super().__init__("no replica of the store has acknowledged it")
        self.reply = reply


class StoreProtocol(StoreError):  # names what broke
    """The store's answer belongs to another call or cannot be read."""
