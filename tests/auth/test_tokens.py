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
from app.errors import RejectionReason, Unauthorized
from app.model import Principal
from tests.processes import SECRET, make_token
from tests.provider import RSA_KEYS, PrivateKey

NOW = int(time.time())


def make_verifier(secret: str = SECRET, algorithms: tuple[str, ...] = ("HS256",), **options: Any) -> TokenVerifier:
    return TokenVerifier(StaticKeySource((Key(secret, algorithms),)), **options)


VERIFIER = make_verifier()


def verify(token: str, verifier: TokenVerifier = VERIFIER) -> Principal:
    """Return the principal of a valid token. A static key needs no event loop."""
    with pytest.raises(StopIteration) as done:
        verifier.verify(token).send(None)
    principal: Principal = done.value.value.principal
    return principal


def rejected(token: str, verifier: TokenVerifier = VERIFIER) -> Unauthorized:
    """Return the error for a rejected token."""
    with pytest.raises(Unauthorized) as raised:
        verifier.verify(token).send(None)
    return raised.value


def rejection(token: str, verifier: TokenVerifier = VERIFIER) -> str:
    """Return the error message for a rejected token."""
    return str(rejected(token, verifier))


def encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def sign(payload: str, header: str = '{"alg":"HS256","typ":"JWT"}') -> str:
    """Return a token with a valid signature over any text."""
    algorithm = jwt.get_algorithm_by_name("HS256")
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in (header, payload)]
    signature = algorithm.sign(b".".join(parts), algorithm.prepare_key(SECRET))
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_valid_token_names_its_tenant_and_subject() -> None:
    assert verify(make_token("acme", sub="anna")) == Principal("acme", "anna")


def test_a_token_needs_no_subject() -> None:
    assert verify(make_token("acme", sub=None)) == Principal("acme", None)


@pytest.mark.parametrize("tenant", ["a", "0", "a-b_c", "x" * 63, "9" * 63, "tenant-1"])
def test_tenant_name_has_1_to_63_allowed_characters(tenant: str) -> None:
    assert verify(make_token(tenant)).tenant == tenant


@pytest.mark.parametrize(
    "tenant",
    ["", "-a", "a-", "_", "A", "a b", "a\n", "ä", "٣", "x" * 64, "a}{b", "a:b", "*", 1, 1.5, True, [], ["acme"], {}],
)
def test_invalid_tenant_name_is_rejected(tenant: object) -> None:
    assert rejection(make_token(tenant)) == "The token's claim 'tenant' does not name a tenant."


@pytest.mark.parametrize("claim", ["tenant", "exp"])
def test_missing_or_null_required_claim_is_rejected(claim: str) -> None:
    claims = {"tenant": "acme", "exp": NOW + 3600}
    assert rejection(jwt.encode({**claims, claim: None}, SECRET)) == "The token lacks a required claim."
    del claims[claim]
    assert rejection(jwt.encode(claims, SECRET)) == "The token lacks a required claim."


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": NOW - 1}, "The token has expired."),
        ({"exp": 0}, "The token has expired."),
        ({"nbf": NOW + 3600}, "The token is not valid yet."),
        ({"exp": str(NOW + 3600)}, "The token's claim 'exp' must be a number."),
        ({"exp": True}, "The token has expired."),
        ({"exp": [NOW + 3600]}, "The token is malformed."),
        ({"exp": {}}, "The token is malformed."),
        ({"nbf": str(NOW)}, "The token's claim 'nbf' must be a number."),
        ({"iat": " 1_0 "}, "The token's claim 'iat' must be a number."),
        ({"nbf": True}, "The token's claim 'nbf' must be a number."),
        ({"nbf": "soon"}, "The token is malformed."),
        ({"nbf": []}, "The token is malformed."),
        ({"iat": "soon"}, "The token's claim 'iat' must be a number."),
        ({"iat": {}}, "The token's claim 'iat' must be a number."),
        ({"sub": 1}, "The token's claim 'sub' must be a string of at most 255 characters."),
        ({"sub": ["anna"]}, "The token's claim 'sub' must be a string of at most 255 characters."),
        ({"sub": "\ud800"}, "The token's claim 'sub' must be a string of at most 255 characters."),
        ({"sub": "x" * 256}, "The token's claim 'sub' must be a string of at most 255 characters."),
        ({"jti": 1}, "The token is malformed."),
    ],
)
def test_claim_with_a_wrong_type_or_value_is_rejected(claims: dict[str, object], reason: str) -> None:
    assert rejection(make_token("acme", **claims)) == reason


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
def test_expiry_that_is_no_time_is_rejected(exp: str) -> None:
    rejection(sign(f'{{"tenant":"acme","exp":{exp}}}'))


