"""Connexion's validation, with the media type read strictly and the validators made once, at start."""

from collections.abc import Mapping

from connexion.middleware.request_validation import RequestValidationAPI, RequestValidationMiddleware
from connexion.operations import AbstractOperation
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.http import parse_options_header

from app.web.contract.json_body import JsonBodyValidator
from app.web.contract.parameters import ParameterParser


class OperationValidation:
    """The validation of one operation: of its parameters and, where it has one, of its body by its media type.

    It takes one `Content-Type`, of a type that the operation consumes, in any case, with no charset but UTF-8.
    Connexion's own reading guesses where there is none, ignores the case in one place but not in the next, and skips
    the validation of what it does not recognise. It also makes its validators again for each request.
    """

    def __init__(self, next_app: ASGIApp, parameters: ParameterParser, bodies: Mapping[str, JsonBodyValidator]) -> None:
        self._next_app = next_app
        self._parameters = parameters
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request. Raises BadRequest and HTTPException."""
        self._parameters.validate(scope)
        if self._bodies:
            await self._bodies[self._media_type(scope["headers"])].validate(receive, scope)
        await self._next_app(scope, receive, send)

    def _media_type(self, headers: list[tuple[bytes, bytes]]) -> str:
        given = [value for name, value in headers if name == b"content-type"]
        coded = any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers)
        media_type, options = parse_options_header(given[0].decode("latin-1") if len(given) == 1 else "")
        media_type = media_type.lower()
        if media_type not in self._bodies or options.get("charset", "utf-8").lower() != "utf-8" or coded:
            raise HTTPException(
                415, f"Content-Type: expected {' or '.join(self._bodies)}, in UTF-8 and not compressed."
            )
        return media_type


class ValidationApi(RequestValidationAPI):
    """Makes each operation's validators once."""

    def make_operation(self, operation: AbstractOperation) -> OperationValidation:  # type: ignore[override]
        """Return the validation of one operation of the document."""
        validators = self.validator_map["body"]
        bodies = {each: validators[each](schema=operation.body_schema(each)) for each in operation.consumes}
        return OperationValidation(self.next_app, self.validator_map["parameter"](operation.parameters), bodies)


class ContractValidation(RequestValidationMiddleware):
    """Stands where Connexion has its RequestValidationMiddleware."""

    api_cls = ValidationApi
