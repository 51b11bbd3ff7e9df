"""Keys that verify tokens, and the algorithms that each key may be used with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVE_ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "secp256r1": ("ES256",),
    "secp384r1": ("ES384",),
    "secp521r1": ("ES512",),
}
_ED25519_ALGORITHMS = ("EdDSA",)
_RSA_BITS = range(2048, 8193)  # RFC 7518, section 3.3, sets the minimum
# The usual exponent, 65537, has 17 bits. With 2,000 bits, RSA-2048 takes 2 ms per signature instead of 25 µs.
_MAX_EXPONENT_BITS = 32
MAX_KEYS = 100  # in a JWK Set, unusable keys included
_MAX_KEY_ID = 255
_KEY_TYPES = ("RSA", "EC", "OKP")
PUBLIC_KEY_ALGORITHMS = (*_RSA_ALGORITHMS, "ES256", "ES384", "ES512", *_ED25519_ALGORITHMS)


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the only algorithms that it may be used with (RFC 8725, section 3.1).

    During a rotation, `previous` is the key that it replaces. Signatures of either key are accepted.
    """

    material: Any = field(repr=False)
    algorithms: tuple[str, ...]
    previous: "Key | None" = None


class KeySource(Protocol):
    """A source of keys."""

    async def find(self, issuer: str | None, key_id: str | None) -> Key:
        """Return the key for a token whose unverified `iss` is `issuer` and whose unverified `kid` is `key_id`.

        Raises Unauthorized if there is no such key, and KeyUnavailable if the issuer's keys cannot be fetched now.
        """

    def is_current(self, issuer: str | None, key: Key) -> bool:
        """Return True if `key`, from an earlier `find` for `issuer`, is still valid. Uses cached data only."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True)
class StaticKeySource:
    """A `KeySource` that returns the key from the settings for every issuer and every `kid`."""

    key: Key

    async def find(self, issuer: str | None, key_id: str | None) -> Key:
        """See `KeySource`."""
        return self.key

    def is_current(self, issuer: str | None, key: Key) -> bool:
        """See `KeySource`."""
        return key is self.key

    async def close(self) -> None:
        """See `KeySource`."""


def public_key(pem: str) -> Any:
    """Return the RSA, EC or Ed25519 public key in `pem`. Raises ValueError for anything else, also a private key."""
    try:
        key = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError("unsupported key") from error
    if not algorithms_for(key):
        raise ValueError("unsupported key")
    return key


def algorithms_for(key: object) -> tuple[str, ...]:
    """Return the algorithms that fit a public key, the usual one first, or () if the key is not supported."""
    if isinstance(key, RSAPublicKey):
        return _RSA_ALGORITHMS if _is_bounded(key) else ()
    if isinstance(key, EllipticCurvePublicKey):
        return _CURVE_ALGORITHMS.get(key.curve.name, ())
    return _ED25519_ALGORITHMS if isinstance(key, Ed25519PublicKey) else ()


def _is_bounded(key: RSAPublicKey) -> bool:
    """Return True for a key that is neither weak nor expensive to verify with."""
    return key.key_size in _RSA_BITS and key.public_numbers().e.bit_length() <= _MAX_EXPONENT_BITS


def keys_from_jwks(jwks: object, accepted: Sequence[str]) -> dict[str | None, Key]:
    """Return the keys of a JWK Set by `kid` that can verify with at least one of the `accepted` algorithms.

    Other keys are ignored, as RFC 7517, section 5, recommends: shared secrets, private keys, encryption keys,
    unsupported types and algorithms, unreasonable sizes. Raises ValueError if `jwks` is not a JWK Set or has more than
    `MAX_KEYS` keys.
    """
    members = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(members, list):
        raise ValueError("the document is not a JWK Set")  # noqa: TRY004 - fetched data, not a wrong argument type
    if len(members) > MAX_KEYS:
        raise ValueError(f"the JWK Set has {len(members)} keys; expected at most {MAX_KEYS}")
    found: dict[str | None, Key] = {}
    for member in members:
        if isinstance(member, dict) and _is_key_id(kid := member.get("kid")):
            material = _material(member)
            declared = member.get("alg")
            fitting = algorithms_for(material)
            algorithms = tuple(name for name in accepted if name in fitting and (declared is None or declared == name))
            if algorithms:
                found[kid] = Key(material, algorithms)
    return found


def _is_key_id(kid: object) -> bool:
    return kid is None or (isinstance(kid, str) and len(kid) <= _MAX_KEY_ID)


def _material(member: Mapping[str, Any]) -> object:
    """Return the public key of a JWK, or None if it is malformed or not meant for signatures."""
    operations = member.get("key_ops", ["verify"])
    usable = member.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not usable or "d" in member or member.get("kty") not in _KEY_TYPES:
        return None
    try:
        # Leave out `alg`, because PyJWK would accept any algorithm in it, also those of shared secrets and "none".
        return jwt.PyJWK({name: value for name, value in member.items() if name != "alg"}).key
    except (jwt.PyJWTError, LookupError, TypeError, ValueError, AttributeError):
        return None  # PyJWT 2.15 does not check the types of members
