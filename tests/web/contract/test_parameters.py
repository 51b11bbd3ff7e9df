from typing import Any

import pytest

from app.web.contract.parameters import ParameterParser


@pytest.mark.parametrize(
    "parameter",
    [
        {"in": "path", "required": True, "schema": {"type": "integer"}},
        {"in": "path", "required": True, "schema": {"type": "string", "pattern": "^a$"}},
        {"in": "query", "schema": {"type": "string"}},
        {"in": "query", "required": True, "schema": {"type": "string", "pattern": "^a$"}},
        {"in": "query", "required": True, "schema": {"type": "integer"}},
        {"in": "header", "schema": {"type": "integer"}},
        {"in": "header", "schema": {"type": "string"}},
        {"in": "header", "required": True, "schema": {"type": "string", "pattern": "^a$"}},
        {"in": "cookie", "schema": {"type": "integer"}},
    ],
)
def test_unsupported_parameter_is_refused_at_start(parameter: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="parameter some: expected a string in the path, an optional integer"):
        ParameterParser([{"name": "some", **parameter}])
