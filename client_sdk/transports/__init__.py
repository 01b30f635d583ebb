"""What a transport under a limiter knows of requests, answers and refusals. No I/O.

The transport itself is `limiter.transport`.
"""

from client_sdk.transports.refusals import refusal_of

__all__ = ["refusal_of"]