def test_a_token_that_is_too_long_is_rejected_without_parsing() -> None:
    reason = f"The token is longer than {MAX_TOKEN_CHARACTERS} characters."
    room = MAX_TOKEN_CHARACTERS * 3 // 4 - len(make_token("acme"))
    assert verify(make_token("acme", padding="x" * room)).tenant == "acme"
    assert rejection(make_token("acme", padding="x" * MAX_TOKEN_CHARACTERS)) == reason
    assert rejection("." * 50_000_000) == reason


def test_issue_time_may_be_in_the_future() -> None:
    assert verify(make_token("acme", iat=NOW + 3600)).tenant == "acme"


def test_start_may_be_in_the_past() -> None:
    assert verify(make_token("acme", nbf=NOW - 3600)).tenant == "acme"


@pytest.mark.parametrize(
    ("claim", "distance", "message"),
    [("exp", -5, "The token has expired."), ("nbf", 55, "The token is not valid yet.")],
)
def test_leeway_applies_to_expiry_and_start(claim: str, distance: int, message: str) -> None:
    """Both distances are between the two leeways. A busy machine changes them by some seconds."""
    token = make_token("acme", **{claim: int(time.time()) + distance})
    assert verify(token, make_verifier(leeway=60)).tenant == "acme"
    assert rejection(token, make_verifier(leeway=1)) == message


DETAILS: list[tuple[dict[str, object], RejectionReason, str]] = [
    ({"aud": None}, RejectionReason.CLAIM, "'aud' is missing or empty"),
    ({"aud": []}, RejectionReason.CLAIM, "'aud' is missing or empty"),
    ({"aud": "x"}, RejectionReason.AUDIENCE,
     "'aud' does not contain JWT_AUDIENCE, or is neither a string nor a list of strings"),
    ({"iss": None}, RejectionReason.CLAIM, "'iss' is missing or empty"),
    ({"iss": "https://x{error}"}, RejectionReason.ISSUER, "'iss' is not JWT_ISSUER: it is 'https://x{error}'"),
    ({"iss": "https://id.example/"}, RejectionReason.ISSUER,
     "'iss' is not JWT_ISSUER: they differ in the slash at the end; it is 'https://id.example/'"),
    ({"tenant": None}, RejectionReason.CLAIM, "'tenant' is missing or empty"),
    ({"tenant": "Acme"}, RejectionReason.CLAIM, "The token's claim 'tenant' does not name a tenant."),
    ({"exp": None}, RejectionReason.CLAIM, "'exp' is missing or empty"),
    ({"exp": NOW - 1}, RejectionReason.EXPIRED, "'exp' is in the past"),
    ({"exp": {}}, RejectionReason.MALFORMED, "Expiration Time claim (exp) must be an integer."),
    ({"exp": str(NOW + 3600)}, RejectionReason.CLAIM, "The token's claim 'exp' must be a number."),
    ({"nbf": NOW + 3600}, RejectionReason.NOT_YET_VALID, "'nbf' is in the future"),
    ({"sub": 1}, RejectionReason.CLAIM, "The token's claim 'sub' must be a string of at most 255 characters."),
    ({"jti": 1}, RejectionReason.MALFORMED, "'jti' is not a string"),
]  # fmt: skip


