"""Checks a request against its OpenAPI document. Everything that takes time is prepared at start."""

from connexion.operations import OpenAPIOperation
from starlette.types import ASGIApp, Receive, Scope, Send

from app.web.context import request_context
from app.web.contract.json_body import JsonBodyValidator
from app.web.contract.parameters import ParameterParser
from app.web.contract.security import BearerSecurity


class OperationValidation:
    """ASGI application for one operation: checks the token, the parameters and the body, then calls `next_app`.

    Connexion's parts for this read media types and parameters leniently, and build their validators for each request.
    """

    def __init__(
        self, operation: OpenAPIOperation, next_app: ASGIApp, security: BearerSecurity, max_body_bytes: int
    ) -> None:
        self._operation_id = operation.operation_id
        self._security = security if operation.security else None
        self._parameters = ParameterParser(operation.parameters)
        self._body = JsonBodyValidator(operation.body_schema(), max_body_bytes) if operation.consumes else None
        self._next_app = next_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises BadRequest, HTTPException 413 or 415, or what `BearerSecurity.check` raises."""
        request_context(scope).operation_id = self._operation_id
        if self._security is not None:
            await self._security.check(scope, self._operation_id)
        self._parameters.validate(scope)
        if self._body is not None:
            await self._body.validate(receive, scope)
        await self._next_app(scope, receive, send)
