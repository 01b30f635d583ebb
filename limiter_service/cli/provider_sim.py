"""`sluicegate provider-sim`: a provider to try things against, without keys."""

import socket
from typing import Annotated

import typer
import uvicorn

from limiter_service.provider_sim import (
    Charge,
    InvalidOptionError,
    SimOptions,
    Window,
    create_sim_app,
)

_DEFAULTS = SimOptions()


def provider_sim(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 9090,
    rpm: Annotated[int, typer.Option(help="Limit: requests per minute.")] = _DEFAULTS.rpm,
    tpm: Annotated[int, typer.Option(help="Limit: tokens per minute.")] = _DEFAULTS.tpm,
    window: Annotated[
        Window,
        typer.Option(
            help="How the limits are enforced: continuous refill (bucket), fixed minutes"
            " (minute), or fixed minutes with requests in one-second windows (second)."
        ),
    ] = _DEFAULTS.window,
    charge: Annotated[
        Charge,
        typer.Option(
            help="Tokens that a request counts: max(input, max_tokens) as at OpenAI (max),"
            " input + max_tokens as at Azure (sum), input + real output (actual)."
        ),
    ] = _DEFAULTS.charge,
    latency: Annotated[
        float, typer.Option(help="Mean seconds to the first token.")
    ] = _DEFAULTS.latency,
    tokens_per_second: Annotated[
        float, typer.Option(help="Mean pace of an answer.")
    ] = _DEFAULTS.tokens_per_second,
    speed: Annotated[
        float,
        typer.Option(help="The provider's time against real time: at 60 its minute is a second."),
    ] = _DEFAULTS.speed,
    seed: Annotated[
        int, typer.Option(help="The same seed and order of requests give the same answers.")
    ] = _DEFAULTS.seed,
    log_level: Annotated[
        str, typer.Option(help="critical, error, warning, info, debug or trace.")
    ] = "warning",
) -> None:
    """Run a server that behaves like a language-model provider.

    It speaks the OpenAI chat dialect on /v1/chat/completions, plain and
    streaming, and enforces limits of its own with the provider's headers
    and errors.

    A caller may fix the size of a request with the headers
    x-sim-input-tokens and x-sim-output-tokens. GET /sim/stats says what was
    granted and refused; POST /sim/reset starts afresh.
    """
    if log_level not in uvicorn.config.LOG_LEVELS:
        names = ", ".join(uvicorn.config.LOG_LEVELS)
        raise typer.BadParameter(f"{log_level!r} is not one of {names}", param_hint="--log-level")
    try:
        options = SimOptions(
            rpm=rpm,
            tpm=tpm,
            window=window,
            charge=charge,
            latency=latency,
            tokens_per_second=tokens_per_second,
            speed=speed,
            seed=seed,
        )
    except InvalidOptionError as error:
        flag = "--" + error.field.replace("_", "-")
        problem = f"{error.value} is not possible: it must be {error.allowed}"
        raise typer.BadParameter(problem, param_hint=flag) from error
    config = uvicorn.Config(
        create_sim_app(options),
        host=host,
        port=port,
        log_level=log_level,
        access_log=False,
        # Calls in flight are simulated as well: nobody needs to wait for them.
        timeout_graceful_shutdown=1,
    )
    _AnnouncingServer(config).run()


class _AnnouncingServer(uvicorn.Server):
    """Says on stdout where it listens, as soon as it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            name = f"[{host}]" if ":" in host else host
            typer.echo(f"listening on http://{name}:{port}")
