"""The setting, and errors, in the words of OFREP, OpenFeature's remote evaluation protocol."""

import enum
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from starlette.types import Scope

from app.model import Evaluation

_BASE: Final = "/ofrep/v1/"
_FLAG: Final = "/ofrep/v1/evaluate/flags/"
_NOT_FOUND: Final = 404


class EvaluationCode(enum.StrEnum):
    """What kept a flag from being evaluated, as far as OpenFeature tells it apart."""

    PARSE_ERROR = "PARSE_ERROR"
    INVALID_CONTEXT = "INVALID_CONTEXT"
    FLAG_NOT_FOUND = "FLAG_NOT_FOUND"
    GENERAL = "GENERAL"


def evaluation_fields(evaluation: Evaluation) -> Mapping[str, Any]:
    """An evaluation that succeeded. Its reason is always the same: no context has a part in it."""
    setting = evaluation.setting
    return {
        "key": evaluation.key,
        "value": setting.enabled,
        "variant": "on" if setting.enabled else "off",
        "reason": "STATIC",
        "metadata": {"version": setting.version},
    }


def is_ofrep(scope: Scope) -> bool:
    """Whether the request in `scope`, be it with a head that was refused, is for a path of this protocol."""
    return _path(scope).startswith(_BASE)


def error_fields(scope: Scope, status: int, code: EvaluationCode, message: str) -> Mapping[str, str]:
    """An error, with the key of the flag where the path of the request in `scope` names one.

    A key may have a slash: then no operation is there to say that there is no such flag.
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
    """The path, decoded; of a head that was refused the server has it only as it was sent."""
    path: str | None = scope.get("path")
    return unquote(scope.get("raw_path", b"").decode("ascii")) if path is None else path
