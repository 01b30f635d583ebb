"""What can go wrong between the service and its store.

StoreError
  StoreUnavailable   no answer in time; trying again may work
  StoreProtocol      an answer that makes no sense: a bug, or somebody else's data
"""


class StoreError(Exception):
    """The store did not do what it was asked."""


class StoreUnavailable(StoreError):  # a state, not a mistake
    """The store gave no answer within the deadline; nothing is known about the call."""


class StoreProtocol(StoreError):  # names what broke
    """The store's answer belongs to another call or cannot be read."""
