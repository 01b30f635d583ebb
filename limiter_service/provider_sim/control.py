"""The routes below /sim: what was counted, what goes wrong, and a fresh start."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from limiter_service.provider_sim.faults.notation import FaultError
from limiter_service.provider_sim.faults.outages import Outage
from limiter_service.provider_sim.server import Server

_JSON = "application/json"

_encode = msgspec.json.Encoder().encode


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /sim/faults: the outages from now on."""

    outages: list[Outage]


_decoder = msgspec.json.Decoder(Switch)


def routes(server: Server) -> list[Route]:
    """The control API of a server."""
    control = _Control(server)
    return [
        Route("/sim/stats", control.stats, methods=["GET"]),
        Route("/sim/counters", control.counters, methods=["GET"]),
        Route("/sim/faults", control.faults, methods=["GET"]),
        Route("/sim/faults", control.switch, methods=["POST"]),
        Route("/sim/faults", control.clear, methods=["DELETE"]),
        Route("/sim/reset", control.reset, methods=["POST"]),
    ]


class _Control:
    def __init__(self, server: Server) -> None:
        self._server = server

    async def stats(self, _: Request) -> Response:
        return _answer(self._server.provider.stats(self._server.now()))

    async def counters(self, _: Request) -> Response:
        elapsed = self._server.clock() - self._server.began
        return _answer(self._server.ledger.view(elapsed))

    async def faults(self, _: Request) -> Response:
        return _answer({"outages": self._server.outages.view(self._server.clock())})

    async def switch(self, http: Request) -> Response:
        try:
            switch = _decoder.decode(await http.body())
        except (msgspec.MsgspecError, FaultError, UnicodeDecodeError, RecursionError) as error:
            return Response(_encode({"error": str(error)}), 400, media_type=_JSON)
        self._server.outages.switch(switch.outages, self._server.clock())
        return await self.faults(http)

    async def clear(self, _: Request) -> Response:
        self._server.outages.switch([], self._server.clock())
        return Response(status_code=204)

    async def reset(self, _: Request) -> Response:
        self._server.restart()
        return Response(status_code=204)


def _answer(body: object) -> Response:
    return Response(_encode(body), media_type=_JSON)
