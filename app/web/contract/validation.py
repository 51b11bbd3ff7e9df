"""Validates requests for Connexion: media types are read strictly, and validators are built once, at start."""

from collections.abc import Mapping

from connexion.middleware.request_validation import RequestValidationAPI, RequestValidationMiddleware
from connexion.operations import AbstractOperation
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.http import parse_options_header

from app.web.contract.json_body import JsonBodyValidator
from app.web.contract.parameters import ParameterParser


class OperationValidation:
    """Validates the parameters of one operation and, if it has a body, the body by its media type.

    A request must have one `Content-Type` that the operation consumes, in any letter case, with no charset except
    UTF-8. Connexion's class guesses a missing type, handles letter case inconsistently, skips validation for unknown
    types and builds its validators for each request.
    """

    def __init__(self, next_app: ASGIApp, parameters: ParameterParser, bodies: Mapping[str, JsonBodyValidator]) -> None:
        self._next_app = next_app
        self._parameters = parameters
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises BadRequest, or HTTPException 413 or 415."""
        self._parameters.validate(scope)
        if self._bodies:
            await self._bodies[self._media_type(scope["headers"])].validate(receive, scope)
        await self._next_app(scope, receive, send)

    def _media_type(self, headers: list[tuple[bytes, bytes]]) -> str:
        given = [value for name, value in headers if name == b"content-type"]
        is_encoded = any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers)
        media_type, options = parse_options_header(given[0].decode("latin-1") if len(given) == 1 else "")
        media_type = media_type.lower()
        if media_type not in self._bodies or options.get("charset", "utf-8").lower() != "utf-8" or is_encoded:
            raise HTTPException(
                415, f"Content-Type: expected {' or '.join(self._bodies)} in UTF-8, without Content-Encoding."
            )
        return media_type


class ValidationApi(RequestValidationAPI):
    """Builds the validators of each operation, once."""

    def make_operation(self, operation: AbstractOperation) -> OperationValidation:  # type: ignore[override]
        """Return the validation of one operation of the document."""
        validators = self.validator_map["body"]
        bodies = {each: validators[each](schema=operation.body_schema(each)) for each in operation.consumes}
        return OperationValidation(self.next_app, self.validator_map["parameter"](operation.parameters), bodies)


class ContractValidation(RequestValidationMiddleware):
    """Replaces Connexion's RequestValidationMiddleware."""

    api_cls = ValidationApi
