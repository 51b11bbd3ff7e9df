"""Logging configuration: one line per record for the whole process, including the server and libraries.

Log lines contain text from outside, such as paths and messages from Redis. Such text cannot start a new line or send
control characters to a terminal. Everything that looks like a token is removed from it.
"""

import functools
import logging
import math
import os
import re
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from json.encoder import encode_basestring_ascii
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote

import structlog

from app.tracing import tracing_of_process

# The fields that Google Cloud Logging and Datadog read, by ours. Datadog would take `status` for the severity.
_CLOUD_NAMES: Final = {"time": "timestamp", "level": "severity", "event": "message", "status": "http.status_code"}
_GOOGLE_NAMES: Final = {"trace_id": "logging.googleapis.com/trace", "span_id": "logging.googleapis.com/spanId"}
# Attributes of every record, uvicorn's, which repeats the message, and our own fields. All others come from `extra`.
_NOT_WRITTEN = frozenset({*logging.makeLogRecord({}).__dict__, "color_message", "time", "level"})
# A JWT starts with a JSON object in base64url: `eyJ` is `{"`. With white space after the brace, it starts with `eyA`,
# `ewo`, `ew0` or `ewk`. Words such as "framework" contain these too, so a minimum length must follow. The pattern
# consumes all characters that can belong to a token. It thus reads each character once: its cost is linear.
_TOKEN = re.compile(r"(?:eyJ|e(?:y[AIKL]|w[0ko])[\w-]{15})[\w.=%-]*", re.ASCII)
_TOKEN_CHARACTERS = re.compile(r"[\w.=%-]*", re.ASCII)
# A percent sign that was percent-encoded one or more times.
_ENCODED_PERCENT = re.compile("%(?:25)+")
_MAX_DECODINGS = 3

# In bytes of the written line, where an escaped character takes up to twelve bytes.
MAX_FIELD_BYTES: Final = 8 * 1024
MAX_TRACEBACK_BYTES: Final = 64 * 1024
_WIDEST_ESCAPE: Final = 12
_MAX_UNCHECKED: Final = MAX_FIELD_BYTES // _WIDEST_ESCAPE
_CUT_MARK: Final = "[... {} characters left out ...]"
_LOGFMT_RENDERER: Final = structlog.processors.LogfmtRenderer(bool_as_flag=False)

_Event = MutableMapping[str, Any]
_Processor = Callable[[Any, str, _Event], Any]

# Changes of settings. They are logged at every LOG_LEVEL.
AUDIT_LOGGER: Final = "app.audit"

_log = logging.getLogger(__name__)


def logging_config(log_format: str, log_level: str) -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig`: one line per record on stderr.

    It can be passed to another process. `log_format` is logfmt, json, cloud or console. `log_level` is the lowest level
    that is written, except for the audit log, which is always written. Libraries never log at DEBUG, because they would
    write headers and bodies.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "app.logs.formatter", "log_format": log_format}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO" if log_level == "DEBUG" else log_level},
        "loggers": {
            "app": {"level": log_level},
            AUDIT_LOGGER: {"level": "INFO"},
            # `app` logs each request itself.
            "uvicorn.access": {"handlers": [], "propagate": False},
            "httpx": {"level": "WARNING" if log_level in {"DEBUG", "INFO"} else log_level},
        },
    }


def install_log_hooks() -> None:
    """Route warnings and uncaught exceptions of this process through `logging`."""
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def startup_error(text: str, log_format: str | None) -> str:
    """Return `text`, the reason why the process does not start, as a log line if `log_format` is one of JSON."""
    if log_format not in {"json", "cloud"}:
        return text
    return formatter(log_format).format(logging.makeLogRecord({"msg": text, "levelname": "CRITICAL", "levelno": 50}))


def formatter(log_format: str) -> logging.Formatter:
    """Return a formatter that writes each record as one line, with the fields from `extra`.

    In the format `console`, an indented traceback follows the line. With OpenTelemetry, the identifiers of the current
    span are two more fields.
    """
    tracing = tracing_of_process()
    to_json = structlog.processors.JSONRenderer()  # it escapes unprintable characters itself
    to_console = structlog.dev.ConsoleRenderer(
        colors=os.isatty(2), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
    )
    processors: Mapping[str, Sequence[_Processor]] = {
        "logfmt": [_to_logfmt],
        "json": [_sanitized, to_json],
        "cloud": [_sanitized, _for_clouds, to_json],
        "console": [_sanitized, _printable, _indented, to_console],
    }
    return _LineFormatter(processors[log_format], tracing.identifiers if tracing else dict)


class _LineFormatter(logging.Formatter):
    """Formats records with structlog's processors.

    structlog's ProcessorFormatter also copies and formats each record, which takes a third of the cost of a line.
    """

    def __init__(self, processors: Sequence[_Processor], identifiers: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._processors = processors
        self._identifiers = identifiers

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`, with further lines for a traceback on the console.

        If the record cannot be formatted, for example because its arguments do not fit its message, return a line that
        reports this. `logging` would print the raw record instead, over several lines and including tokens.
        """
        try:
            return self._line(record)
        except Exception as error:
            report = {"msg": "a log record cannot be written", "levelname": "ERROR"}
            template = record.msg if isinstance(record.msg, str) else None
            fields = {"logger": record.name, "fault": type(error).__name__, "template": template}
            return self._line(logging.makeLogRecord({**report, **fields}))

    def _line(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        seconds, microseconds = divmod(round(record.created * 1_000_000), 1_000_000)
        created = f"{_utc(seconds)}.{microseconds:06}Z"
        extra = {key: value for key, value in record.__dict__.items() if key not in _NOT_WRITTEN}
        line: Any = {"time": created, "level": level, "event": record.getMessage(), **extra, **self._identifiers()}
        if record.exc_info:
            line["exc_info"] = record.exc_info
            line = structlog.processors.format_exc_info(None, level, line)
        for processor in self._processors:
            line = processor(None, level, line)
        return str(line)


@functools.lru_cache(maxsize=1)
def _utc(seconds: int) -> str:
    """Return a time in seconds since 1970 as text, without its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _to_logfmt(_logger: object, _name: str, event: _Event) -> str:
    """Return the line in logfmt.

    The text of most lines shows that no value must be quoted, escaped, cut or searched for tokens. Checking each value
    and calling structlog's renderer would take three times as long.
    """
    line = " ".join([f"{name}={value if type(value) is str else _logfmt_text(value)}" for name, value in event.items()])
    is_unquoted = line.count("=") == len(event) == line.count(" ") + 1 and '"' not in line
    if is_unquoted and line.isprintable() and not _needs_bounds(line):
        return line
    if not "".join(event).isprintable():
        raise ValueError(f"unprintable name in {list(event)}")
    return _LOGFMT_RENDERER(None, "", _printable(None, "", _sanitized(None, "", event)))


