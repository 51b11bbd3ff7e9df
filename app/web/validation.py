"""Connexion's validation, with the media type read strictly and the validators made once, at start."""

from collections.abc import Callable
from typing import Any

from connexion.middleware.request_validation import (
    RequestValidationAPI,
    RequestValidationMiddleware,
    RequestValidationOperation,
)
from connexion.operations import AbstractOperation
from starlette.exceptions import HTTPException
from werkzeug.http import parse_options_header


class StrictMediaType(RequestValidationOperation):
    """Takes one `Content-Type`, of a type that the operation consumes, in any case, with no charset but UTF-8.

    Connexion's own reading guesses where there is none, ignores the case in one place but not in the next, and skips
    the validation of what it does not recognise.
    """

    def extract_content_type(self, headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
        """The media type, as the contract spells it, and "utf-8". Raises HTTPException 415."""
        consumed = self._operation.consumes
        if not consumed:
            return super().extract_content_type(headers)
        given = [value for name, value in headers if name == b"content-type"]
        coded = any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers)
        media_type, options = parse_options_header(given[0].decode("latin-1") if len(given) == 1 else "")
        media_type = media_type.lower()
        if media_type not in consumed or options.get("charset", "utf-8").lower() != "utf-8" or coded:
            raise HTTPException(415, f"Content-Type: expected {' or '.join(consumed)}, in UTF-8 and not compressed.")
        return media_type, "utf-8"


class PreparedValidationAPI(RequestValidationAPI):
    """Makes each operation's validators once. Connexion makes them anew for each request, from the same arguments."""

    def make_operation(self, operation: AbstractOperation) -> StrictMediaType:
        """The validation of one operation of the document."""
        validators = self.validator_map["body"]
        bodies = {
            media_type: _made_once(
                validators[media_type],
                schema=operation.body_schema(media_type),
                required=operation.request_body.get("required", False),
                encoding="utf-8",
                strict_validation=self.strict_validation,
            )
            for media_type in operation.consumes
        }
        parameters = _made_once(self.validator_map["parameter"], parameters=operation.parameters, uri_parser=None)
        return StrictMediaType(
            self.next_app,
            operation=operation,
            strict_validation=self.strict_validation,
            validator_map={"body": bodies, "parameter": parameters},
        )


class Validation(RequestValidationMiddleware):
    """Stands where Connexion has its RequestValidationMiddleware."""

    api_cls = PreparedValidationAPI


def _made_once(validator: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
    made = validator(**arguments)
    return lambda *_, **_same_arguments: made
