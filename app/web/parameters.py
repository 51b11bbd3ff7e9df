"""Query parameters, read strictly and held to the document's schema."""

import re
from typing import Any
from urllib.parse import parse_qsl

from jsonschema import Draft4Validator
from starlette.types import Scope

from app.errors import BadRequest

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,999}")
_MAX_PARAMETERS = 99


class QueryParameters:
    """Stands where Connexion has its ParameterValidator, for whole numbers in the query; others it refuses at start.

    Connexion reads what Python's `int` takes ("1_0", " 5", "٣") and the last of two. The values go to the operation
    through the request's context, with the document's default where one is not given.
    """

    def __init__(self, parameters: list[dict[str, Any]], **_options: Any) -> None:
        self._schemas = {parameter["name"]: _integer_schema(parameter) for parameter in parameters}

    def validate(self, scope: Scope) -> None:
        """Raises BadRequest for a parameter that is not what the document describes."""
        given: dict[str, list[str]] = {}
        for name, value in _pairs(scope["query_string"].decode("latin-1")):
            given.setdefault(name, []).append(value)
        scope["extensions"]["connexion_context"]["parameters"] = {
            name: _read(name, given[name], schema) if name in given else schema.get("default")
            for name, schema in self._schemas.items()
        }


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise BadRequest(f"query: expected at most {_MAX_PARAMETERS} parameters.") from error


def _integer_schema(parameter: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = parameter["schema"]
    if parameter["in"] != "query" or parameter.get("required") or schema.get("type") != "integer":
        raise TypeError(f"the parameter {parameter['name']} is of a kind that is not read here")
    return schema


def _read(name: str, values: list[str], schema: dict[str, Any]) -> int:
    bounds = f"a whole number of {schema['minimum']} or more" if "minimum" in schema else "a whole number"
    bounds += f", {schema['maximum']} at the most" if "maximum" in schema else ""
    if len(values) == 1 and _INTEGER.fullmatch(values[0]) and Draft4Validator(schema).is_valid(int(values[0])):
        return int(values[0])
    raise BadRequest(f"query.{name}: expected once, as {bounds}.")
