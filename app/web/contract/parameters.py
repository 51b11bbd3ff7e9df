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
    """Replaces Connexion's ParameterValidator. Parses strings in the path, and integers in the query and in headers.

    Connexion's class accepts everything that Python's `int` accepts ("1_0", " 5", "٣") and uses the last of several
    values. The values, or the document's defaults, go to the operation through the request's context. Raises TypeError
    at start for parameters of other kinds.
    """

    def __init__(self, parameters: list[dict[str, Any]]) -> None:
        self._parameters = [(each, argument_name(each["name"]), _validator(each)) for each in parameters]

    def validate(self, scope: Scope) -> None:
        """Read the parameters of a request. Raises BadRequest if one violates the document."""
        values: dict[str, int | None] = {}
        query = _query(scope) if self._parameters else {}
        for parameter, argument, validator in self._parameters:
            place, name = parameter["in"], parameter["name"]
            if place == "path":
                values[argument] = scope["path_params"][name]
                continue
            given = _header(scope, name) if place == "header" else query.get(name)
            values[argument] = _read(parameter, given, validator) if given else parameter["schema"].get("default")
        request_context(scope).parameters = values


def argument_name(parameter: str) -> str:
    """Return the name of the operation's argument for a parameter of the document."""
    return parameter.lower().replace("-", "_")


def _query(scope: Scope) -> dict[str, list[str]]:
    query = scope["query_string"].decode("latin-1")
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise BadRequest(f"query: expected at most {_MAX_PARAMETERS} parameters.") from error


def _header(scope: Scope, parameter: str) -> list[str]:
    values = header_values(scope["headers"], parameter.lower().encode())
    return [value.decode("latin-1") for value in values]


def _validator(parameter: dict[str, Any]) -> Draft4Validator:
    schema = parameter["schema"]
    if parameter["in"] == "path":
        is_supported = schema == {"type": "string"}
    else:
        is_supported = parameter["in"] in {"query", "header"} and schema.get("type") == "integer"
        is_supported = is_supported and not parameter.get("required")
    if not is_supported:
        raise TypeError(f"parameter {parameter['name']}: expected a string in the path, or an optional integer")
    return Draft4Validator(schema)


def _read(parameter: dict[str, Any], values: list[str], validator: Draft4Validator) -> int:
    if len(values) == 1 and _INTEGER.fullmatch(values[0]) and validator.is_valid(number := int(values[0])):
        return number
    schema = parameter["schema"]
    bounds = f", at least {schema['minimum']}" if "minimum" in schema else ""
    bounds += f", at most {schema['maximum']}" if "maximum" in schema else ""
    raise BadRequest(f"{parameter['in']}.{parameter['name']}: expected one whole number{bounds}.")
