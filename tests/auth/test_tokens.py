import base64
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import example, given
from hypothesis import strategies as st

from app.auth.keys import SECRET_ALGORITHMS, Key, StaticKeySource
from app.auth.tokens import MAX_TOKEN_CHARACTERS, TokenVerifier
from app.errors import Unauthorized
from app.model import Principal
from tests.processes import SECRET, make_token
from tests.provider import RSA_KEYS, PrivateKey

NOW = int(time.time())


def make_verifier(secret: str = SECRET, algorithms: tuple[str, ...] = ("HS256",), **options: Any) -> TokenVerifier:
    return TokenVerifier(StaticKeySource(Key(secret, algorithms)), **options)


VERIFIER = make_verifier()


def verify(token: str, verifier: TokenVerifier = VERIFIER) -> Principal:
    """A key that is at hand needs no waiting, and so no event loop."""
    with pytest.raises(StopIteration) as done:
        verifier.verify(token).send(None)
    principal: Principal = done.value.value.principal
    return principal


def refusal(token: str, verifier: TokenVerifier = VERIFIER) -> str:
    with pytest.raises(Unauthorized) as raised:
        verifier.verify(token).send(None)
    return str(raised.value)


def encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def signed(payload: str, header: str = '{"alg":"HS256","typ":"JWT"}') -> str:
    """A token with a good signature over any text."""
    algorithm = jwt.get_algorithm_by_name("HS256")
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in (header, payload)]
    signature = algorithm.sign(b".".join(parts), algorithm.prepare_key(SECRET))
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_a_good_token_speaks_for_its_tenant_and_subject() -> None:
    assert verify(make_token("acme", sub="anna")) == Principal("acme", "anna")


def test_a_token_needs_no_subject() -> None:
    assert verify(make_token("acme", sub=None)) == Principal("acme", None)


@pytest.mark.parametrize("tenant", ["a", "0", "a-b_c", "x" * 63, "9" * 63, "tenant-1"])
def test_a_tenant_name_is_1_to_63_of_its_characters(tenant: str) -> None:
    assert verify(make_token(tenant)).tenant == tenant


@pytest.mark.parametrize(
    "tenant",
    ["", "-a", "a-", "_", "A", "a b", "a\n", "ä", "٣", "x" * 64, "a}{b", "a:b", "*", 1, 1.5, True, [], ["acme"], {}],
)
def test_a_tenant_that_is_no_name_is_refused(tenant: object) -> None:
    assert refusal(make_token(tenant)) == "The token's claim 'tenant' does not name a tenant."


@pytest.mark.parametrize("claim", ["tenant", "exp"])
def test_a_claim_that_is_required_may_not_be_missing_or_null(claim: str) -> None:
    claims = {"tenant": "acme", "exp": NOW + 3600}
    assert refusal(jwt.encode({**claims, claim: None}, SECRET)) == "The token lacks a required claim."
    del claims[claim]
    assert refusal(jwt.encode(claims, SECRET)) == "The token lacks a required claim."


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": NOW - 1}, "The token has expired."),
        ({"exp": 0}, "The token has expired."),
        ({"nbf": NOW + 3600}, "The token is not valid yet."),
        ({"iat": NOW + 3600}, "The token is not valid yet."),
        ({"exp": str(NOW + 3600)}, "The token's claim 'exp' must be a number."),
        ({"exp": True}, "The token has expired."),
        ({"exp": [NOW + 3600]}, "The token is malformed."),
        ({"exp": {}}, "The token is malformed."),
        ({"nbf": str(NOW)}, "The token's claim 'nbf' must be a number."),
        ({"iat": " 1_0 "}, "The token's claim 'iat' must be a number."),
        ({"nbf": True}, "The token's claim 'nbf' must be a number."),
        ({"nbf": "soon"}, "The token is malformed."),
        ({"nbf": []}, "The token is malformed."),
        ({"iat": "soon"}, "The token is malformed."),
        ({"iat": {}}, "The token is malformed."),
        ({"sub": 1}, "The token is malformed."),
        ({"sub": ["anna"]}, "The token is malformed."),
        ({"sub": "\ud800"}, "The token's claim 'sub' must be a string of at most 255 characters."),
        ({"sub": "x" * 256}, "The token's claim 'sub' must be a string of at most 255 characters."),
        ({"jti": 1}, "The token is malformed."),
    ],
)
def test_each_claim_is_checked_with_its_type(claims: dict[str, object], reason: str) -> None:
    assert refusal(make_token("acme", **claims)) == reason


