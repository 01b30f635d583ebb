"""What limiters report, for a test to look at."""

from client_sdk import Limiter, SyncLimiter
from limiter_wire import Settle, Settled


class Reporting(Limiter):
    """A limiter that keeps what it has settled with."""

    reports: list[Settle]

    async def settle(self, report: Settle) -> Settled:
        self.reports = [*getattr(self, "reports", ()), report]
        return await super().settle(report)


class SyncReporting(SyncLimiter):
    """The same for threads."""

    reports: list[Settle]

    def settle(self, report: Settle) -> Settled:
        self.reports = [*getattr(self, "reports", ()), report]
        return super().settle(report)
