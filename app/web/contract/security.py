"""Verifies the bearer token of a request, and checks what a valid token permits."""

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass

from starlette.types import Scope

from app.auth.token_cache import TokenCache
from app.auth.tokens import TENANT_PLACEHOLDER, VerifiedToken
from app.errors import Forbidden, InsufficientScope, RejectionReason
from app.model import Principal
from app.web.bearer_token import bearer_token
from app.web.context import Header, request_context, single_header


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

    def require(self, principal: Principal, operation_id: str, headers: list[Header]) -> None:
        """Raise Forbidden if `principal` may not use the operation, or not on the host in `headers`."""
        if self.tenant_host is not None and _host(headers) != self.tenant_host.replace(
            TENANT_PLACEHOLDER, principal.tenant
        ):
            raise Forbidden("The token's tenant is not the tenant of the host.", RejectionReason.HOST)
        required = self.write_scope if operation_id in self.writes else self.read_scope
        if required is not None and required not in principal.scopes:
            raise InsufficientScope(required)


class BearerSecurity:
    """Verifies bearer tokens. Puts the principal, and a function for the token's expiry, into the request's context."""

    def __init__(self, tokens: TokenCache, permissions: Permissions) -> None:
        self._tokens = tokens
        self._permissions = permissions

    async def check(self, scope: Scope, operation_id: str) -> None:
        """Check the token of the request in `scope`. Raises Unauthorized, Forbidden or KeyUnavailable."""
        headers = scope["headers"]
        principal = (await self._verified(headers)).principal
        context = request_context(scope)
        context.principal = principal
        self._permissions.require(principal, operation_id, headers)
        # The headers live as long as the request, so that an event stream keeps no second copy of its token.
        context.token_expiry = functools.partial(self._expiry, headers)

    async def _verified(self, headers: list[Header]) -> VerifiedToken:
        token = bearer_token(headers)
        return self._tokens.get(token) or await self._tokens.verify(token)

    async def _expiry(self, headers: list[Header]) -> float:
        """Return the expiry of a token that is valid now, in seconds since 1970. Raises as `TokenCache.verify` does."""
        return (await self._verified(headers)).expires_at


def _host(headers: list[Header]) -> str:
    """Return the host in lower case, without its port and without the dot at the end of a fully qualified name.

    Returns nothing if the request does not have exactly one host.
    """
    host = re.sub(r":\d*$", "", single_header(headers, b"host").decode("latin-1").lower())
    return host.removesuffix(".")