@pytest.mark.parametrize(
    "exp",
    [
        "1" + "0" * 400,
        "1e300",
        "9007199254740993",
        "1e400",
        "-1e400",
        "NaN",
        "Infinity",
        "9" * 5000,
        "null",
        "[" * 30000 + "]" * 30000,
    ],
)
def test_an_expiry_that_is_no_time_is_refused(exp: str) -> None:
    refusal(signed(f'{{"tenant":"acme","exp":{exp}}}'))


def test_a_token_that_is_too_long_is_rejected_without_parsing() -> None:
    reason = f"The token is longer than {MAX_TOKEN_CHARACTERS} characters."
    room = MAX_TOKEN_CHARACTERS * 3 // 4 - len(make_token("acme"))
    assert verify(make_token("acme", padding="x" * room)).tenant == "acme"
    assert refusal(make_token("acme", padding="x" * MAX_TOKEN_CHARACTERS)) == reason
    assert refusal("." * 50_000_000) == reason


def test_leeway_bridges_clocks_that_differ() -> None:
    token = make_token("acme", exp=int(time.time()) - 5)
    assert verify(token, make_verifier(leeway=60)).tenant == "acme"
    assert refusal(token, make_verifier(leeway=1)) == "The token has expired."


def test_the_audience_counts_where_one_is_expected() -> None:
    verifier = make_verifier(audience="oms")
    assert verify(make_token("acme", aud="oms"), verifier).tenant == "acme"
    assert verify(make_token("acme", aud=["other", "oms"]), verifier).tenant == "acme"
    assert refusal(make_token("acme", aud="OMS"), verifier) == "The token is meant for another audience."
    assert refusal(make_token("acme", aud=[1]), verifier)
    assert refusal(make_token("acme"), verifier) == "The token lacks a required claim."
    assert verify(make_token("acme", aud="anything")).tenant == "acme"


def test_the_issuer_counts_where_one_is_expected() -> None:
    verifier = make_verifier(issuer="https://id.example.net")
    assert verify(make_token("acme", iss="https://id.example.net"), verifier).tenant == "acme"
    assert (
        refusal(make_token("acme", iss="https://id.example.net/"), verifier) == "The token comes from another issuer."
    )
    assert refusal(
        signed(json.dumps({"tenant": "acme", "exp": NOW + 3600, "iss": ["https://id.example.net"]})), verifier
    )
    assert refusal(make_token("acme"), verifier) == "The token lacks a required claim."


def test_the_tenants_claim_can_have_another_name() -> None:
    verifier = make_verifier(tenant_claim="realm")
    assert verify(make_token("other", realm="acme"), verifier).tenant == "acme"
    assert refusal(make_token("acme"), verifier) == "The token lacks a required claim."


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "none"])
def test_another_algorithm_is_refused(algorithm: str) -> None:
    secret = "x" * 64
    token = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, "" if algorithm == "none" else secret, algorithm)
    assert refusal(token, make_verifier(secret)) == "The token is signed with an algorithm that is not accepted."


def test_another_secret_is_refused() -> None:
    token = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, "x" * 32)
    assert refusal(token) == "The token's signature does not match."


@pytest.mark.parametrize(
    "header",
    [
        "[]", "1", "null", '"x"', "{}", '{"alg":["HS256"]}', '{"alg":{}}', '{"alg":null}', '{"alg":"HS256","kid":1}',
        '{"alg":"HS256","crit":["exp"],"exp":1}', '{"alg":"HS256","b64":false}', "[" * 100_000, '{"a":' * 20_000, "{",
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(header: str) -> None:
    refusal(signed(json.dumps({"tenant": "acme", "exp": NOW + 3600}), header))


@pytest.mark.parametrize("payload", ["", "[]", "1", "null", '"x"', "{", "[" * 100_000, "\ud7ff{}"])
def test_a_payload_that_is_none_is_refused(payload: str) -> None:
    refusal(signed(payload))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
@example("..")
@example("a.b.c")
@example("." * 1000)
@example("é.é.é")
@example("\ud800")
def test_whatever_text_is_sent_as_a_token_is_refused(text: str) -> None:
    refusal(text)


@given(
    st.dictionaries(st.sampled_from(["tenant", "exp", "nbf", "iat", "sub", "aud", "iss", "jti"]), JSON),
    st.sampled_from(["oms", None]),
)
def test_whatever_claims_are_signed_the_token_is_good_or_refused(claims: dict[str, Any], audience: str | None) -> None:
    try:
        principal = verify(signed(json.dumps(claims)), make_verifier(audience=audience))
    except Unauthorized:
        return
    assert principal.tenant == claims["tenant"]
    assert claims["exp"] > NOW


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_token_with_one_byte_changed_is_refused(position: int, byte: int) -> None:
    token = make_token("acme", exp=4102444800).encode()
    position %= len(token)
    mangled = token[:position] + bytes([byte]) + token[position + 1 :]
    try:
        assert verify(mangled.decode("latin-1")) == Principal("acme", "tester")
    except Unauthorized:
        return
    # The last character of a signature has bits that no byte of it needs.
    assert mangled == token or position == len(token) - 1


def test_no_refusal_quotes_the_token() -> None:
    token = make_token("acme", exp=NOW - 1)
    assert not any(part in refusal(token) for part in token.split("."))


def test_what_the_previous_secret_signed_is_good_and_refused_for_its_own_fault() -> None:
    verifier = TokenVerifier(StaticKeySource(Key("x" * 32, ("HS256",), previous=Key(SECRET, ("HS256",)))))
    new = jwt.encode({"tenant": "acme", "sub": "new", "exp": NOW + 3600}, "x" * 32)
    assert verify(new, verifier) == Principal("acme", "new")
    assert verify(make_token("acme", sub="previous"), verifier) == Principal("acme", "previous")
    assert refusal(make_token("acme", exp=NOW - 1), verifier) == "The token has expired."
    stranger = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, "y" * 32)
    assert refusal(stranger, verifier) == "The token's signature does not match."
    unsigned = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, "", "none")
    assert refusal(unsigned, verifier) == "The token is signed with an algorithm that is not accepted."


