import base64
import contextlib
import datetime
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import to_base64url_uint

from app.auth.keys import (
    MAX_KEYS,
    PUBLIC_KEY_ALGORITHMS,
    algorithms_for,
    is_trusted_address,
    keys_from_jwks,
    public_key,
)
from app.errors import Mistake
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


def certificate(key: Any) -> str:
    """Return a self-signed certificate of `key` in PEM."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "id.example")])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, day, day + datetime.timedelta(days=1))
    signed = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


def bare(text: str) -> str:
    """Return the base64 in PEM, as Keycloak's console shows it."""
    return "".join(text.splitlines()[1:-1])


PKCS1 = RSA_KEYS[0].public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode()
FORMS: dict[str, Callable[[str], str]] = {
    "PEM": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "literal line ends": lambda text: text.replace("\n", "\\n"),
    "literal CRLF": lambda text: text.replace("\n", "\\r\\n"),
    "literal line ends in quotation marks": lambda text: '"' + text.strip().replace("\n", "\\n") + '"',
    "one line": lambda text: text.replace("\n", " "),
    "text around it": lambda text: f"Bag Attributes\n    friendlyName: id-example\n{text}\n{text}",
    "base64": bare,
    "base64 of the PEM": lambda text: base64.b64encode(text.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", [pem(RSA_KEYS[0]), certificate(RSA_KEYS[0]), PKCS1], ids=["key", "cert", "PKCS #1"])
def test_public_key_is_read_in_each_form_that_tools_produce(text: str, form: str) -> None:
    assert public_key(FORMS[form](text)) == RSA_KEYS[0].public_key()


@pytest.mark.parametrize("key", [EC_KEY, ED_KEY])
def test_certificate_may_have_any_supported_key(key: Any) -> None:
    assert public_key(certificate(key)) == key.public_key()


PRIVATE_PEM = RSA_KEYS[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
WEAK_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505 - tests a weak key


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it contains neither a public key nor a certificate"),
        ("nonsense!", "it is neither PEM nor base64"),
        ("ssh-rsa AAAAB3NzaC1yc2E= me@example", "it is neither PEM nor base64"),
        (str(jwk(EC_KEY)), "it is neither PEM nor base64"),
        ("/run/secrets/key.pem", "it is neither PEM nor base64"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "it contains neither a public key nor a certif"),
        (pem(EC_KEY)[:-40], "it is neither PEM nor base64"),
        (PRIVATE_PEM, "it is a private key"),
        (certificate(RSA_KEYS[0]) + PRIVATE_PEM, "it is a private key"),
        (bare(PRIVATE_PEM), "it contains neither a public key nor a certificate"),
        (pem(WEAK_KEY), "it is an RSA key of 1024 bits with an exponent of 17 bits"),
        (certificate(WEAK_KEY), "it is an RSA key of 1024 bits with an exponent of 17 bits"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "it is an EC key on the curve secp256k1"),
        (pem(ed448.Ed448PrivateKey.generate()), "it is a key of another type"),
        (pem(dsa.generate_private_key(2048)), "it is a key of another type"),
    ],
)  # fmt: skip
def test_text_that_is_no_supported_public_key_is_an_error(text: str, reason: str) -> None:
    with pytest.raises(Mistake, match=reason):
        public_key(text)


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_any_text_is_a_public_key_or_a_mistake(text: str) -> None:
    with contextlib.suppress(Mistake):
        public_key(text)


@pytest.mark.parametrize(
    "address", ["https://id.example", "http://localhost:8080/x", "http://127.0.0.1", "http://[::1]:1"]
)
def test_https_and_loopback_addresses_are_trusted(address: str) -> None:
    assert is_trusted_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://id.example",
        "ftp://localhost",
        "file:///etc/passwd",
        "localhost",
        "",
        "https://",
        "http://localhost.evil",
        "http://[::1",
    ],
)
def test_no_other_address_is_trusted(address: str) -> None:
    assert not is_trusted_address(address)


class Public:
    """A key pair without a private key."""

    def __init__(self, numbers: rsa.RSAPublicNumbers) -> None:
        self.public_key = numbers.public_key


def algorithms_by_kid(
    *members: object, accepted: tuple[str, ...] = PUBLIC_KEY_ALGORITHMS
) -> dict[str | None, tuple[str, ...]]:
    keys, _ = keys_from_jwks({"keys": list(members)}, accepted)
    return {key.key_id: key.algorithms for key in keys}


