"""A request's JSON, read strictly (RFC 8259) and held to the contract's schema."""

import json
import math
from typing import Any, NoReturn

from jsonschema import Draft4Validator, ValidationError
from jsonschema.exceptions import best_match
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from app.errors import BadRequest, InvalidBody
from app.web.context import request_context

MAX_DEPTH = 32


class JsonBodyValidator:
    """Validates JSON bodies: reads at most `max_bytes`, parses once, holds the value to `schema`.

    The value goes to the operation, and the bytes to Flask, through the request's context.
    """

    def __init__(self, *, schema: dict[str, Any], max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._validator = Draft4Validator(schema, format_checker=Draft4Validator.FORMAT_CHECKER)

    async def validate(self, receive: Receive, scope: Scope) -> None:
        """Read and check the body. Raises BadRequest, or HTTPException 413 before too much is read."""
        content = await _read(receive, scope, self._max_bytes)
        value = parse(content)
        error = best_match(self._validator.iter_errors(value))
        if error is not None:
            raise InvalidBody(_explain(error))
        context = request_context(scope)
        context.body, context.body_bytes = value, content


async def _read(receive: Receive, scope: Scope, max_bytes: int) -> bytes:
    announced = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
    content, more = bytearray(), announced <= max_bytes
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":  # the body ended before its length: it is no body
            raise ClientDisconnect
        content += message.get("body", b"")
        more = message.get("more_body", False) and len(content) <= max_bytes
    if max(announced, len(content)) > max_bytes:
        raise HTTPException(413, f"body: expected at most {max_bytes} bytes.")
    return bytes(content)


def parse(content: bytes) -> Any:
    """The one JSON value in `content`. Raises BadRequest for all that RFC 8259 leaves open or forbids.

    That is: what is not UTF-8, duplicate keys, numbers that are no number or too long, halves of characters, and
    values nested deeper than `MAX_DEPTH`.
    """
    if not content:
        raise BadRequest("body: expected JSON, found nothing.")
    try:
        value = _DECODER.decode(content.decode())
        _check(value, MAX_DEPTH)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise BadRequest(f"body: expected JSON, found something else at {place}.") from error
    except UnicodeError as error:
        raise BadRequest("body: expected text in UTF-8, of whole characters.") from error
    except RecursionError as error:
        raise BadRequest(f"body: expected at most {MAX_DEPTH} levels of nesting.") from error
    except ValueError as error:  # `int` refuses more than 4,300 digits
        raise BadRequest("body: expected numbers of a reasonable length.") from error
    return value


def _check(value: object, levels: int) -> None:
    """Refuses more than `levels` of nesting, and halves of characters ("\\ud800"): those cannot be encoded."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        if not levels:
            raise BadRequest(f"body: expected at most {MAX_DEPTH} levels of nesting.")
        for part in value:
            _check(part, levels - 1)
        if isinstance(value, dict):
            for part in value.values():
                _check(part, levels - 1)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) < len(pairs):
        raise BadRequest("body: expected each key once in an object.")
    return members


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise BadRequest("body: expected numbers that a double can hold.")
    return number


def _no_constant(name: str) -> NoReturn:
    raise BadRequest(f"body: expected JSON, found {name}, which is no JSON.")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)


def _explain(error: ValidationError) -> str:
    """The place and what was expected; of the body itself, nothing but names that the schema has."""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    wanted: Any = error.validator_value
    found: Any = error.instance
    if error.validator == "required":
        missing = next(name for name in wanted if name not in found)
        return f"body{place}: expected a property '{missing}'."
    if error.validator == "type":
        return f"body{place}: expected a value of type {wanted}."
    return f"body{place}: expected {error.validator} {wanted}."
