"""Logs: one line per event, JSON for machines, plain text on a terminal."""

import logging
import sys
from contextvars import ContextVar

import structlog

from limiter_service.secrecy import without_secrets

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request, or of the connection, that the running task serves."""


def configure(level: str, form: str, *, traced: bool = False) -> None:
    """Send every log line to stderr, at *level* and above, as *form* says: with the id of its
    request, and where *traced* with that of its trace.
    """
    plain = form == "console" or (form == "auto" and sys.stderr.isatty())
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if plain else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_request,
        *([_with_trace] if traced else []),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    told: list[structlog.typing.Processor] = [without_secrets, last]
    tail = told if plain else [structlog.processors.format_exc_info, *told]
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line in one piece
    )
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        foreign_pre_chain=shared,
    )
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=max(_LEVELS[level], 30), force=True)


def _with_request(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    identity = REQUEST_ID.get()
    if identity is not None:
        event.setdefault("request_id", identity)
    return event


def _with_trace(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    from opentelemetry import trace  # noqa: PLC0415  # only where spans are asked for

    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def set_level(level: str) -> None:
    """Log from *level* on, from now on."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]))
    logging.getLogger().setLevel(max(_LEVELS[level], 30))
