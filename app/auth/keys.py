"""Which key verifies a token, and with which algorithms."""

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
_RSA_BITS = range(2048, 8193)  # RFC 7518, section 3.3, has the lower bound
# The usual one, 65537, has 17. With one of 2,000 bits a signature of RSA-2048 takes 2 ms to verify instead of 25 µs.
_MAX_EXPONENT_BITS = 32
MAX_KEYS = 100  # in a JWK Set, those that are passed over included
_MAX_KEY_ID = 255
_KEY_TYPES = ("RSA", "EC", "OKP")
PUBLIC_KEY_ALGORITHMS = (*_RSA_ALGORITHMS, "ES256", "ES384", "ES512", *_ED25519_ALGORITHMS)


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A key, and the only algorithms that it verifies with (RFC 8725, section 3.1). Equal to nothing but itself.

    Where it replaces a `previous` one, what that one has signed is good as well.
    """

    material: Any = field(repr=False)
    algorithms: tuple[str, ...]
    previous: "Key | None" = None


class KeySource(Protocol):
    """Where keys come from."""

    async def find(self, issuer: str | None, key_id: str | None) -> Key:
        """The key for a token whose `iss` is `issuer` and whose `kid` is `key_id`, neither of them verified.

        Raises Unauthorized where there is no such key, and KeyUnavailable where nobody can say.
        """

    def is_current(self, issuer: str | None, key: Key) -> bool:
        """Whether `key`, found earlier for `issuer`, is known to be good still, without asking anybody."""

    async def close(self) -> None:
        """Lets go of connections."""


@dataclass(frozen=True, slots=True)
class StaticKeySource:
    """The key that the settings hold: a `KeySource` for any issuer and any `kid`."""

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
    """The RSA, EC or Ed25519 key in `pem`. Raises ValueError for anything else, a private key included."""
    try:
        key = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError("unsupported key") from error
    if not algorithms_for(key):
        raise ValueError("unsupported key")
    return key


def algorithms_for(key: object) -> tuple[str, ...]:
    """The algorithms that fit a public key, its usual one first; none for a kind of key that is not supported."""
    if isinstance(key, RSAPublicKey):
        return _RSA_ALGORITHMS if _is_bounded(key) else ()
    if isinstance(key, EllipticCurvePublicKey):
        return _CURVE_ALGORITHMS.get(key.curve.name, ())
    return _ED25519_ALGORITHMS if isinstance(key, Ed25519PublicKey) else ()


def _is_bounded(key: RSAPublicKey) -> bool:
    """Return True for a key that is neither weak nor expensive to verify with."""
    return key.key_size in _RSA_BITS and key.public_numbers().e.bit_length() <= _MAX_EXPONENT_BITS


def keys_from_jwks(jwks: object, accepted: Sequence[str]) -> dict[str | None, Key]:
    """The keys of a JWK Set (RFC 7517, section 5) by their `kid`, as far as they can verify with what is `accepted`.

    Others are passed over, as that section has it: shared secrets, private keys, keys for encryption, kinds and
    algorithms that are not supported, sizes that are not reasonable. Raises ValueError for what is no JWK Set, and for
    one of more than `MAX_KEYS`.
    """
    members = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(members, list):
        raise ValueError("no JWK Set")  # noqa: TRY004 - of a document, not of an argument
    if len(members) > MAX_KEYS:
        raise ValueError(f"the JWK Set has {len(members)} keys, and at most {MAX_KEYS} are expected")
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
    """The public key of one JWK that is meant for signatures, or None."""
    operations = member.get("key_ops", ["verify"])
    usable = member.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    if not usable or "d" in member or member.get("kty") not in _KEY_TYPES:
        return None
    try:
        # Without its `alg`: PyJWK would look that up among all algorithms, shared secrets and "none" included.
        return jwt.PyJWK({name: value for name, value in member.items() if name != "alg"}).key
    except (jwt.PyJWTError, LookupError, TypeError, ValueError, AttributeError):
        return None  # PyJWT 2.15 takes the members' types for granted
