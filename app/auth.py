"""Token text in, `Principal` out. Knows JSON Web Tokens (RFC 7519) and nothing of HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from app.errors import Unauthorized
from app.model import Principal, is_tenant_name

# What a refusal says, by what PyJWT found; the nearest class in the error's line of descent counts.
_REASONS: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "The token has expired.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidAudienceError: "The token is meant for another audience.",
    jwt.InvalidIssuerError: "The token comes from another issuer.",
    jwt.MissingRequiredClaimError: "The token lacks a claim that is required.",
    jwt.InvalidAlgorithmError: "The token is signed with an algorithm that is not accepted.",
    jwt.InvalidSignatureError: "The token's signature does not match.",
    jwt.InvalidTokenError: "The token is malformed.",
}

# Beside its own errors PyJWT 2.15 lets these through for claims of a wrong type, for headers nested too deep and for
# bytes that are no text.
_MANGLED = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class TokenVerifier:
    """Verifies tokens signed with a shared secret.

    `audience` and `issuer` are compared exactly where they are set; a token's `aud` counts for nothing where no
    audience is expected. `leeway` is in seconds, for clocks that differ.
    """

    secret: str = field(repr=False)
    tenant_claim: str = "tenant"
    audience: str | None = None
    issuer: str | None = None
    leeway: float = 0.0

    def verify(self, token: str) -> Principal:
        """The principal that `token` speaks for.

        Raises `Unauthorized` for whatever is wrong with the token: form, signature, algorithm, time, audience, issuer,
        or a claim that is missing or of the wrong type (RFC 8725, sections 3.1 and 3.10).
        """
        try:
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=["HS256"],
                audience=self.audience,
                issuer=self.issuer,
                leeway=self.leeway,
                options={"require": ["exp", self.tenant_claim], "verify_aud": self.audience is not None},
            )
        except _MANGLED as error:
            raise Unauthorized(_reason(error)) from error
        return self._principal(claims)

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        expiry, tenant, subject = claims["exp"], claims[self.tenant_claim], claims.get("sub")
        # PyJWT accepts whatever `int()` takes; RFC 7519, section 2, has a JSON number ("NumericDate").
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            raise Unauthorized("The token's claim 'exp' must be a number.")
        if not is_tenant_name(tenant):
            raise Unauthorized(f"The token's claim '{self.tenant_claim}' does not name a tenant.")
        if subject is not None and not _is_text(subject):
            raise Unauthorized("The token's claim 'sub' must be a string.")
        return Principal(tenant, subject)


def _reason(error: Exception) -> str:
    kinds = type(error).__mro__
    return next((_REASONS[kind] for kind in kinds if kind in _REASONS), _REASONS[jwt.InvalidTokenError])


def _is_text(value: object) -> bool:
    """Whether `value` is a string of whole characters: JSON can spell halves of them ("\\ud800")."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
