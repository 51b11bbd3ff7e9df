"""Verification of tokens: signature, times, issuer, audience and the claims that the service uses."""

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jwt

from app.auth.keys import Key, KeySource
from app.errors import RejectionReason, Unauthorized
from app.model import TENANT_PATTERN, Principal, is_tenant_name

# Identity providers issue tokens of up to about 4 KiB. PyJWT takes up to 0.2 ms per KiB before it checks the signature.
MAX_TOKEN_CHARACTERS = 16 * 1024
_TIMES = frozenset({"exp", "nbf", "iat"})
_MAX_SUBJECT = 255  # OpenID Connect Core 1.0, section 2; each change stores the subject
_MAX_TIME = 2**53  # above it, JSON numbers are not exact (RFC 8259, section 6)
TENANT_PLACEHOLDER = "{tenant}"

# The message and the rejection reason for each error of PyJWT. The error's nearest base class in the table applies.
_REASONS: Mapping[type[Exception], tuple[str, RejectionReason]] = {
    jwt.ExpiredSignatureError: ("The token has expired.", RejectionReason.EXPIRED),
    jwt.ImmatureSignatureError: ("The token is not valid yet.", RejectionReason.NOT_YET_VALID),
    jwt.InvalidAudienceError: ("The token is meant for another audience.", RejectionReason.AUDIENCE),
    jwt.InvalidIssuerError: ("The token comes from another issuer.", RejectionReason.ISSUER),
    jwt.MissingRequiredClaimError: ("The token lacks a required claim.", RejectionReason.CLAIM),
    jwt.InvalidAlgorithmError: (
        "The token is signed with an algorithm that is not accepted.",
        RejectionReason.ALGORITHM,
    ),
    jwt.InvalidSignatureError: ("The token's signature does not match.", RejectionReason.SIGNATURE),
    jwt.InvalidTokenError: ("The token is malformed.", RejectionReason.MALFORMED),
}


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """The principal of a verified token, and the conditions under which the token stays valid.

    `expires_at` is in seconds since 1970 and includes the leeway.
    """

    principal: Principal
    expires_at: float
    issuer: str | None
    key: Key


@dataclass(frozen=True)
class TokenVerifier:
    """Verifies tokens with the keys of a `KeySource`.

    `audience` and `issuer` must match exactly if they are set. Without `audience`, a token's `aud` is ignored. If the
    issuer contains `{tenant}`, that part of `iss` is the tenant. Otherwise the claim `tenant_claim` names it. `leeway`
    is the allowed clock difference in seconds. Of a token's scopes, only those in `scopes` are kept.
    """

    keys: KeySource
    _: KW_ONLY
    tenant_claim: str = "tenant"
    audience: str | None = None
    issuer: str | None = None
    leeway: float = 0.0
    scopes: Collection[str] = ()

    @functools.cached_property
    def _realms(self) -> re.Pattern[str] | None:
        """The pattern of the issuers of all tenants, or None if there is one issuer."""
        if self.issuer is None or TENANT_PLACEHOLDER not in self.issuer:
            return None
        before, after = map(re.escape, self.issuer.split(TENANT_PLACEHOLDER))
        return re.compile(f"{before}(?P<tenant>{TENANT_PATTERN}){after}", re.ASCII)

    async def verify(self, token: str) -> VerifiedToken:
        """Verify `token` and return it.

        Raises Unauthorized if the token is rejected: form, signature, algorithm, times, audience, issuer, or a claim
        that is missing or has the wrong type (RFC 8725, sections 3.1 to 3.10). Raises KeyUnavailable if the issuer's
        keys cannot be fetched now.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            text = f"The token is longer than {MAX_TOKEN_CHARACTERS} characters."
            raise Unauthorized(text, RejectionReason.MALFORMED)
        try:
            issuer, key_id = self._unverified_issuer_and_key_id(token)
            key = await self.keys.find(issuer, key_id)
            claims = self._claims(token, key, issuer)
        except (jwt.PyJWTError, UnicodeError) as error:
            raise Unauthorized(*_reason(error)) from error
        for claim in _TIMES & claims.keys():
            # PyJWT accepts all that `int()` accepts. RFC 7519, section 2, requires a JSON number ("NumericDate").
            if type(claims[claim]) not in {int, float} or not abs(claims[claim]) < _MAX_TIME:
                raise Unauthorized(f"The token's claim '{claim}' must be a number.", RejectionReason.CLAIM)
        return VerifiedToken(self._principal(claims), claims["exp"] + self.leeway, issuer, key)

    def is_current(self, verified: VerifiedToken, now: float) -> bool:
        """Return True if `verified` is still valid at `now`, in seconds since 1970. Uses cached keys only."""
        return now < verified.expires_at and self.keys.is_current(verified.issuer, verified.key)

    async def close(self) -> None:
        """Close the connections of the key source."""
        await self.keys.close()

    def _claims(self, token: str, key: Key, issuer: str | None) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=key.algorithms,
                audience=self.audience,
                issuer=issuer,
                leeway=self.leeway,
                options={
                    "require": ["exp"] if self._realms else ["exp", self.tenant_claim],
                    "verify_aud": self.audience is not None,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.InvalidSignatureError:
            if key.previous is None:
                raise
            return self._claims(token, key.previous, issuer)

    def _unverified_issuer_and_key_id(self, token: str) -> tuple[str | None, str | None]:
        """Return the expected issuer that the token names, and the key ID. Raises PyJWTError for another issuer."""
        key_id = jwt.get_unverified_header(token).get("kid")
        if self._realms is None:
            return self.issuer, key_id
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        if not isinstance(issuer, str) or not self._realms.fullmatch(issuer):
            raise jwt.InvalidIssuerError
        return issuer, key_id

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        subject = claims.get("sub")
        if subject is not None and not _is_text(subject, _MAX_SUBJECT):
            text = f"The token's claim 'sub' must be a string of at most {_MAX_SUBJECT} characters."
            raise Unauthorized(text, RejectionReason.CLAIM)
        return Principal(self._tenant(claims), subject, self._granted(claims))

    def _tenant(self, claims: Mapping[str, Any]) -> str:
        if self._realms and (realm := self._realms.fullmatch(claims["iss"])):
            return realm["tenant"]
        tenant = claims[self.tenant_claim]
        if not is_tenant_name(tenant):
            raise Unauthorized(
                f"The token's claim '{self.tenant_claim}' does not name a tenant.", RejectionReason.CLAIM
            )
        return str(tenant)

    def _granted(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """Return the token's scopes that are in `scopes`.

        They are words of `scope` (RFC 8693, section 4.2), or of `scp`, which some providers send as text or a list.
        """
        words: list[object] = []
        for claim in (claims.get("scope"), claims.get("scp")):
            if isinstance(claim, str):
                words += claim.split(" ")
            elif isinstance(claim, list):
                words += claim
        return frozenset(scope for scope in self.scopes if scope in words)


def _reason(error: Exception) -> tuple[str, RejectionReason]:
    kinds = type(error).__mro__
    return next((_REASONS[kind] for kind in kinds if kind in _REASONS), _REASONS[jwt.InvalidTokenError])


def _is_text(value: object, max_length: int) -> bool:
    """Return True for a string of at most `max_length` characters without lone surrogates, which JSON can escape."""
    if not isinstance(value, str) or len(value) > max_length:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)
