"""Keys that verify tokens, the algorithms that each key may be used with, and the addresses that keys may come from."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import InvalidVersion, load_der_x509_certificate

from app.errors import Mistake

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
_MAX_SHOWN = 20  # characters of an unknown algorithm
MAX_ADDRESS_CHARACTERS: Final = 2048  # of an issuer or a key set
_KEY_TYPES = ("RSA", "EC", "OKP")
PUBLIC_KEY_ALGORITHMS = (*_RSA_ALGORITHMS, "ES256", "ES384", "ES512", *_ED25519_ALGORITHMS)


_ARMOR: Final = re.compile("-----BEGIN [^-]+-----([^-]+)-----END ")
# Line ends, also those that an environment file holds as two characters, and the quotation marks around the value.
_NOT_BASE64: Final = re.compile(r"\\[nr]|[\s\"']")


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the only algorithms that it may be used with (RFC 8725, section 3.1)."""

    material: Any = field(repr=False)
    algorithms: tuple[str, ...]
    key_id: str | None = None


class UnsupportedKey(Mistake):
    """A public key of a type or size that is not supported."""


class KeySource(Protocol):
    """A source of keys."""

    async def find(self, issuer: str | None, key_id: str | None, algorithm: object) -> Sequence[Key]:
        """Return the keys that may have signed a token with this unverified `iss`, `kid` and `alg`: one or a few.

        Raises Unauthorized if there is no such key, and KeyUnavailable if the issuer's keys cannot be fetched now.
        """

    async def refresh(self, issuer: str | None) -> bool:
        """Fetch the keys again, because none of those from `find` has signed a token. Return True if they changed."""

    def is_current(self, issuer: str | None, key: Key) -> bool:
        """Return True if `key`, from an earlier `find` for `issuer`, is still valid. Uses cached data only."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True)
class StaticKeySource:
    """A `KeySource` that returns the keys from the settings for every token. During a rotation, there are two."""

    keys: tuple[Key, ...]

    async def find(self, issuer: str | None, key_id: str | None, algorithm: object) -> Sequence[Key]:
        """See `KeySource`."""
        return self.keys

    async def refresh(self, issuer: str | None) -> bool:
        """See `KeySource`."""
        return False

    def is_current(self, issuer: str | None, key: Key) -> bool:
        """See `KeySource`."""
        return any(key is each for each in self.keys)

    async def close(self) -> None:
        """See `KeySource`."""


def public_key(text: str) -> Any:
    """Return the RSA, EC or Ed25519 public key in `text`: a public key or certificate, as PEM, its base64 or both.

    A certificate's dates and issuer are not checked. Raises UnsupportedKey for another public key, and Mistake for
    anything else, also for a private key and for several keys.
    """
    if "PRIVATE KEY" in text:
        raise Mistake("it is a private key")
    armored = set(_ARMOR.findall(text))
    if len(armored) > 1:
        raise Mistake("it contains several keys or certificates; keep only the one of the signer")
    try:
        der = base64.b64decode(_NOT_BASE64.sub("", armored.pop() if armored else text), validate=True)
    except ValueError as error:
        raise Mistake("it is neither PEM nor base64") from error
    if der.startswith(b"-----BEGIN "):
        return public_key(der.decode("ascii", "replace"))
    for load in (load_der_public_key, lambda der: load_der_x509_certificate(der).public_key()):
        try:
            key = load(der)
        except (ValueError, UnsupportedAlgorithm, InvalidVersion):
            continue
        if not algorithms_for(key):
            raise UnsupportedKey(f"it is {_described(key)}")
        return key
    raise Mistake("it contains neither a public key nor a certificate")


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


def _described(key: object) -> str:
    """Return the kind of a public key, with its size or curve."""
    if isinstance(key, RSAPublicKey):
        return f"an RSA key of {key.key_size} bits with an exponent of {key.public_numbers().e.bit_length()} bits"
    if isinstance(key, EllipticCurvePublicKey):
        return f"an EC key on the curve {key.curve.name}"
    return "an Ed25519 key" if isinstance(key, Ed25519PublicKey) else "a key of another type"


def without_query(address: str) -> str:
    """Return an address without its query, which may contain a secret."""
    return address.partition("?")[0]


def canonical(algorithm: object) -> object:
    """Return the name of a signature algorithm that `Key` uses: RFC 9864 renames EdDSA with an Ed25519 key."""
    return "EdDSA" if algorithm == "Ed25519" else algorithm


def keys_from_jwks(jwks: object, accepted: Sequence[str]) -> tuple[list[Key], list[str]]:
    """Return the keys of a JWK Set that can verify with an `accepted` algorithm, and why each other key is ignored.

    A repeated key is returned once.

    RFC 7517, section 5, recommends to ignore keys: shared secrets, private keys, encryption keys, unsupported types and
    algorithms, unreasonable sizes. Raises Mistake if `jwks` is not a JWK Set or has more than `MAX_KEYS` keys.
    """
    members = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(members, list):
        raise Mistake("the document is not a JWK Set")
    if len(members) > MAX_KEYS:
        raise Mistake(f"the JWK Set has {len(members)} keys; expected at most {MAX_KEYS}")
    keys: list[Key] = []
    ignored: list[str] = []
    for number, member in enumerate(members, 1):
        try:
            key = _key(member, accepted)
        except Mistake as mistake:
            ignored.append(f"key {number}: {mistake}")
        else:
            if key not in keys:
                keys.append(key)
    return keys, ignored


def _key(member: object, accepted: Sequence[str]) -> Key:
    """Return the key of a JWK. Raises Mistake if it cannot verify signatures with an accepted algorithm."""
    if not isinstance(member, dict):
        raise Mistake("it is not an object")
    # Some libraries write members without a value.
    jwk = {name: value for name, value in member.items() if value not in (None, "", [])}
    key_id, declared = jwk.get("kid"), canonical(jwk.pop("alg", None))
    operations = jwk.get("key_ops", ["verify"])
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= _MAX_KEY_ID):
        raise Mistake(f"its kid is not a string of at most {_MAX_KEY_ID} characters")
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise Mistake("its use or key_ops is not for verifying signatures")
    if "d" in jwk or jwk.get("kty") not in _KEY_TYPES:
        raise Mistake(f"it is not a public key of type {', '.join(_KEY_TYPES)}")
    try:
        # Without `alg`, because PyJWK would accept any algorithm in it, also those of shared secrets and "none".
        material = jwt.PyJWK(jwk).key
    except (jwt.PyJWTError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise Mistake("its values are malformed") from error  # PyJWT 2.15 does not check the types of members
    fitting = algorithms_for(material)
    algorithms = tuple(name for name in accepted if name in fitting and declared in (None, name))
    if not algorithms:
        use = "" if declared is None else f" for the alg {str(declared)[:_MAX_SHOWN]}"
        raise Mistake(f"it is {_described(material)}{use}, and JWT_ALGORITHMS is {','.join(accepted)}")
    return Key(material, algorithms, key_id)


def is_trusted_address(address: str) -> bool:
    """Return True for a short ASCII https URL, or http URL with a loopback host, without user and fragment."""
    # `urlsplit` normalizes other hosts than ASCII ones, in time that grows with the square of their length.
    if len(address) > MAX_ADDRESS_CHARACTERS or not address.isascii():
        return False
    try:
        url = urlsplit(address)
        if url.fragment or url.port == 0 or url.username is not None:
            return False
    except ValueError:  # invalid host or port
        return False
    loopback = url.hostname in {"localhost", "127.0.0.1", "::1"}
    return bool(url.hostname) and (url.scheme == "https" or (url.scheme == "http" and loopback))
