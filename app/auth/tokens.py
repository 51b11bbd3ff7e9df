"""Token text in, `Principal` out."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from app.auth.keys import Key, KeySource
from app.errors import RejectionReason, Unauthorized
from app.model import TENANT_PATTERN, Principal, is_tenant_name

# A talkative identity provider issues tokens of 4 KiB. PyJWT needs up to 0.2 ms for each KiB, before any signature is
# verified.
MAX_TOKEN_CHARACTERS = 16 * 1024
_TIMES = frozenset({"exp", "nbf", "iat"})
_MAX_SUBJECT = 255  # OpenID Connect Core 1.0, section 2; it is stored with each change
_MAX_TIME = 2**53  # beyond it a JSON number is not exact (RFC 8259, section 6)
TENANT_PLACEHOLDER = "{tenant}"

# What a refusal says, by what PyJWT found; the nearest class in the error's line of descent counts.
_REASONS: Mapping[type[Exception], tuple[str, RejectionReason]] = {
    jwt.ExpiredSignatureError: ("The token has expired.", RejectionReason.EXPIRED),
    jwt.ImmatureSignatureError: ("The token is not valid yet.", RejectionReason.NOT_YET_VALID),
    jwt.InvalidAudienceError: ("The token is meant for another audience.", RejectionReason.AUDIENCE),
    jwt.InvalidIssuerError: ("The token comes from another issuer.", RejectionReason.ISSUER),
    jwt.MissingRequiredClaimError: ("The token lacks a claim that is required.", RejectionReason.CLAIM),
    jwt.InvalidAlgorithmError: (
        "The token is signed with an algorithm that is not accepted.",
        RejectionReason.ALGORITHM,
    ),
    jwt.InvalidSignatureError: ("The token's signature does not match.", RejectionReason.SIGNATURE),
    jwt.InvalidTokenError: ("The token is malformed.", RejectionReason.MALFORMED),
}


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a token says, with all that has to hold for it to go on saying so."""

    principal: Principal
    expires_at: float
    issuer: str | None
    key: Key


class TokenVerifier:
    """Verifies tokens with the keys of a `KeySource`.

    `audience` and `issuer` are compared exactly where they are set; a token's `aud` counts for nothing where no
    audience is expected. Where the issuer holds `{tenant}`, what stands in that place is the tenant, and nothing else
    is; otherwise the claim `tenant_claim` names it. `leeway` is in seconds, for clocks that differ. Only `scopes` are
    kept of the scopes that a token has.
    """

    def __init__(  # noqa: PLR0913 - each is a setting
        self,
        keys: KeySource,
        *,
        tenant_claim: str = "tenant",
        audience: str | None = None,
        issuer: str | None = None,
        leeway: float = 0.0,
        scopes: Collection[str] = (),
    ) -> None:
        self._keys = keys
        self._realms = _realm_pattern(issuer) if issuer and TENANT_PLACEHOLDER in issuer else None
        self._tenant_claim = tenant_claim
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self._scopes = scopes
        self._required = ["exp"] if self._realms else ["exp", tenant_claim]

    async def verify(self, token: str) -> VerifiedToken:
        """What `token` says and speaks for.

        Raises Unauthorized for whatever is wrong with the token: form, signature, algorithm, time, audience, issuer, or
        a claim that is missing or of the wrong type (RFC 8725, sections 3.1 to 3.10). Raises KeyUnavailable where its
        issuer does not tell its keys.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise Unauthorized(f"The token is longer than {MAX_TOKEN_CHARACTERS} characters.")
        try:
            issuer, key_id = self._asked_for(token)
            key = await self._keys.find(issuer, key_id)
            claims = self._claims(token, key, issuer)
        except (jwt.PyJWTError, UnicodeError) as error:
            raise Unauthorized(*_reason(error)) from error
        for claim in _TIMES & claims.keys():
            # PyJWT accepts whatever `int()` takes; RFC 7519, section 2, has a JSON number ("NumericDate").
            if type(claims[claim]) not in {int, float} or not abs(claims[claim]) < _MAX_TIME:
                raise Unauthorized(f"The token's claim '{claim}' must be a number.", RejectionReason.CLAIM)
        return VerifiedToken(self._principal(claims), claims["exp"] + self._leeway, issuer, key)

    def is_current(self, verified: VerifiedToken, now: float) -> bool:
        """Whether what was verified earlier is still good at `now`, in seconds since 1970, as far as is known here."""
        return now < verified.expires_at and self._keys.is_current(verified.issuer, verified.key)

    async def close(self) -> None:
        """Lets go of the keys' connections."""
        await self._keys.close()

    def _claims(self, token: str, key: Key, issuer: str | None) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=key.algorithms,
                audience=self._audience,
                issuer=issuer,
                leeway=self._leeway,
                options={
                    "require": self._required,
                    "verify_aud": self._audience is not None,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.InvalidSignatureError:
            if key.previous is None:
                raise
            return self._claims(token, key.previous, issuer)

    def _asked_for(self, token: str) -> tuple[str | None, str | None]:
        """The issuer whose key the token claims, which is one that is expected, and the key's identifier."""
        key_id = jwt.get_unverified_header(token).get("kid")
        if self._realms is None:
            return self._issuer, key_id
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        if not isinstance(issuer, str) or not self._realms.fullmatch(issuer):
            raise jwt.InvalidIssuerError
        return issuer, key_id

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        subject = claims.get("sub")
        if subject is not None and not _is_text(subject, _MAX_SUBJECT):
            text = f"The token's claim 'sub' must be a string of {_MAX_SUBJECT} characters at the most."
            raise Unauthorized(text, RejectionReason.CLAIM)
        return Principal(self._tenant(claims), subject, self._granted(claims))

    def _tenant(self, claims: Mapping[str, Any]) -> str:
        if self._realms and (realm := self._realms.fullmatch(claims["iss"])):
            return realm["tenant"]
        tenant = claims[self._tenant_claim]
        if not is_tenant_name(tenant):
            raise Unauthorized(
                f"The token's claim '{self._tenant_claim}' does not name a tenant.", RejectionReason.CLAIM
            )
        return str(tenant)

    def _granted(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """The scopes that matter and are in the token.

        They are words of `scope` (RFC 8693, section 4.2), or of `scp`, which is text or a list elsewhere.
        """
        words: list[object] = []
        for claim in (claims.get("scope"), claims.get("scp")):
            if isinstance(claim, str):
                words += claim.split(" ")
            elif isinstance(claim, list):
                words += claim
        return frozenset(scope for scope in self._scopes if scope in words)


def _realm_pattern(template: str) -> re.Pattern[str]:
    before, after = map(re.escape, template.split(TENANT_PLACEHOLDER))
    return re.compile(f"{before}(?P<tenant>{TENANT_PATTERN}){after}", re.ASCII)


def _reason(error: Exception) -> tuple[str, RejectionReason]:
    kinds = type(error).__mro__
    return next((_REASONS[kind] for kind in kinds if kind in _REASONS), _REASONS[jwt.InvalidTokenError])


def _is_text(value: object, most: int) -> bool:
    """Return True for a string of at most `most` whole characters: JSON can spell halves of them ("\\ud800")."""
    if not isinstance(value, str) or len(value) > most:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)