@pytest.mark.parametrize(("claims", "reason", "detail"), DETAILS)
def test_detail_names_the_claim(claims: dict[str, object], reason: RejectionReason, detail: str) -> None:
    verifier = make_verifier(audience="oms", issuer="https://id.example")
    good: dict[str, object] = {"aud": "oms", "iss": "https://id.example", "tenant": "acme", "exp": NOW + 3600}
    token = sign(json.dumps({name: value for name, value in (good | claims).items() if value is not None}))
    error = rejected(token, verifier)
    assert (error.reason, error.detail) == (reason, detail)


@pytest.mark.parametrize("issuer", ["https://id.example/realms/{tenant}", "https://id.example/realms/{tenant}/"])
def test_detail_names_a_slash_at_the_end_of_the_realm(issuer: str) -> None:
    given = f"{issuer.replace('{tenant}', 'acme')}/".removesuffix("//")
    error = rejected(make_token(None, iss=given), make_verifier(issuer=issuer))
    assert error.detail == f"'iss' is not JWT_ISSUER: they differ in the slash at the end; it is '{given}'"


@pytest.mark.parametrize("realm", ["Acme", "", "a/b", "-a"])
def test_detail_names_a_realm_that_is_no_tenant_name(realm: str) -> None:
    verifier = make_verifier(issuer="https://id.example/{tenant}/v2")
    error = rejected(make_token(None, iss=f"https://id.example/{realm}/v2"), verifier)
    reason = "there is no valid tenant name in place of {tenant}"
    assert error.detail == f"'iss' is not JWT_ISSUER: {reason}; it is 'https://id.example/{realm}/v2'"


def test_detail_quotes_an_issuer_of_another_realm_or_type() -> None:
    verifier = make_verifier(issuer="https://id.example/{tenant}")
    for issuer in ("https://other.example/acme", ["https://id.example/acme"], None):
        error = rejected(sign(json.dumps({"iss": issuer, "exp": NOW + 3600})), verifier)
        assert error.detail == f"'iss' is not JWT_ISSUER: it is {issuer!r}"


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        ({"alg": "HS512"}, "the header's 'alg' is not in JWT_ALGORITHMS"),
        ({"alg": "Ed25519"}, "the header's 'alg' is not in JWT_ALGORITHMS"),
        ({"alg": "HS256", "kid": 1}, "the header's 'kid', 'crit' or 'b64' is invalid"),
        ({"alg": "HS256", "crit": ["s3cret"]}, "the header's 'kid', 'crit' or 'b64' is invalid"),
        ([], "Invalid header string: must be a json object"),
    ],
)
def test_detail_names_the_member_of_the_header(header: object, detail: str) -> None:
    assert rejected(sign("{}", json.dumps(header))).detail == detail


def test_detail_is_bounded_and_quotes_no_value_except_the_issuer() -> None:
    verifier = make_verifier(audience="oms", issuer="https://id.example")
    good = {"aud": "oms", "iss": "https://id.example", "tenant": "acme", "exp": NOW + 3600, "padding": "s3cret" * 100}
    for claims, _, _ in DETAILS:
        secret = {name: "s3cret" * 100 if isinstance(value, str) else value for name, value in claims.items()}
        detail = rejected(sign(json.dumps(good | secret)), verifier).detail
        assert "s3cret" not in detail or "iss" in secret
        assert len(detail) <= 200


def test_audience_is_checked_if_one_is_configured() -> None:
    verifier = make_verifier(audience="oms")
    assert verify(make_token("acme", aud="oms"), verifier).tenant == "acme"
    assert verify(make_token("acme", aud=["other", "oms"]), verifier).tenant == "acme"
    assert rejection(make_token("acme", aud="OMS"), verifier) == "The token is meant for another audience."
    assert rejection(make_token("acme", aud=[1]), verifier)
    assert rejection(make_token("acme"), verifier) == "The token lacks a required claim."
    assert verify(make_token("acme", aud="anything")).tenant == "acme"