def test_the_secret_is_in_no_representation() -> None:
    assert SECRET not in repr(VERIFIER)
    assert SECRET not in repr(Key(SECRET, ("HS256",)))


def test_other_lengths_of_the_hash_can_be_accepted() -> None:
    secret = "x" * 64
    verifier = make_verifier(secret, SECRET_ALGORITHMS)
    for algorithm in SECRET_ALGORITHMS:
        assert verify(jwt.encode({"tenant": "acme", "exp": NOW + 3600}, secret, algorithm), verifier).tenant == "acme"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        (RSA_KEYS[0], "PS256"),
    ],
)
def test_every_kind_of_public_key_verifies(key: PrivateKey, algorithm: str) -> None:
    verifier = TokenVerifier(StaticKeySource(Key(key.public_key(), (algorithm,))))
    token = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, key, algorithm)
    assert verify(token, verifier).tenant == "acme"
    assert refusal(token[:-8] + "AAAAAAAA", verifier) == "The token's signature does not match."


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, set()),
        ({"scope": ""}, set()),
        ({"scope": "a b:c  d"}, {"a", "b:c", "d"}),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b c", 1, None, ["d"]]}, {"a", "b c"}),
        ({"scope": "a", "scp": ["b"]}, {"a", "b"}),
        ({"scope": 1, "scp": {"a": 1}}, set()),
    ],
)
def test_scopes_are_the_words_of_scope_and_of_scp(claims: dict[str, object], scopes: set[str]) -> None:
    verifier = make_verifier(scopes={"a", "b", "b c", "b:c", "d"})
    assert verify(make_token("acme", **claims), verifier).scopes == scopes


def test_only_scopes_that_matter_are_kept() -> None:
    token = make_token("acme", scope="openid oms:read profile", scp=["oms:write", "email"])
    assert verify(token, make_verifier(scopes={"oms:read", "oms:write"})).scopes == {"oms:read", "oms:write"}
    assert verify(token, make_verifier(scopes={"oms:write", "oms:admin"})).scopes == {"oms:write"}
    assert verify(token).scopes == frozenset()


TEMPLATE = "https://id.example.net/auth/realms/{tenant}"


def test_with_a_tenant_in_the_issuer_it_alone_is_the_tenant() -> None:
    verifier = make_verifier(issuer=TEMPLATE)
    token = make_token("another", iss="https://id.example.net/auth/realms/acme", realm="another")
    assert verify(token, verifier).tenant == "acme"


@pytest.mark.parametrize(
    "issuer",
    [
        *(
            f"https://id.example.net/auth/realms/{realm}"
            for realm in (
                "", "a/b", "acme/", "acme\n", "Acme", "-", "a?x", "a#x", "..", "%61", "a" * 64, "{tenant}", "\u0661",
                " a",
            )
        ),
        "xhttps://id.example.net/auth/realms/acme", "http://id.example.net/auth/realms/acme",
        "https://idXexample.net/auth/realms/acme", "https://evil.example/https://id.example.net/auth/realms/acme",
        "", None, 1, ["x"],
    ],
)  # fmt: skip
def test_an_issuer_that_the_template_does_not_match_as_a_whole_is_refused(issuer: object) -> None:
    payload = json.dumps({"tenant": "acme", "exp": NOW + 3600, "iss": issuer})
    assert refusal(signed(payload), make_verifier(issuer=TEMPLATE)) == "The token comes from another issuer."
