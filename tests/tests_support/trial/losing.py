"""A way on which answers are late; and on one to a store the answers to scripts are lost, one by
one: the script has run, and nobody hears of it.
"""

import asyncio
import contextlib
from random import Random

from tests_support.balancer import Balancer, Target
from tests_support.trial.moments import late

_SCRIPT = b"$7\r\nEVALSHA\r\n"


class Losing(Balancer):
    """Loses answers at a `rate`, and the connection with each; `lost` counts scripts whose answer
    was lost. What is answered comes up to `late` seconds late.
    """

    def __init__(self, targets: list[Target], luck: Random) -> None:
        super().__init__(targets)
        self.rate, self.late, self.lost = 0.0, 0.0, 0
        self._luck = luck
        self._asked: dict[asyncio.StreamReader, int] = {}

    async def _next_target(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await super()._next_target()
        self._asked[reader] = 0
        writer.answers = reader  # type: ignore[attr-defined]  # whose scripts the answers are for
        return reader, writer

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, may: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                await may.wait()
                if may is self._asking:
                    self._count(sink.answers, data)  # type: ignore[attr-defined]
                elif self._loses(source):
                    break
                elif self.late:
                    await late(self._luck, self.late)
                sink.write(data)
                await sink.drain()
        if may is not self._asking:
            self._asked.pop(source, None)

    def _count(self, answers: asyncio.StreamReader, data: bytes) -> None:
        if answers in self._asked:  # otherwise its answers have ended already
            self._asked[answers] += data.count(_SCRIPT)

    def _loses(self, answers: asyncio.StreamReader) -> bool:
        asked, self._asked[answers] = self._asked.get(answers, 0), 0
        if not asked or self._luck.random() >= self.rate:
            return False
        self.lost += asked
        return True