def test_issuer_is_checked_if_one_is_configured() -> None:
    verifier = make_verifier(issuer="https://id.example.net")
    assert verify(make_token("acme", iss="https://id.example.net"), verifier).tenant == "acme"
    assert (
        rejection(make_token("acme", iss="https://id.example.net/"), verifier) == "The token comes from another issuer."
    )
    assert rejection(
        sign(json.dumps({"tenant": "acme", "exp": NOW + 3600, "iss": ["https://id.example.net"]})), verifier
    )
    assert rejection(make_token("acme"), verifier) == "The token lacks a required claim."


def test_tenant_claim_name_is_configurable() -> None:
    verifier = make_verifier(tenant_claim="realm")
    assert verify(make_token("other", realm="acme"), verifier).tenant == "acme"
    assert rejection(make_token("acme"), verifier) == "The token lacks a required claim."


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "none"])
def test_token_with_another_algorithm_is_rejected(algorithm: str) -> None:
    secret = "x" * 64
    token = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, "" if algorithm == "none" else secret, algorithm)
    assert rejection(token, make_verifier(secret)) == "The token is signed with an algorithm that is not accepted."


def test_token_signed_with_another_secret_is_rejected() -> None:
    token = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, "x" * 32)
    assert rejection(token) == "The token's signature does not match."


@pytest.mark.parametrize(
    "header",
    [
        "[]", "1", "null", '"x"', "{}", '{"alg":["HS256"]}', '{"alg":{}}', '{"alg":null}', '{"alg":"HS256","kid":1}',
        '{"alg":"HS256","crit":["exp"],"exp":1}', '{"alg":"HS256","b64":false}', "[" * 100_000, '{"a":' * 20_000, "{",
    ],
)  # fmt: skip
def test_malformed_header_is_rejected(header: str) -> None:
    rejection(sign(json.dumps({"tenant": "acme", "exp": NOW + 3600}), header))


@pytest.mark.parametrize("payload", ["", "[]", "1", "null", '"x"', "{", "[" * 100_000, "\ud7ff{}"])
def test_malformed_payload_is_rejected(payload: str) -> None:
    rejection(sign(payload))


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
def test_arbitrary_text_is_rejected(text: str) -> None:
    rejection(text)


@given(
    st.dictionaries(st.sampled_from(["tenant", "exp", "nbf", "iat", "sub", "aud", "iss", "jti"]), JSON),
    st.sampled_from(["oms", None]),
)
def test_arbitrary_claims_are_valid_or_rejected(claims: dict[str, Any], audience: str | None) -> None:
    try:
        principal = verify(sign(json.dumps(claims)), make_verifier(audience=audience))
    except Unauthorized:
        return
    assert principal.tenant == claims["tenant"]
    assert claims["exp"] > NOW


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_token_with_one_byte_changed_is_rejected(position: int, byte: int) -> None:
    token = make_token("acme", exp=4102444800).encode()
    position %= len(token)
    mangled = token[:position] + bytes([byte]) + token[position + 1 :]
    try:
        assert verify(mangled.decode("latin-1")) == Principal("acme", "tester")
    except Unauthorized:
        return
    # The last character of a signature has unused bits.
    assert mangled == token or position == len(token) - 1


def test_rejection_does_not_quote_the_token() -> None:
    token = make_token("acme", exp=NOW - 1)
    assert not any(part in rejection(token) for part in token.split("."))


