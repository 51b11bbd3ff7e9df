"""Attacks with tokens, each with the section of RFC 8725 that describes it. Each gets a 401."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.processes import Service
from tests.provider import RSA_KEYS, Provider, jwk

OURS, SECOND, THEIRS = RSA_KEYS
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()


def encode(part: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")


def claims(provider: Provider, realm: str = "acme", **more: Any) -> dict[str, Any]:
    return {"iss": provider.issuer(realm), "aud": "oms", "sub": "x", "exp": int(time.time()) + 600, **more}


def with_header(provider: Provider, key: Any = OURS, **header: Any) -> str:
    return jwt.encode(claims(provider), key, "RS256", headers={"kid": "first", **header})


def hmac_with(secret: bytes, header: dict[str, Any], payload: dict[str, Any]) -> str:
    signed = encode(header) + b"." + encode(payload)
    signature = base64.urlsafe_b64encode(hmac.digest(secret, signed, hashlib.sha256)).rstrip(b"=")
    return (signed + b"." + signature).decode()


def public_pem() -> bytes:
    return OURS.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def replaced_payload(provider: Provider) -> str:
    header, _, signature = provider.token("acme").split(".")
    return f"{header}.{encode(claims(provider, 'other')).decode()}.{signature}"


def unsigned(provider: Provider, algorithm: str) -> str:
    return (encode({"alg": algorithm, "kid": "first"}) + b"." + encode(claims(provider)) + b".").decode()


ATTACKS: dict[str, tuple[str, Callable[[Provider], str]]] = {
    "no signature, alg none": ("2.1", lambda p: unsigned(p, "none")),
    "no signature, alg nOnE": ("2.1", lambda p: unsigned(p, "nOnE")),
    "no signature, alg RS256": ("2.1", lambda p: unsigned(p, "RS256")),
    "HMAC with the public key in PEM": (
        "2.1", lambda p: hmac_with(public_pem(), {"alg": "HS256", "kid": "first"}, claims(p)),
    ),
    "HMAC with the modulus": (
        "2.1", lambda p: hmac_with(jwk(OURS)["n"].encode(), {"alg": "HS256", "kid": "first"}, claims(p)),
    ),
    "HMAC with a shared secret that the set publishes": (
        "2.1", lambda p: hmac_with(b"s" * 32, {"alg": "HS256", "kid": "shared"}, claims(p)),
    ),
    "an algorithm that fits the key but is not accepted": (
        "3.1", lambda p: jwt.encode(claims(p), OURS, "RS512", headers={"kid": "first"}),
    ),
    "an algorithm of another kind of key": (
        "3.1", lambda p: jwt.encode(claims(p), CURVE, "ES256", headers={"kid": "first"}),
    ),
    "another's key under our kid": ("3.8", lambda p: jwt.encode(claims(p), THEIRS, "RS256", headers={"kid": "first"})),
    "another's key without a kid": ("3.8", lambda p: p.token("acme", THEIRS, kid=None)),
    "another's Ed25519 key under our kid": (
        "3.1", lambda p: jwt.encode(claims(p), EDWARDS, "Ed25519", headers={"kid": "first"}),
    ),
    "a kid that the issuer does not have": ("3.10", lambda p: with_header(p, kid="nobody's")),
    "a kid that is a path": ("3.10", lambda p: with_header(p, kid="../../../../dev/null")),
    "a kid that is an injection": ("3.10", lambda p: with_header(p, kid="x' UNION SELECT 'secret")),
    "an encryption key": ("3.1", lambda p: jwt.encode(claims(p), SECOND, "RS256", headers={"kid": "encryption"})),
    "a key in the header": ("3.10", lambda p: with_header(p, THEIRS, jwk=jwk(THEIRS), kid="theirs")),
    "a key in the header under our kid": ("3.10", lambda p: with_header(p, THEIRS, jwk=jwk(THEIRS))),
    "the URL of a key set in the header": ("3.10", lambda p: with_header(p, THEIRS, jku=f"{p.base}/evil/jku")),
    "the URL of a certificate in the header": ("3.10", lambda p: with_header(p, THEIRS, x5u=f"{p.base}/evil/x5u")),
    "a certificate chain in the header": ("3.10", lambda p: with_header(p, THEIRS, x5c=["AAAA"])),
    "an unknown critical extension": ("3.1", lambda p: with_header(p, crit=["exp"])),
    "a detached payload": ("3.1", lambda p: with_header(p, b64=False, crit=["b64"])),
    "another realm's signature": (
        "3.8", lambda p: jwt.encode(claims(p), SECOND, "RS256", headers={"kid": "second"}),
    ),
    "another realm's issuer": ("3.8", lambda p: p.token("other")),
    "an issuer on another host": ("3.8", lambda p: p.token("acme", iss="http://127.0.0.1:9/realms/acme")),
    "an issuer that leaves the template": ("3.8", lambda p: p.token("acme", iss=p.issuer("acme") + "/../acme")),
    "an issuer in capitals": ("3.8", lambda p: p.token("acme", iss=p.issuer("ACME"))),
    "an issuer with a user": ("3.8", lambda p: p.token("acme", iss=p.issuer("acme").replace("http://", "http://x@"))),
    "no issuer": ("3.8", lambda p: p.token("acme", iss=None)),
    "another audience": ("3.9", lambda p: p.token("acme", aud="other")),
    "an audience with ours as its prefix": ("3.9", lambda p: p.token("acme", aud="oms-x")),
    "no audience": ("3.9", lambda p: p.token("acme", aud=None)),
    "no expiry": ("3.10", lambda p: p.token("acme", exp=None)),
    "an expiry in the past": ("3.10", lambda p: p.token("acme", exp=int(time.time()) - 1)),
    "an expiry as text": ("3.10", lambda p: p.token("acme", exp=str(int(time.time()) + 600))),
    "a start in the future": ("3.10", lambda p: p.token("acme", nbf=int(time.time()) + 600)),
    "a replaced payload": ("3.3", replaced_payload),
    "an encrypted token": ("3.3", lambda _: "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AA.AA.AA"),
    "a token in JSON": ("3.3", lambda _: json.dumps({"payload": "x", "signatures": []})),
    "a key too short": ("3.5", lambda p: jwt.encode(claims(p), OURS, "RS256", headers={"kid": "short"})),
}  # fmt: skip


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        shared = {"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(b"s" * 32).rstrip(b"=").decode()}
        short = jwk(OURS, kid="short", n="AQAB")
        provider.publish("acme", jwk(OURS, kid="first"), jwk(SECOND, kid="encryption", use="enc"), shared, short)
        provider.publish("other", jwk(SECOND, kid="second"))
        yield provider


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str, provider: Provider) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("attacked") / "log"
    settings = {"JWT_SECRET": "", "JWT_ISSUER": provider.template, "JWT_AUDIENCE": "oms"}
    with Service(log, redis_url, **settings) as service:
        yield service
    assert "Traceback" not in service.log
    assert "eyJ" not in service.log


def test_unmodified_tokens_are_valid(service: Service, provider: Provider) -> None:
    assert service.client(provider.token("acme")).get().status == 200
    assert service.client(provider.token("other", SECOND, kid="second")).get().status == 200


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_a_401(service: Service, provider: Provider, name: str) -> None:
    _section, make = ATTACKS[name]
    assert service.client(make(provider)).get().status == 401


def test_no_attack_redirects_the_fetch_of_keys(service: Service, provider: Provider) -> None:
    for _section, make in ATTACKS.values():
        service.client(make(provider)).get()
    assert not [path for path in provider.requests if "evil" in path]
    assert {path.split("/")[2] for path in provider.requests} <= {"acme", "other"}


def test_token_of_one_realm_never_grants_access_to_another(service: Service, provider: Provider) -> None:
    service.client(provider.token("acme")).post({"enabled": True})
    disguised = provider.token("other", SECOND, kid="second", tenant="acme", realm="acme", azp="acme")
    assert not service.client(disguised).enabled()
