"""Flag evaluations and errors as JSON fields of OFREP, the OpenFeature Remote Evaluation Protocol."""

import enum
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from starlette.types import Scope

from app.model import Evaluation, Evaluations

_BASE: Final = "/ofrep/v1/"
_FLAG: Final = "/ofrep/v1/evaluate/flags/"
_NOT_FOUND: Final = 404


class EvaluationCode(enum.StrEnum):
    """Error codes of OpenFeature for a failed evaluation."""

    PARSE_ERROR = "PARSE_ERROR"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    GENERAL = "GENERAL"


def evaluation_fields(evaluation: Evaluation) -> Mapping[str, Any]:
    """Return the fields of a successful evaluation. The reason is `STATIC` because no context affects the value."""
    setting = evaluation.setting
    return {
        "key": evaluation.key,
        "value": setting.enabled,
        "variant": "on" if setting.enabled else "off",
        "reason": "STATIC",
        "metadata": {"version": setting.version},
    }


def bulk_evaluation_fields(evaluations: Evaluations) -> Mapping[str, Any]:
    """Return the fields of a successful evaluation of all flags, with the metadata of the flag set."""
    flags = [evaluation_fields(each) for each in evaluations.flags]
    return {"flags": flags, "metadata": {"version": evaluations.version}}


def is_ofrep(scope: Scope) -> bool:
    """Return True if the request in `scope` is for a path of OFREP. The server may have refused its head."""
    return _path(scope).startswith(_BASE)


def error_fields(scope: Scope, status: int, code: EvaluationCode, message: str) -> Mapping[str, str]:
    """Return the fields of an error, with the flag's key if the path of the request in `scope` contains one.

    A key with a slash matches no operation, so a 404 on such a path becomes `FLAG_NOT_FOUND`.
    """
    path = _path(scope)
    key = path.removeprefix(_FLAG)
    if key in {path, ""}:
        return {"errorCode": code, "errorDetails": message}
    return {
        "key": key,
        "errorCode": EvaluationCode.FLAG_NOT_FOUND if status == _NOT_FOUND else code,
        "errorDetails": message,
    }


def _path(scope: Scope) -> str:
    """Return the decoded path. A scope from a refused head only has `raw_path`."""
    path: str | None = scope.get("path")
    return unquote(scope.get("raw_path", b"").decode("ascii")) if path is None else path
