"""Connexion's bearer handler, with the service's own verifier behind it, and what a good token may do."""

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
from app.web.authorization import bearer_token
from app.web.context import request_context

Checked = dict[str, Any]


@dataclass(frozen=True)
class Permissions:
    """What a token needs beside being good; None asks for nothing.

    `read_scope` and `write_scope` are for the operations that are not in `writes` and those that are. `tenant_host` is
    a host with `{tenant}` in it: the request's own must be the one of the token's tenant.
    """

    writes: Collection[str] = ()
    read_scope: str | None = None
    write_scope: str | None = None
    tenant_host: str | None = None

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that make a difference."""
        return frozenset(scope for scope in (self.read_scope, self.write_scope) if scope is not None)

    def require(self, principal: Principal, scope: Scope) -> None:
        """Raises Forbidden where `principal` may not do what the request in `scope` asks for."""
        if self.tenant_host is not None and _host(scope) != self.tenant_host.replace(
            TENANT_PLACEHOLDER, principal.tenant
        ):
            raise Forbidden("The token's tenant is not the host's.", RejectionReason.HOST)
        operation = scope["extensions"][ROUTING_CONTEXT]["operation_id"]
        required = self.write_scope if operation in self.writes else self.read_scope
        if required is not None and required not in principal.scopes:
            raise InsufficientScope(required)


@dataclass(frozen=True, slots=True)
class SecurityRequest:
    """What Connexion's checks, and the one below, want of a request."""

    scope: Scope

    @property
    def context(self) -> dict[str, Any]:
        """Connexion puts what the check returns into it; nothing here reads that."""
        return {}


class OperationSecurity:
    """Runs Connexion's check of one operation, without Starlette's and Connexion's objects for the request."""

    def __init__(self, operation: SecurityOperation) -> None:
        self._is_protected = bool(operation.security)
        self._verify = operation.verification_fn
        self._next_app = operation.next_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request. Raises Unauthorized, Forbidden and KeyUnavailable."""
        if self._is_protected:
            await self._verify(SecurityRequest(scope))
        await self._next_app(scope, receive, send)


class SecurityApi(SecurityAPI):
    """Makes each operation's check."""

    def make_operation(self, operation: AbstractOperation | Specification) -> OperationSecurity:  # type: ignore[override]
        """Return the check of one operation."""
        return OperationSecurity(super().make_operation(operation))


class ContractSecurity(SecurityMiddleware):
    """Stands where Connexion has its SecurityMiddleware."""

    api_cls = SecurityApi


class BearerTokenHandler(BearerSecurityHandler):
    """Puts the token's principal, and how to ask when it ends, into the context.

    Goes into the `security_map` as "bearer".
    """

    def __init__(self, tokens: TokenCache, permissions: Permissions) -> None:
        self._tokens = tokens
        self._permissions = permissions

    def get_fn(
        self, security_scheme: dict[str, Any], required_scopes: list[str]
    ) -> Callable[[SecurityRequest], Checked | Awaitable[Checked]]:
        """The check of one operation. Connexion's own would look for it in the contract and in the environment."""
        return self._check

    def _check(self, request: SecurityRequest) -> Checked | Awaitable[Checked]:
        scope = request.scope
        token = bearer_token(scope["headers"])
        verified = self._tokens.get(token)
        return self._verify(token, scope) if verified is None else self._admit(verified, scope)

    async def _verify(self, token: str, scope: Scope) -> Checked:
        return self._admit(await self._tokens.verify(token), scope)

    def _admit(self, verified: VerifiedToken, scope: Scope) -> Checked:
        principal, context = verified.principal, request_context(scope)
        context.principal = principal
        self._permissions.require(principal, scope)
        # The headers live as long as the request: an event stream holds no second copy of its token.
        context.token_expiry = functools.partial(self._expiry, scope["headers"])
        return {"sub": principal.subject}  # Connexion asks the answer for its "sub"

    async def _expiry(self, headers: list[tuple[bytes, bytes]]) -> float:
        """The end of a token that is valid now, in seconds since 1970. Raises as `TokenCache.verify` does."""
        token = bearer_token(headers)
        return (self._tokens.get(token) or await self._tokens.verify(token)).expires_at


def _host(scope: Scope) -> str | None:
    """The host that the request names, in lower case and without a port; None where it names none or several."""
    given = [value for name, value in scope["headers"] if name == b"host"]
    if len(given) != 1:
        return None
    return re.sub(r":\d*$", "", given[0].decode("latin-1").lower())
