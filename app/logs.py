"""How the lines look that any part of the process logs, the server and the libraries included."""

import logging
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import structlog

_RENDERERS: Mapping[str, Callable[[], Any]] = {
    "logfmt": lambda: structlog.processors.LogfmtRenderer(
        key_order=["time", "level", "event", "request_id"], drop_missing=True
    ),
    "json": structlog.processors.JSONRenderer,
    "console": structlog.dev.ConsoleRenderer,
}


def logging_config(log_format: str, log_level: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`, here or in a process that is yet to start: lines on stderr.

    `log_format` is logfmt, json or console; `log_level` the lowest level that is written.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "app.logs.formatter", "log_format": log_format}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": log_level},
        # The service writes its own line for each request.
        "loggers": {"uvicorn.access": {"handlers": [], "propagate": False}, "httpx": {"level": "WARNING"}},
    }


def formatter(log_format: str) -> logging.Formatter:
    """Makes each record one line, with the fields that were given to it as `extra`."""
    exceptions = [] if log_format == "console" else [structlog.processors.format_exc_info]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.ExtraAdder(),
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _drop_second_message,
            *exceptions,
            _RENDERERS[log_format](),
        ],
    )


def _drop_second_message(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("color_message", None)  # uvicorn's, for its own formatter
    return event