def test_previous_secret_is_accepted_and_its_rejections_stay_specific() -> None:
    verifier = TokenVerifier(StaticKeySource((Key("x" * 32, ("HS256",)), Key(SECRET, ("HS256",)))))
    new = jwt.encode({"tenant": "acme", "sub": "new", "exp": NOW + 3600}, "x" * 32)
    assert verify(new, verifier) == Principal("acme", "new")
    assert verify(make_token("acme", sub="previous"), verifier) == Principal("acme", "previous")
    assert rejection(make_token("acme", exp=NOW - 1), verifier) == "The token has expired."
    stranger = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, "y" * 32)
    assert rejection(stranger, verifier) == "The token's signature does not match."
    unsigned = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, "", "none")
    assert rejection(unsigned, verifier) == "The token is signed with an algorithm that is not accepted."


def test_repr_does_not_contain_the_secret() -> None:
    assert SECRET not in repr(VERIFIER)
    assert SECRET not in repr(Key(SECRET, ("HS256",)))


def test_every_secret_algorithm_can_be_accepted() -> None:
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
    verifier = TokenVerifier(StaticKeySource((Key(key.public_key(), (algorithm,)),)))
    token = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, key, algorithm)
    assert verify(token, verifier).tenant == "acme"
    assert rejection(token[:-8] + "AAAAAAAA", verifier) == "The token's signature does not match."


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
def test_both_names_of_ed25519_verify(name: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    token = jwt.encode({"tenant": "acme", "exp": NOW + 3600}, key, name)
    assert verify(token, TokenVerifier(StaticKeySource((Key(key.public_key(), ("EdDSA",)),)))).tenant == "acme"
    curve = TokenVerifier(StaticKeySource((Key(key.public_key(), ("ES256",)),)))
    assert rejected(token, curve).reason is RejectionReason.ALGORITHM


def test_token_is_accepted_if_one_of_several_keys_signed_it() -> None:
    keys = tuple(Key(key.public_key(), ("RS256",)) for key in RSA_KEYS)
    verifier = TokenVerifier(StaticKeySource(keys[:2]))
    claims = {"tenant": "acme", "exp": NOW + 3600}
    for key in RSA_KEYS[:2]:
        assert verify(jwt.encode(claims, key, "RS256"), verifier).tenant == "acme"
    assert rejected(jwt.encode(claims, RSA_KEYS[2], "RS256"), verifier).reason is RejectionReason.SIGNATURE


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
def test_scopes_come_from_scope_and_scp(claims: dict[str, object], scopes: set[str]) -> None:
    verifier = make_verifier(scopes={"a", "b", "b c", "b:c", "d"})
    assert verify(make_token("acme", **claims), verifier).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"roles": ["a", "x"]}, {"a"}),
        ({"roles": "a b"}, {"a", "b"}),
        ({"scope": "a", "scp": "b"}, set()),
        ({"roles": ["a"], "scp": "b"}, {"a"}),
        ({"roles": {"a": 1}}, set()),
    ],
)
def test_scopes_come_from_the_configured_claim_only(claims: dict[str, object], scopes: set[str]) -> None:
    verifier = make_verifier(scopes={"a", "b"}, scope_claim="roles")
    assert verify(make_token("acme", **claims), verifier).scopes == scopes


def test_only_configured_scopes_are_kept() -> None:
    token = make_token("acme", scope="openid oms:read profile", scp=["oms:write", "email"])
    assert verify(token, make_verifier(scopes={"oms:read", "oms:write"})).scopes == {"oms:read", "oms:write"}
    assert verify(token, make_verifier(scopes={"oms:write", "oms:admin"})).scopes == {"oms:write"}
    assert verify(token).scopes == frozenset()


TEMPLATE = "https://id.example.net/auth/realms/{tenant}"


def test_tenant_in_the_issuer_overrides_the_tenant_claim() -> None:
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
def test_issuer_that_does_not_match_the_whole_template_is_rejected(issuer: object) -> None:
    payload = json.dumps({"tenant": "acme", "exp": NOW + 3600, "iss": issuer})
    assert rejection(sign(payload), make_verifier(issuer=TEMPLATE)) == "The token comes from another issuer."