def _logfmt_text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sanitized(_logger: object, _name: str, event: _Event) -> _Event:
    """Convert values that JSON cannot represent to text, limit the length of text and remove tokens from it."""
    for key, value in event.items():
        if type(value) is str:
            text = value
        # JSON has no NaN and no infinity: they become text.
        elif value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            continue
        else:
            text = event[key] = str(value)
        if _needs_bounds(text):
            event[key] = bounded(text, MAX_TRACEBACK_BYTES if key == "exception" else MAX_FIELD_BYTES)
    return event


def _needs_bounds(text: str) -> bool:
    """Return False for most texts: short ones without a token, whose first two letters or a `%` they would have."""
    return len(text) > _MAX_UNCHECKED or "ey" in text or "ew" in text or "%" in text


def bounded(text: str, limit: int = MAX_FIELD_BYTES) -> str:
    """Return `text` without tokens, and without its middle part if it would take more than `limit` bytes in a line.

    A long text is cut first, so that the work is bounded too.
    """
    cleaned = ""
    for size in (limit, limit // 2, limit // _WIDEST_ESCAPE):
        cleaned = _cut(text, size) if len(text) > size else _without_tokens(text)
        if len(cleaned) <= limit // _WIDEST_ESCAPE or len(encode_basestring_ascii(cleaned)) <= limit:
            break
    return cleaned


def _cut(text: str, size: int) -> str:
    """Return the beginning and the end of a text longer than `size`, without tokens and parts of tokens."""
    kept = size - len(_CUT_MARK.format(len(text)))
    beginning, end = text[: kept * 3 // 4], text[-(kept // 4) :]
    token_end = _TOKEN_CHARACTERS.match(end)  # possibly the rest of a token that was cut
    end = end[token_end.end() :] if token_end else end
    left_out = _CUT_MARK.format(len(text) - len(beginning) - len(end))
    return _without_tokens(beginning, is_cut=True) + left_out + _without_tokens(end)


def _without_tokens(text: str, *, is_cut: bool = False) -> str:
    """Return `text` with each token replaced by `[token]`.

    A token has a dot, except at the end of a text that `is_cut`. If a token is percent-encoded, the result is the
    decoded text.
    """

    def replace(match: re.Match[str]) -> str:
        candidate = match[0]
        is_token = "." in candidate[:-1] or (is_cut and match.end() == len(match.string))
        return "[token]" if is_token else candidate

    text = decoded = _TOKEN.sub(replace, text)
    for _ in range(_MAX_DECODINGS):
        before, decoded = decoded, unquote(_ENCODED_PERCENT.sub("%", decoded))
        if decoded == before:
            break
    cleaned = _TOKEN.sub(replace, decoded)
    return text if cleaned == decoded else cleaned


def _printable(_logger: object, _name: str, event: _Event) -> _Event:
    """Escape unprintable characters: line ends (also U+2028), control and direction characters, lone surrogates.

    The renderer handles the newlines of a traceback.
    """
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n" if key == "exception" else ""
            event[key] = "".join(each if each.isprintable() or each in kept else _escaped(each) for each in value)
    return event


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _indented(_logger: object, _name: str, event: _Event) -> _Event:
    if "exception" in event:
        event["exception"] = textwrap.indent(event["exception"], "    ", lambda _: True)
    return event


def _for_clouds(_logger: object, _name: str, event: _Event) -> _Event:
    """Return the event with the names of fields, and the severities, that Google Cloud Logging and Datadog read."""
    renamed = {_CLOUD_NAMES.get(name, name): value for name, value in event.items()}
    google = {theirs: event[ours] for ours, theirs in _GOOGLE_NAMES.items() if ours in event}
    return renamed | google | {"timestamp": event["time"], "severity": event["level"].upper()}


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):  # Ctrl-C needs no report
        _log.critical("uncaught exception", exc_info=(kind, error or kind(), trace))
