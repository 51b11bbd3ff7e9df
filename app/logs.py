"""How the lines look that any part of the process logs, the server and the libraries included.

What a line says comes in part from strangers: a path, a message of the store's. It can neither end its line nor steer a
terminal, and whatever looks like a token in it is left out.
"""

import logging
import math
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from json.encoder import encode_basestring_ascii
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote

import structlog

_RENDERERS: Mapping[str, Callable[[], Any]] = {
    "logfmt": lambda: structlog.processors.LogfmtRenderer(
        key_order=["time", "level", "event", "request_id"], drop_missing=True, bool_as_flag=False
    ),
    "json": structlog.processors.JSONRenderer,
    "console": lambda: structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
    ),
}
# What every record has; all else was given to it as `extra`.
_RECORDS_OWN = frozenset(logging.makeLogRecord({}).__dict__)
# The header of a JWT is a JSON object: `eyJ` is `{"`. White space before the name makes `eyA`, `ewo`, `ew0` or `ewk`,
# which words such as "framework" have too, but not in front of a whole header. The pattern takes everything that can
# belong to a token up to its end. It therefore reads no character twice, however often a header begins in them.
_TOKEN = re.compile(r"(?:eyJ|e(?:y[AIKL]|w[0ko])[\w-]{15})[\w.=%-]*", re.ASCII)
_TOKEN_CHARACTERS = re.compile(r"[\w.=%-]*", re.ASCII)
# A percent sign that was encoded once or several times.
_ENCODED_PERCENT = re.compile("%(?:25)+")
_MAX_DECODINGS = 3

# In bytes of a line; a character that is escaped takes up to twelve.
MAX_FIELD_BYTES: Final = 8 * 1024
MAX_TRACEBACK_BYTES: Final = 64 * 1024
_WIDEST_ESCAPE: Final = 12
_MAX_UNCHECKED: Final = MAX_FIELD_BYTES // _WIDEST_ESCAPE
_LEFT_OUT: Final = "[... {} characters left out ...]"

_log = logging.getLogger(__name__)


