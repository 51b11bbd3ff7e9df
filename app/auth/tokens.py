"""Verification of tokens: signature, times, issuer, audience and the claims that the service uses."""

import contextlib
import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import jwt

from app.auth.keys import Key, KeySource, canonical
from app.errors import RejectionReason, Unauthorized
from app.model import TENANT_PATTERN, Principal, is_tenant_name

# Identity providers issue tokens of up to about 4 KiB. PyJWT takes up to 0.2 ms per KiB before it checks the signature.
MAX_TOKEN_CHARACTERS = 16 * 1024
_TIMES = frozenset({"exp", "nbf", "iat"})
_MAX_DETAIL = 200
_MAX_SUBJECT = 255  # OpenID Connect Core 1.0, section 2; each change stores the subject
_MAX_TIME = 2**53  # above it, JSON numbers are not exact (RFC 8259, section 6)
TENANT_PLACEHOLDER = "{tenant}"

# For each error of PyJWT: the message, the rejection reason, and the detail for the log, if it says more. The error's
# nearest base class in the table applies. The text of a DecodeError quotes at most one byte of the token.
_REASONS: Mapping[type[Exception], tuple[str, RejectionReason, str]] = {
    jwt.ExpiredSignatureError: ("The token has expired.", RejectionReason.EXPIRED, "'exp' is in the past"),
    jwt.ImmatureSignatureError: (
        "The token is not valid yet.",
        RejectionReason.NOT_YET_VALID,
        "'nbf' is in the future",
    ),
    jwt.InvalidAudienceError: (
        "The token is meant for another audience.",
        RejectionReason.AUDIENCE,
        "'aud' does not contain JWT_AUDIENCE, or is neither a string nor a list of strings",
    ),
    jwt.InvalidIssuerError: ("The token comes from another issuer.", RejectionReason.ISSUER, "'iss' is not JWT_ISSUER"),
    jwt.MissingRequiredClaimError: (
        "The token lacks a required claim.",
        RejectionReason.CLAIM,
        "'{error.claim}' is missing or empty",
    ),
    jwt.InvalidAlgorithmError: (
        "The token is signed with an algorithm that is not accepted.",
        RejectionReason.ALGORITHM,
        "the header's 'alg' is not in JWT_ALGORITHMS",
    ),
    jwt.InvalidSignatureError: ("The token's signature does not match.", RejectionReason.SIGNATURE, ""),
    jwt.exceptions.InvalidJTIError: ("The token is malformed.", RejectionReason.MALFORMED, "'jti' is not a string"),
    jwt.DecodeError: ("The token is malformed.", RejectionReason.MALFORMED, "{error}"),
    jwt.InvalidTokenError: (
        "The token is malformed.",
        RejectionReason.MALFORMED,
        "the header's 'kid', 'crit' or 'b64' is invalid",
    ),
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
    is the allowed clock difference in seconds. Of a token's scopes, only those in `scopes` are kept. They are in the
    claim `scope_claim`, by default in `scope` and `scp`.
    """

    keys: KeySource
    _: KW_ONLY
    tenant_claim: str = "tenant"
    scope_claim: str | None = None
    audience: str | None = None
    issuer: str | None = None
    leeway: float = 0.0
    scopes: Collection[str] = ()

    def __post_init__(self) -> None:
        with contextlib.suppress(ValueError):  # registered already; see `canonical`; PyJWT 2.15 lacks it
            jwt.register_algorithm("Ed25519", jwt.get_algorithm_by_name("EdDSA"))

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
            header = jwt.get_unverified_header(token)
            issuer = self._unverified_issuer(token)
            wanted = issuer, header.get("kid") or None, canonical(header.get("alg"))
            try:
                key, claims = self._claims(token, await self.keys.find(*wanted), issuer)
            except jwt.InvalidSignatureError:
                # A key without a kid, or with a kid that is used again, may have been replaced.
                if not await self.keys.refresh(issuer):
                    raise
                key, claims = self._claims(token, await self.keys.find(*wanted), issuer)
        except (jwt.PyJWTError, UnicodeError) as error:
            raise self._rejection(token, error) from error
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

    def _claims(self, token: str, keys: Sequence[Key], issuer: str | None) -> tuple[Key, dict[str, Any]]:
        """Return the verified claims, and the one of `keys` that has signed them."""
        for key in keys[:-1]:
            with contextlib.suppress(jwt.InvalidSignatureError):
                return key, self._claims_signed_by(key, token, issuer)
        return keys[-1], self._claims_signed_by(keys[-1], token, issuer)

    def _claims_signed_by(self, key: Key, token: str, issuer: str | None) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.material,
            algorithms=(*key.algorithms, "Ed25519") if "EdDSA" in key.algorithms else key.algorithms,
            audience=self.audience,
            issuer=issuer,
            leeway=self.leeway,
            options={
                "require": ["exp"] if self._realms else ["exp", self.tenant_claim],
                "verify_aud": self.audience is not None,
                "verify_iat": False,  # informational (RFC 7519, section 4.1.6), and clocks differ
                "verify_sub": False,  # `_principal` checks it
                "enforce_minimum_key_length": True,
            },
        )

    def _unverified_issuer(self, token: str) -> str | None:
        """Return the expected issuer that the token names. Raises PyJWTError for another issuer."""
        if self._realms is None:
            return self.issuer
        issuer = _unverified_claims(token).get("iss")
        if not isinstance(issuer, str) or not self._realms.fullmatch(issuer):
            raise jwt.InvalidIssuerError
        return issuer

    def _rejection(self, token: str, error: Exception) -> Unauthorized:
        kinds = type(error).__mro__
        kind = next((kind for kind in kinds if kind in _REASONS), jwt.InvalidTokenError)
        text, reason, detail = _REASONS[kind]
        detail = detail.format(error=error)
        if kind is jwt.InvalidIssuerError:
            detail += self._difference(_unverified_claims(token).get("iss"))
        return Unauthorized(text, reason, detail[:_MAX_DETAIL])

    def _difference(self, issuer: object) -> str:
        """Return how the issuer of a token differs from the expected one."""
        other = f"{issuer}/".removesuffix("//")
        before, placeholder, after = str(self.issuer).partition(TENANT_PLACEHOLDER)
        if self._realms.fullmatch(other) if self._realms else other == self.issuer:
            hint = "they differ in the slash at the end; "
        elif placeholder and isinstance(issuer, str) and issuer.startswith(before) and issuer.endswith(after):
            hint = "there is no valid tenant name in place of {tenant}; "
        else:
            hint = ""
        return f": {hint}it is {issuer!r}"

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
        With `scope_claim`, they are words of that claim only.
        """
        words: list[object] = []
        names = ("scope", "scp") if self.scope_claim is None else (self.scope_claim,)
        for claim in map(claims.get, names):
            if isinstance(claim, str):
                words += claim.split(" ")
            elif isinstance(claim, list):
                words += claim
        return frozenset(scope for scope in self.scopes if scope in words)


def _unverified_claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def _is_text(value: object, max_length: int) -> bool:
    """Return True for a string of at most `max_length` characters without lone surrogates, which JSON can escape."""
    if not isinstance(value, str) or len(value) > max_length:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)
