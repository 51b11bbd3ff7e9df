"""Parses JSON bodies strictly (RFC 8259) and validates them against the schema of the document."""

import codecs
import functools
import json
import math
from typing import Any, Final, NoReturn

from jsonschema import Draft4Validator, ValidationError
from jsonschema.exceptions import best_match
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope
from werkzeug.http import parse_options_header

from app.errors import BadRequest, InvalidBody
from app.web.context import Header, header_values, request_context, single_header

MAX_DEPTH = 32

# For each operation: how many valid bodies are cached with their values, and the size of the largest one in bytes.
_MAX_CACHED: Final = 64
_MAX_CACHED_BYTES: Final = 64

# Some clients on Windows start each text with one, and it is invisible there. RFC 8259, section 8.1, forbids it.
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class JsonBodyValidator:
    """Reads bodies of at most `max_bytes`, parses them and validates the value against `schema`.

    A request must have one `Content-Type`, which is JSON in any letter case, with no charset except UTF-8. The value
    goes to the operation through the request's context, and the bytes go to Flask. The values of short valid bodies are
    cached.
    """

    def __init__(self, schema: dict[str, Any], max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._validator = Draft4Validator(schema, format_checker=Draft4Validator.FORMAT_CHECKER)
        # Clients send the same few bytes to change a setting. Parsing and validating them takes 7 % of a POST.
        # Operations only read values, so requests can share them.
        self._cached_value_of = functools.lru_cache(_MAX_CACHED)(self._value_of)

    async def validate(self, receive: Receive, scope: Scope) -> None:
        """Read and validate the body.

        Raises BadRequest, HTTPException 415, HTTPException 413 before it reads too much, or ClientDisconnect if the
        body is incomplete.
        """
        _require_json(scope["headers"])
        content = await _read(receive, scope, self._max_bytes)
        value_of = self._cached_value_of if len(content) <= _MAX_CACHED_BYTES else self._value_of
        context = request_context(scope)
        context.body, context.body_bytes = value_of(content), content

    def _value_of(self, content: bytes) -> Any:
        """Return the valid value of a body. Raises BadRequest."""
        value = parse(content)
        error = best_match(self._validator.iter_errors(value))
        if error is not None:
            raise InvalidBody(_explain(error))
        return value


def _require_json(headers: list[Header]) -> None:
    is_encoded = any(value.lower() != b"identity" for value in header_values(headers, b"content-encoding"))
    media_type, options = parse_options_header(single_header(headers, b"content-type").decode("latin-1"))
    is_utf8 = options.get("charset", "utf-8").lower() in {"utf-8", "utf8"}  # many clients leave out the hyphen
    if media_type.lower() != "application/json" or not is_utf8 or is_encoded:
        raise HTTPException(415, "Content-Type: expected application/json in UTF-8, without Content-Encoding.")


async def _read(receive: Receive, scope: Scope, max_bytes: int) -> bytes:
    declared = int(single_header(scope["headers"], b"content-length") or 0)
    content, more = bytearray(), declared <= max_bytes
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":  # the body is incomplete, so it must have no effect
            raise ClientDisconnect
        content += message.get("body", b"")
        more = message.get("more_body", False) and len(content) <= max_bytes
    if max(declared, len(content)) > max_bytes:
        raise HTTPException(413, f"body: expected at most {max_bytes} bytes.")
    return bytes(content)


def parse(content: bytes) -> Any:
    """Return the one JSON value in `content`. Raises BadRequest for what RFC 8259 forbids or leaves to the parser.

    That is: bytes that are not UTF-8, duplicate keys, NaN and infinities, numbers that are too long or too large, lone
    surrogates, and more than `MAX_DEPTH` levels of nesting.
    """
    if not content:
        raise BadRequest("body: expected JSON, found an empty body.")
    if content.startswith(_BYTE_ORDER_MARKS):
        raise BadRequest("body: expected UTF-8 without a byte order mark (BOM) at the start.")
    try:
        value = _DECODER.decode(content.decode())
        _check(value, MAX_DEPTH)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise BadRequest(f"body: expected JSON, found a syntax error at {place}.") from error
    except UnicodeError as error:
        raise BadRequest("body: expected valid UTF-8 without lone surrogates.") from error
    except RecursionError as error:
        raise BadRequest(f"body: expected at most {MAX_DEPTH} levels of nesting.") from error
    except ValueError as error:  # from `int`: Python's limit
        raise BadRequest("body: expected integers of at most 4300 digits.") from error
    return value


def _check(value: object, levels: int) -> None:
    """Raise RecursionError for more than `levels` of nesting, UnicodeError for lone surrogates such as "\\ud800"."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        if not levels:
            raise RecursionError
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _check(part, levels - 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) < len(pairs):
        raise BadRequest("body: expected unique keys in each object.")
    return members


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise BadRequest("body: expected numbers within the range of a 64-bit float.")
    return number


def _no_constant(name: str) -> NoReturn:
    raise BadRequest(f"body: expected JSON, which does not allow {name}.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)


def _explain(error: ValidationError) -> str:
    """Return the place and the expectation. Property names of the schema are all that is quoted from the body."""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    expected: Any = error.validator_value
    found: Any = error.instance
    if error.validator == "required":
        missing = next(name for name in expected if name not in found)
        return f"body{place}: expected a property '{missing}'."
    if error.validator == "type":
        return f"body{place}: expected a value of type {expected}."
    return f"body{place}: expected {error.validator} {expected}."