def logging_config(log_format: str, log_level: str) -> dict[str, Any]:
    """For `logging.config.dictConfig`, here or in a process that is yet to start: lines on stderr.

    `log_format` is logfmt, json or console; `log_level` the lowest level that is written. What libraries say at DEBUG
    never is: headers, pushed messages and bodies are among it.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "app.logs.formatter", "log_format": log_format}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO" if log_level == "DEBUG" else log_level},
        "loggers": {
            "app": {"level": log_level},
            # The service writes its own line for each request.
            "uvicorn.access": {"handlers": [], "propagate": False},
            "httpx": {"level": "WARNING" if log_level in {"DEBUG", "INFO"} else log_level},
        },
    }


def install_log_hooks() -> None:
    """Has all that this process would write past `logging` logged: warnings, and exceptions that nobody caught."""
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def startup_error(text: str, log_format: str | None) -> str:
    """`text` as a process writes it that cannot start: as it is, or as a line of a log that machines read."""
    if log_format != "json":
        return text
    return formatter("json").format(logging.makeLogRecord({"msg": text, "levelname": "CRITICAL", "levelno": 50}))


def formatter(log_format: str) -> logging.Formatter:
    """Makes each record one line, with the fields that were given to it as `extra`.

    On the console a traceback follows its line, indented.
    """
    return _LineFormatter(
        [
            _drop_second_message,
            structlog.processors.format_exc_info,
            _safe,
            *([] if log_format == "json" else [_printable]),  # JSON has escapes for all that is not ASCII
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *([_indented] if log_format == "console" else []),
            _RENDERERS[log_format](),
        ]
    )


_Event = MutableMapping[str, Any]


class _LineFormatter(logging.Formatter):
    """Has structlog's processors make a line of each record.

    structlog's own ProcessorFormatter copies a record first, looks through all that it has several times, and formats
    it once more at the end: a third of what a request's line costs.
    """

    def __init__(self, processors: Sequence[Callable[[object, str, _Event], Any]]) -> None:
        super().__init__()
        self._processors = processors

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`, or its lines, where there is a traceback for people.

        Of a record that does not become one, such as of arguments that do not fit its message, it says so. `logging`
        would write the record itself instead, over many lines and with the tokens that are in it.
        """
        try:
            return self._line(record)
        except Exception as error:
            said = {"msg": "a log record cannot be written", "levelname": "ERROR"}
            template = record.msg if isinstance(record.msg, str) else None
            fault = {"logger": record.name, "fault": type(error).__name__, "template": template}
            return self._line(logging.makeLogRecord({**said, **fault}))

    def _line(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        given = {key: value for key, value in record.__dict__.items() if key not in _RECORDS_OWN}
        line: Any = {"event": record.getMessage(), **given, "level": level}
        if record.exc_info:
            line["exc_info"] = record.exc_info
        for processor in self._processors:
            line = processor(None, level, line)
        return str(line)


def _drop_second_message(_logger: object, _name: str, event: _Event) -> _Event:
    event.pop("color_message", None)  # uvicorn's, for its own formatter
    return event


def _safe(_logger: object, _name: str, event: _Event) -> _Event:
    """Makes text of everything that JSON cannot hold, bounds it and removes tokens from it."""
    for key, value in event.items():
        if type(value) is str:
            text = value
        # JSON has no word for a number that is not finite: it becomes text.
        elif value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            continue
        else:
            text = event[key] = str(value)
        # Most texts are short and cannot hold a token: not even its first two letters, nor encoded ones.
        if len(text) > _MAX_UNCHECKED or "ey" in text or "ew" in text or "%" in text:
            event[key] = _bounded(text, MAX_TRACEBACK_BYTES if key == "exception" else MAX_FIELD_BYTES)
    return event


def _bounded(text: str, limit: int) -> str:
    """The text without tokens. If that takes more than `limit` bytes in a line, its middle is left out.

    A long text is cut before anything else, so that the work is bounded too.
    """
    cleaned = ""
    for size in (limit, limit // 2, limit // _WIDEST_ESCAPE):
        cleaned = _ends(text, size) if len(text) > size else _without_tokens(text)
        if len(cleaned) <= limit // _WIDEST_ESCAPE or len(encode_basestring_ascii(cleaned)) <= limit:
            break
    return cleaned


def _ends(text: str, size: int) -> str:
    """The beginning and the end of a text that is longer than `size`, without tokens and without parts of one."""
    kept = size - len(_LEFT_OUT.format(len(text)))
    beginning, end = text[: kept * 3 // 4], text[-(kept // 4) :]
    rest = _TOKEN_CHARACTERS.match(end)  # may be the end of a token
    end = end[rest.end() :] if rest else end
    left_out = _LEFT_OUT.format(len(text) - len(beginning) - len(end))
    return _without_tokens(beginning, is_cut=True) + left_out + _without_tokens(end)


def _without_tokens(text: str, *, is_cut: bool = False) -> str:
    """The text with `[token]` in the place of each token; a token at the end of a text that `is_cut` may lack its dots.

    A token that shows only when percent-encoding is removed makes the result the decoded text.
    """

    def replace(found: re.Match[str]) -> str:
        whole = found[0]
        is_token = "." in whole[:-1] or (is_cut and found.end() == len(found.string))
        return "[token]" if is_token else whole

    text = decoded = _TOKEN.sub(replace, text)
    for _ in range(_MAX_DECODINGS):
        before, decoded = decoded, unquote(_ENCODED_PERCENT.sub("%", decoded))
        if decoded == before:
            break
    cleaned = _TOKEN.sub(replace, decoded)
    return text if cleaned == decoded else cleaned


def _printable(_logger: object, _name: str, event: _Event) -> _Event:
    """Escapes what ends a line anywhere (U+2028 too), moves a cursor, turns the direction of text or is half of one.

    The newlines of a traceback are left to whoever renders it.
    """
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(
                each if each.isprintable() or (each == "\n" and key == "exception") else _escaped(each)
                for each in value
            )
    return event


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _indented(_logger: object, _name: str, event: _Event) -> _Event:
    if "exception" in event:
        event["exception"] = textwrap.indent(event["exception"], "    ", lambda _: True)
    return event


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):  # somebody at a terminal, who knows
        _log.critical("uncaught exception", exc_info=(kind, error or kind(), trace))
