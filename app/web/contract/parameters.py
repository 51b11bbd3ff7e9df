"""Parameters in the path, the query and headers, read strictly and held to the document's schema."""

import re
from typing import Any
from urllib.parse import parse_qsl

from jsonschema import Draft4Validator
from starlette.types import Scope

from app.errors import BadRequest
from app.web.context import request_context

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,999}")
_MAX_PARAMETERS = 99


class ParameterParser:
    """Stands where Connexion has its ParameterValidator: for any text in the path, and whole numbers elsewhere.

    A parameter of another kind is a TypeError at start.

    Connexion reads what Python's `int` takes ("1_0", " 5", "٣") and the last of two. The values go to the operation
    through the request's context, with the document's default where one is not given.
    """

    def __init__(self, parameters: list[dict[str, Any]]) -> None:
        self._parameters = [(each["in"], each["name"], _known_schema(each)) for each in parameters]

    def validate(self, scope: Scope) -> None:
        """Raises BadRequest for a parameter that is not what the document describes."""
        values: dict[str, int | None] = {}
        query = _query(scope) if self._parameters else {}
        for place, name, schema in self._parameters:
            if place == "path":
                values[argument_name(name)] = scope["path_params"][name]
                continue
            given = _header(scope, name) if place == "header" else query.get(name)
            values[argument_name(name)] = _read(f"{place}.{name}", given, schema) if given else schema.get("default")
        request_context(scope).parameters = values


def argument_name(parameter: str) -> str:
    """What the operation calls a parameter of the document."""
    return parameter.lower().replace("-", "_")


def _query(scope: Scope) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(
            scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS
        )
    except ValueError as error:
        raise BadRequest(f"query: expected at most {_MAX_PARAMETERS} parameters.") from error
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    return given


def _header(scope: Scope, wanted: str) -> list[str]:
    name = wanted.lower().encode()
    return [value.decode("latin-1") for each, value in scope["headers"] if each == name]


def _known_schema(parameter: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = parameter["schema"]
    if parameter["in"] == "path":
        is_known = schema == {"type": "string"}
    else:
        is_known = parameter["in"] in {"query", "header"} and schema.get("type") == "integer"
        is_known = is_known and not parameter.get("required")
    if not is_known:
        raise TypeError(f"the parameter {parameter['name']} is of a kind that is not read here")
    return schema


def _read(place: str, values: list[str], schema: dict[str, Any]) -> int:
    bounds = f"a whole number of {schema['minimum']} or more" if "minimum" in schema else "a whole number"
    bounds += f", {schema['maximum']} at the most" if "maximum" in schema else ""
    if len(values) == 1 and _INTEGER.fullmatch(values[0]) and Draft4Validator(schema).is_valid(int(values[0])):
        return int(values[0])
    raise BadRequest(f"{place}: expected once, as {bounds}.")
