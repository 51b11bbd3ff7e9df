"""Parses and validates parameters in the path, the query and headers."""

import re
from typing import Any
from urllib.parse import parse_qs

from jsonschema import Draft4Validator
from starlette.types import Scope

from app.errors import BadRequest
from app.web.context import header_values, request_context

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,999}")
_MAX_PARAMETERS = 99


class ParameterParser:
    """Replaces Connexion's ParameterValidator: strings in the path, the query and headers, and integers in the query.

    Connexion's class accepts everything that Python's `int` accepts ("1_0", " 5", "٣") and uses the last of several
    values. The values, or the document's defaults, go to the operation through the request's context. Raises TypeError
    at start for parameters of other kinds.

    An empty string counts as absent. If two parameters have the same argument name, the first that is given applies.
    """

    def __init__(self, parameters: list[dict[str, Any]]) -> None:
        self._parameters = [(each, argument_name(each["name"]), _validator(each)) for each in parameters]

    def validate(self, scope: Scope) -> None:
        """Read the parameters of a request. Raises BadRequest if one violates the document."""
        values: dict[str, int | str | None] = {}
        query = _query(scope) if self._parameters else {}
        for parameter, argument, validator in self._parameters:
            place, name = parameter["in"], parameter["name"]
            if place == "path":
                values[argument] = scope["path_params"][name]
                continue
            given = _header(scope, name) if place == "header" else query.get(name, [])
            if parameter["schema"]["type"] == "string":
                given = [value for value in given if value]
            value = _read(parameter, given, validator) if given else parameter["schema"].get("default")
            if values.get(argument) is None:
                values[argument] = value
        request_context(scope).parameters = values


def argument_name(parameter: str) -> str:
    """Return the name of the argument for a parameter: `last_event_id` for `Last-Event-ID` and `lastEventId`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", parameter).replace("-", "_").lower()


def _query(scope: Scope) -> dict[str, list[str]]:
    query = scope["query_string"].decode("latin-1")
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise BadRequest(f"query: expected at most {_MAX_PARAMETERS} parameters.") from error


def _header(scope: Scope, parameter: str) -> list[str]:
    """Return the header as one value: several lines of it are one list (RFC 9110, section 5.3)."""
    values = header_values(scope["headers"], parameter.lower().encode())
    return [", ".join(value.decode("latin-1") for value in values if value)]


def _validator(parameter: dict[str, Any]) -> Draft4Validator:
    schema, is_optional = parameter["schema"], not parameter.get("required")
    is_text = schema.get("type") == "string" and "pattern" in schema and is_optional
    is_supported = {
        "path": schema == {"type": "string"},
        "query": is_text or (schema.get("type") == "integer" and is_optional),
        "header": is_text,
    }
    if not is_supported.get(parameter["in"]):
        kinds = "a string in the path, an optional integer in the query, or an optional string with a pattern"
        raise TypeError(f"parameter {parameter['name']}: expected {kinds}")
    return Draft4Validator(schema)


def _read(parameter: dict[str, Any], values: list[str], validator: Draft4Validator) -> int | str:
    schema = parameter["schema"]
    is_text = schema["type"] == "string"
    if len(values) == 1 and (is_text or _INTEGER.fullmatch(values[0])):
        value = values[0] if is_text else int(values[0])
        if validator.is_valid(value):
            return value
    raise BadRequest(f"{parameter['in']}.{parameter['name']}: expected one {_expected(schema)}.")


def _expected(schema: dict[str, Any]) -> str:
    if schema["type"] == "string":
        return f"value that matches {schema['pattern']}"
    bounds = f", at least {schema['minimum']}" if "minimum" in schema else ""
    return f"whole number{bounds}" + (f", at most {schema['maximum']}" if "maximum" in schema else "")
