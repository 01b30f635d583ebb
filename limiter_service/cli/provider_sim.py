"""`sluicegate provider-sim`: a provider to try things against, without keys."""

import socket
from typing import Annotated

import typer
import uvicorn

from limiter_service.provider_sim import (
    Charge,
    InvalidOptionError,
    Rules,
    Scope,
    SimOptions,
    Window,
    create_sim_app,
)
from limiter_service.provider_sim.serving import sim_config

_DEFAULTS = SimOptions()


def provider_sim(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 9090,
    rpm: Annotated[int, typer.Option(help="Limit: requests per minute.")] = _DEFAULTS.rpm,
    tpm: Annotated[int, typer.Option(help="Limit: tokens per minute.")] = _DEFAULTS.tpm,
    itpm: Annotated[
        int | None, typer.Option(help="Limit: input tokens per minute. Default: as --tpm.")
    ] = _DEFAULTS.itpm,
    otpm: Annotated[
        int | None,
        typer.Option(help="Limit: output tokens per minute. Default: a fifth of --tpm."),
    ] = _DEFAULTS.otpm,
    rpd: Annotated[
        int | None, typer.Option(help="Limit: requests per day. Default: none.")
    ] = _DEFAULTS.rpd,
    concurrency: Annotated[
        int | None, typer.Option(help="Limit: calls at the same time. Default: none.")
    ] = _DEFAULTS.concurrency,
    acceleration: Annotated[
        float | None,
        typer.Option(
            help="How many times as many requests may come as in the time before, under any"
            " limit. Default: as many as like."
        ),
    ] = _DEFAULTS.acceleration,
    acceleration_start: Annotated[
        int, typer.Option(help="With --acceleration: requests that may come out of nothing.")
    ] = _DEFAULTS.acceleration_start,
    acceleration_seconds: Annotated[
        float, typer.Option(help="With --acceleration: the time over which they are compared.")
    ] = _DEFAULTS.acceleration_seconds,
    rules: Annotated[
        Rules,
        typer.Option(
            help="Whose accounting applies: that of the route's provider (auto), that of one"
            " provider for every route, or what --window and --charge say (plain)."
        ),
    ] = _DEFAULTS.rules,
    scope: Annotated[
        Scope,
        typer.Option(help="Who shares the limits: everybody, or callers of one model or key."),
    ] = _DEFAULTS.scope,
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
    smoothing: Annotated[
        float | None,
        typer.Option(
            help="Seconds over which requests are enforced besides the minute; 0 is none."
            " Default: the provider's own."
        ),
    ] = _DEFAULTS.smoothing,
    burndown: Annotated[
        int, typer.Option(help="Bedrock: what a token of output counts in the end.")
    ] = _DEFAULTS.burndown,
    most_output: Annotated[
        int, typer.Option(help="Bedrock: output reserved for a call that names no limit.")
    ] = _DEFAULTS.most_output,
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
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT[ @ SHARE]",
            help="A fault for a share of requests, such as 'drop-after-chunks=3..9 @ 0.01'."
            " May be given more than once.",
        ),
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="critical, error, warning, info, debug or trace.")
    ] = "warning",
) -> None:
    """Run a server that behaves like a language-model provider.

    It speaks the dialects of OpenAI (chat, responses), Azure, Anthropic,
    Gemini, Cohere, Mistral, Bedrock and Ollama, plain and streaming, and
    enforces limits as each of them does, with its headers and errors. Give
    clients its URL with the provider's name as path: /openai/v1, /azure,
    /anthropic, /gemini, /cohere, /mistral, /bedrock, /ollama.

    A caller may fix the size of a request with the headers
    x-sim-input-tokens and x-sim-output-tokens, and ask for a fault with
    x-sim-fault. GET /sim/stats and /sim/counters say what was granted and
    refused; POST /sim/faults switches outages; POST /sim/reset starts afresh.
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
            itpm=itpm,
            otpm=otpm,
            rpd=rpd,
            concurrency=concurrency,
            acceleration=acceleration,
            acceleration_start=acceleration_start,
            acceleration_seconds=acceleration_seconds,
            rules=rules,
            scope=scope,
            smoothing=smoothing,
            burndown=burndown,
            most_output=most_output,
            fault=tuple(fault or ()),
            latency=latency,
            tokens_per_second=tokens_per_second,
            speed=speed,
            seed=seed,
        )
    except InvalidOptionError as error:
        flag = "--" + error.field.replace("_", "-")
        problem = f"{error.value} is not possible: it must be {error.allowed}"
        raise typer.BadParameter(problem, param_hint=flag) from error
    app = create_sim_app(options)
    config = sim_config(app, host=host, port=port, log_level=log_level)
    _AnnouncingServer(config).run()


class _AnnouncingServer(uvicorn.Server):
    """Says on stdout where it listens, as soon as it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port, *_ = self.servers[0].sockets[0].getsockname()
            name = f"[{host}]" if ":" in host else host
            typer.echo(f"listening on http://{name}:{port}")