def test_jwk_is_limited_to_fitting_accepted_algorithms() -> None:
    assert algorithms_by_kid(jwk(RSA_KEYS[0], kid="a"), accepted=("RS256", "ES256")) == {"a": ("RS256",)}
    assert algorithms_by_kid(jwk(RSA_KEYS[0], kid="a", alg="RS512")) == {"a": ("RS512",)}
    assert algorithms_by_kid(jwk(RSA_KEYS[0], kid="a", alg="RS512"), accepted=("RS256",)) == {}
    assert algorithms_by_kid(jwk(EC_KEY, kid="e"), jwk(ED_KEY, kid="d")) == {"e": ("ES256",), "d": ("EdDSA",)}


@pytest.mark.parametrize(
    "fields",
    [
        {"key_ops": []}, {"key_ops": ["verify", "sign"]}, {"use": ""}, {"alg": ""}, {"d": ""}, {"x5c": [], "oth": []},
        {"value": "-----BEGIN PUBLIC KEY-----", "x5t": "AA", "x5c": ["AA"], "issuer": "https://id.example", "nbf": 1},
    ],
)  # fmt: skip
def test_jwk_of_a_provider_is_accepted(fields: dict[str, Any]) -> None:
    assert algorithms_by_kid(jwk(RSA_KEYS[0], kid="x", **fields), accepted=("RS256",)) == {"x": ("RS256",)}


def test_null_members_of_a_jwk_count_as_absent() -> None:
    nulls = dict.fromkeys(["kid", "alg", "use", "key_ops", "d", "p", "x5c"])
    assert algorithms_by_kid(jwk(RSA_KEYS[0]) | nulls, accepted=("RS256",)) == {None: ("RS256",)}


@pytest.mark.parametrize("declared", ["EdDSA", "Ed25519"])
def test_ed25519_is_another_name_of_eddsa(declared: str) -> None:
    assert algorithms_by_kid(jwk(ED_KEY, kid="x", alg=declared)) == {"x": ("EdDSA",)}
    assert algorithms_by_kid(jwk(EC_KEY, kid="x", alg=declared)) == {}
    assert algorithms_by_kid(jwk(ED_KEY, kid="x", alg=declared), accepted=("RS256",)) == {}


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (jwk(RSA_KEYS[0], use="enc"), "its use or key_ops is not for verifying signatures"),
        (jwk(RSA_KEYS[0], key_ops=["encrypt"]), "its use or key_ops is not for verifying signatures"),
        (jwk(RSA_KEYS[0], kid=1), "its kid is not a string of at most 255 characters"),
        (jwk(RSA_KEYS[0], d="AQAB"), "it is not a public key of type RSA, EC, OKP"),
        ({"kty": "MAC", "alg": "HMACSHA256", "value": "s3cret"}, "it is not a public key of type RSA, EC, OKP"),
        (jwk(RSA_KEYS[0], n=5), "its values are malformed"),
        (jwk(RSA_KEYS[0], alg="RS512"),
         "it is an RSA key of 2048 bits with an exponent of 17 bits for the alg RS512, and JWT_ALGORITHMS is RS256"),
        (jwk(EC_KEY), "it is an EC key on the curve secp256r1, and JWT_ALGORITHMS is RS256"),
        (jwk(ED_KEY), "it is an Ed25519 key, and JWT_ALGORITHMS is RS256"),
        ("x", "it is not an object"),
    ],
)  # fmt: skip
def test_ignored_jwk_has_a_reason(member: object, reason: str) -> None:
    assert keys_from_jwks({"keys": [jwk(RSA_KEYS[1]), member]}, ("RS256",))[1] == [f"key 2: {reason}"]


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "x"},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "x", "alg": "RS256"},
        jwk(RSA_KEYS[0], kid="x", alg="HS256"),
        jwk(RSA_KEYS[0], kid="x", alg="none"),
        jwk(RSA_KEYS[0], kid="x", alg=["RS256"]),
        jwk(RSA_KEYS[0], kid="x", alg={}),
        jwk(RSA_KEYS[0], kid="x", use=["sig"]),
        jwk(RSA_KEYS[0], kid="x", key_ops="verify"),
        jwk(RSA_KEYS[0], kid="x", alg="RSA-OAEP"),
        jwk(RSA_KEYS[0], kid="x", n="AA", e="AA"),
        jwk(rsa.generate_private_key(65537, 1024), kid="x"),  # noqa: S505 - tests a weak key
        {"kty": "RSA"}, {"kty": "EC", "crv": "P-256"}, {"kty": ["RSA"]}, {}, [], None, 1,
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
    with pytest.raises(Mistake, match=f"it is an RSA key of {bits} bits with an exponent of"):
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
