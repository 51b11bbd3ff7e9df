"""Verifies bearer tokens for Connexion, and checks what a valid token permits."""

import functools
import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from connexion.middleware.abstract import ROUTING_CONTEXT
from connexion.middleware.security import SecurityAPI, SecurityMiddleware, SecurityOperation
from connexion.operations import AbstractOperation
from connexion.security import BearerSecurityHandler
from connexion.spec import Specification
from starlette.types import Receive, Scope, Send

from app.auth.token_cache import TokenCache
from app.auth.tokens import TENANT_PLACEHOLDER, VerifiedToken
from app.errors import Forbidden, InsufficientScope, RejectionReason
from app.model import Principal
from app.web.bearer_token import bearer_token
from app.web.context import request_context

TokenInfo = dict[str, Any]


@dataclass(frozen=True)
class Permissions:
    """The rules that a valid token must also satisfy. A rule that is None does not apply.

    Operations in `writes` (operationIds) require `write_scope`, all others `read_scope`. `tenant_host` is a host name
    that contains `{tenant}`: the request's host must be the one of the token's tenant.
    """

    writes: Collection[str] = ()
    read_scope: str | None = None
    write_scope: str | None = None
    tenant_host: str | None = None

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that any operation requires."""
        return frozenset(scope for scope in (self.read_scope, self.write_scope) if scope is not None)

    def require(self, principal: Principal, scope: Scope) -> None:
        """Raise Forbidden if the request in `scope` is not permitted to `principal`."""
        if self.tenant_host is not None and _host(scope) != self.tenant_host.replace(
            TENANT_PLACEHOLDER, principal.tenant
        ):
            raise Forbidden("The token's tenant is not the tenant of the host.", RejectionReason.HOST)
        operation = scope["extensions"][ROUTING_CONTEXT]["operation_id"]
        required = self.write_scope if operation in self.writes else self.read_scope
        if required is not None and required not in principal.scopes:
            raise InsufficientScope(required)


@dataclass(frozen=True, slots=True)
class SecurityRequest:
    """The part of a request that Connexion's security checks and BearerTokenHandler use."""

    scope: Scope

    @property
    def context(self) -> dict[str, Any]:
        """Return a dict into which Connexion puts the result of the check. It is not used."""
        return {}


class OperationSecurity:
    """Runs Connexion's security check of one operation without building its request objects."""

    def __init__(self, operation: SecurityOperation) -> None:
        self._is_protected = bool(operation.security)
        self._verify = operation.verification_fn
        self._next_app = operation.next_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises Unauthorized, Forbidden or KeyUnavailable."""
        if self._is_protected:
            await self._verify(SecurityRequest(scope))
        await self._next_app(scope, receive, send)


class SecurityApi(SecurityAPI):
    """Builds the security check of each operation, once."""

    def make_operation(self, operation: AbstractOperation | Specification) -> OperationSecurity:  # type: ignore[override]
        """Return the security check of one operation."""
        return OperationSecurity(super().make_operation(operation))


class ContractSecurity(SecurityMiddleware):
    """Replaces Connexion's SecurityMiddleware."""

    api_cls = SecurityApi


class BearerTokenHandler(BearerSecurityHandler):
    """Verifies bearer tokens. Puts the principal, and a function for the token's expiry, into the request's context.

    Connexion uses it for the scheme "bearer", through its `security_map`.
    """

    def __init__(self, tokens: TokenCache, permissions: Permissions) -> None:
        self._tokens = tokens
        self._permissions = permissions

    def get_fn(
        self, security_scheme: dict[str, Any], required_scopes: list[str]
    ) -> Callable[[SecurityRequest], TokenInfo | Awaitable[TokenInfo]]:
        """Return the check of one operation. Connexion's method would read it from the contract."""
        return self._check

    def _check(self, request: SecurityRequest) -> TokenInfo | Awaitable[TokenInfo]:
        scope = request.scope
        token = bearer_token(scope["headers"])
        verified = self._tokens.get(token)
        return self._verify(token, scope) if verified is None else self._authorize(verified, scope)

    async def _verify(self, token: str, scope: Scope) -> TokenInfo:
        return self._authorize(await self._tokens.verify(token), scope)

    def _authorize(self, verified: VerifiedToken, scope: Scope) -> TokenInfo:
        principal, context = verified.principal, request_context(scope)
        context.principal = principal
        self._permissions.require(principal, scope)
        # The headers live as long as the request, so that an event stream keeps no second copy of its token.
        context.token_expiry = functools.partial(self._expiry, scope["headers"])
        return {"sub": principal.subject}  # Connexion reads "sub"

    async def _expiry(self, headers: list[tuple[bytes, bytes]]) -> float:
        """Return the expiry of a token that is valid now, in seconds since 1970. Raises as `TokenCache.verify` does."""
        token = bearer_token(headers)
        return (self._tokens.get(token) or await self._tokens.verify(token)).expires_at


def _host(scope: Scope) -> str | None:
    """Return the host in lower case without its port, or None if the request does not have exactly one."""
    given = [value for name, value in scope["headers"] if name == b"host"]
    if len(given) != 1:
        return None
    return re.sub(r":\d*$", "", given[0].decode("latin-1").lower())
