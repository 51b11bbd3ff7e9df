from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import to_base64url_uint

from app.auth.keys import MAX_KEYS, PUBLIC_KEY_ALGORITHMS, algorithms_for, keys_from_jwks, public_key
from tests.provider import RSA_KEYS, jwk, pem

EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("key", "usual", "count"),
    [
        (RSA_KEYS[0], "RS256", 6),
        (EC_KEY, "ES256", 1),
        (ec.generate_private_key(ec.SECP384R1()), "ES384", 1),
        (ec.generate_private_key(ec.SECP521R1()), "ES512", 1),
        (ED_KEY, "EdDSA", 1),
    ],
)
def test_a_key_in_pem_fits_its_own_algorithms(key: Any, usual: str, count: int) -> None:
    fitting = algorithms_for(public_key(pem(key)))
    assert (fitting[0], len(fitting)) == (usual, count)
    assert not any(name.startswith("HS") or name == "none" for name in fitting)


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        RSA_KEYS[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        pem(ed448.Ed448PrivateKey.generate()), pem(ec.generate_private_key(ec.SECP256K1())),
        pem(dsa.generate_private_key(2048)),
    ],
)  # fmt: skip
def test_text_that_is_no_supported_public_key_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message depends on the library
        public_key(text)


class Public:
    """A key pair without a private key."""

    def __init__(self, numbers: rsa.RSAPublicNumbers) -> None:
        self.public_key = numbers.public_key


def algorithms_by_kid(
    *members: object, accepted: tuple[str, ...] = PUBLIC_KEY_ALGORITHMS
) -> dict[str | None, tuple[str, ...]]:
    keys = keys_from_jwks({"keys": list(members)}, accepted)
    return {key_id: key.algorithms for key_id, key in keys.items()}


def test_jwk_is_limited_to_fitting_accepted_algorithms() -> None:
    assert algorithms_by_kid(jwk(RSA_KEYS[0], kid="a"), accepted=("RS256", "ES256")) == {"a": ("RS256",)}
    assert algorithms_by_kid(jwk(RSA_KEYS[0], kid="a", alg="RS512")) == {"a": ("RS512",)}
    assert algorithms_by_kid(jwk(RSA_KEYS[0], kid="a", alg="RS512"), accepted=("RS256",)) == {}
    assert algorithms_by_kid(jwk(EC_KEY, kid="e"), jwk(ED_KEY, kid="d")) == {"e": ("ES256",), "d": ("EdDSA",)}


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "x"},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "x", "alg": "RS256"},
        jwk(RSA_KEYS[0], kid="x", use="enc"),
        jwk(RSA_KEYS[0], kid="x", key_ops=["encrypt"]),
        jwk(RSA_KEYS[0], kid="x", alg="HS256"),
        jwk(RSA_KEYS[0], kid="x", alg="none"),
        jwk(RSA_KEYS[0], kid="x", alg=["RS256"]),
        jwk(RSA_KEYS[0], kid="x", alg={}),
        jwk(RSA_KEYS[0], kid="x", use=["sig"]),
        jwk(RSA_KEYS[0], kid="x", key_ops="verify"),
        jwk(RSA_KEYS[0], kid="x", alg="RSA-OAEP"),
        jwk(RSA_KEYS[0], kid="x", d="AQAB"),
        jwk(RSA_KEYS[0], kid=1),
        jwk(RSA_KEYS[0], kid="x", n="AA", e="AA"),
        jwk(RSA_KEYS[0], kid="x", n=5),
        jwk(rsa.generate_private_key(65537, 1024), kid="x"),  # noqa: S505 - tests a weak key
        {"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}, {"kty": ["RSA"]}, {}, [], None, "x", 1,
    ],
)  # fmt: skip
def test_jwk_that_is_no_signature_key_is_skipped(member: object) -> None:
    assert algorithms_by_kid(member, jwk(RSA_KEYS[1], kid="good")).keys() == {"good"}


def rsa_numbers(bits: int, exponent: int = 65537) -> rsa.RSAPublicNumbers:
    return rsa.RSAPublicNumbers(exponent, (1 << bits) - 1)


def rsa_member(numbers: rsa.RSAPublicNumbers, **fields: object) -> dict[str, object]:
    names = {"n": to_base64url_uint(numbers.n).decode(), "e": to_base64url_uint(numbers.e).decode()}
    return {"kty": "RSA", "use": "sig"} | names | fields


@pytest.mark.parametrize(("bits", "exponent"), [(2048, 3), (4096, 65537), (8192, 2**32 - 1)])
def test_rsa_key_of_reasonable_size_is_accepted(bits: int, exponent: int) -> None:
    numbers = rsa_numbers(bits, exponent)
    assert algorithms_by_kid(rsa_member(numbers, kid="x")).keys() == {"x"}
    assert algorithms_for(public_key(pem(Public(numbers))))


@pytest.mark.parametrize(
    ("bits", "exponent"),
    [(2047, 65537), (8193, 65537), (16384, 65537), (2048, 2**32 + 1), (2048, 2**2040 + 1)],
    ids=["weak", "large", "huge", "exponent of 33 bits", "exponent of 2,041 bits"],
)
def test_weak_or_expensive_rsa_key_is_not_accepted(bits: int, exponent: int) -> None:
    numbers = rsa_numbers(bits, exponent)
    assert algorithms_by_kid(rsa_member(numbers, kid="x")) == {}
    with pytest.raises(ValueError, match="unsupported key"):
        public_key(pem(Public(numbers)))


def test_jwk_with_a_too_long_kid_is_skipped() -> None:
    assert algorithms_by_kid(jwk(ED_KEY, kid="x" * 255), jwk(ED_KEY, kid="y" * 256)).keys() == {"x" * 255}


def test_key_set_with_too_many_members_is_an_error() -> None:
    members: list[object] = [{}] * (MAX_KEYS - 1)
    assert algorithms_by_kid(*members, jwk(ED_KEY, kid="last")).keys() == {"last"}
    with pytest.raises(ValueError, match=f"has {MAX_KEYS + 1} keys; expected at most {MAX_KEYS}"):
        algorithms_by_kid(*members, jwk(ED_KEY, kid="first"), jwk(ED_KEY, kid="last"))


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": {}}, "keys", 1])
def test_document_that_is_no_key_set_is_an_error(document: object) -> None:
    with pytest.raises(ValueError, match="not a JWK Set"):
        keys_from_jwks(document, PUBLIC_KEY_ALGORITHMS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kty", "crv", "n", "e", "x", "y", "k", "alg", "use", "kid", "key_ops"]), inner
        )
    ),
    max_leaves=10,
)
MEMBER = st.dictionaries(st.sampled_from(["n", "e", "x", "y", "alg", "use", "kid", "key_ops"]), JSON).flatmap(
    lambda rest: st.sampled_from(["RSA", "EC", "OKP", "oct"]).map(lambda kty: {"crv": "P-256", **rest, "kty": kty})
)


@given(st.lists(MEMBER | JSON, max_size=4))
def test_any_published_member_is_a_key_or_skipped(members: list[object]) -> None:
    keys_from_jwks({"keys": members}, PUBLIC_KEY_ALGORITHMS)
