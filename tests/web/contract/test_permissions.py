"""Scopes, hosts and failing issuers, over HTTP."""

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.contract import PATH
from tests.processes import SECRET, Service, make_token, skip_locally
from tests.provider import RSA_KEYS, Provider, jwk, pem
from tests.waiting import eventually


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    settings = {"JWT_READ_SCOPE": "oms:read", "JWT_WRITE_SCOPE": "oms:write"}
    with Service(tmp_path_factory.mktemp("scoped") / "log", redis_url, **settings) as service:
        yield service


@pytest.mark.parametrize(
    ("claims", "reads", "writes"),
    [
        ({}, 403, 403),
        ({"scope": "oms:read"}, 200, 403),
        ({"scope": "oms:write"}, 403, 200),
        ({"scope": "openid oms:write oms:read"}, 200, 200),
        ({"scp": ["oms:read", "oms:write"]}, 200, 200),
        ({"scope": "oms:readx xoms:write OMS:READ oms"}, 403, 403),
        ({"scp": "oms:read oms:write"}, 200, 200),
        ({"scp": ["oms:read oms:write"]}, 403, 403),
    ],
)
def test_each_operation_needs_its_scope(
    scoped: Service, tenant: str, claims: dict[str, object], reads: int, writes: int
) -> None:
    client = scoped.client(make_token(tenant, **claims))
    assert client.get().status == reads
    assert client.request("HEAD").status == reads
    assert client.post({"enabled": True}).status == writes


def test_tokens_with_many_scopes_take_little_memory(scoped: Service, tenant: str) -> None:
    many = " ".join(f"scope-{number}" for number in range(700))

    def read(token_id: str) -> None:
        token = make_token(tenant, scope=f"{many} oms:read", jti=token_id)
        assert scoped.client(token).get().status == 200

    for number in range(50):
        read(f"first {number}")
    before = resident_bytes(scoped.pid)
    for number in range(300):
        read(f"second {number}")
    assert resident_bytes(scoped.pid) - before < 300 * 24 * 1024


def resident_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except FileNotFoundError:
        skip_locally("needs Linux's /proc")
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_a_missing_scope_is_named(scoped: Service, tenant: str) -> None:
    client = scoped.client(make_token(tenant))
    challenge = client.get().headers["www-authenticate"]
    assert challenge == 'Bearer realm="external-oms-config", error="insufficient_scope", scope="oms:read"'
    assert client.post({"enabled": True}).json["message"] == "The token lacks the scope oms:write."


def test_scope_is_checked_before_the_body(scoped: Service, tenant: str) -> None:
    assert scoped.client(make_token(tenant)).post(b"nonsense").status == 403


def test_roles_of_entra_id_are_scopes_and_its_clients_are_tenants(tmp_path: Path, redis_url: str) -> None:
    """The token of an application as Entra ID issues it (version 2): without `scp`, and without a claim to choose."""
    settings = {"JWT_TENANT_CLAIM": "azp", "JWT_SCOPE_CLAIM": "roles", "JWT_AUDIENCE": "api"}
    settings |= {"JWT_READ_SCOPE": "oms.read", "JWT_WRITE_SCOPE": "oms.write"}
    client = str(uuid.uuid4())
    with Service(tmp_path / "log", redis_url, **settings) as service:

        def statuses(**claims: object) -> tuple[int, int]:
            token = make_token(None, aud="api", azp=client, idtyp="app", ver="2.0", **claims)
            return service.client(token).get().status, service.client(token).post({"enabled": True}).status

        assert statuses(roles=["oms.read", "oms.write"]) == (200, 200)
        assert statuses(roles=["oms.read"]) == (200, 403)
        assert statuses() == (403, 403)  # any application of the directory may get a token without roles
        assert statuses(scp="oms.read oms.write") == (403, 403)
        assert service.logs(f"tenant={client}")


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    with Service(
        tmp_path_factory.mktemp("hosted") / "log", redis_url, TENANT_HOST="{tenant}.x.newstore.net"
    ) as service:
        yield service


@pytest.mark.parametrize(
    "host",
    [
        "acme.x.newstore.net", "ACME.X.NewStore.net", "acme.x.newstore.net:443", "acme.x.newstore.net:",
        "acme.x.newstore.net.", "acme.x.newstore.net.:443",
    ],
)  # fmt: skip
def test_host_of_the_tokens_tenant_matches_in_any_spelling(hosted: Service, host: str) -> None:
    assert hosted.client(make_token("acme")).get(headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "other.x.newstore.net", "x.newstore.net", "acme.x.newstore.net.evil.example", "evil.acme.x.newstore.net",
        "acme", "acme.x.newstore.net..", ".acme.x.newstore.net", "acme..x.newstore.net", "acmexxxnewstore.net",
        "127.0.0.1",
    ],
)  # fmt: skip
def test_another_host_is_a_403(hosted: Service, host: str) -> None:
    client = hosted.client(make_token("acme"))
    assert client.get(headers={"Host": host}).status == 403
    assert client.post({"enabled": True}, headers={"Host": host}).status == 403


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://acme.x.newstore.net", "other.x.newstore.net", 200),
        ("https://ACME.x.newstore.net.:8443", "other.x.newstore.net", 200),
        ("http://other.x.newstore.net", "acme.x.newstore.net", 403),
        ("http://[::1]:80", "acme.x.newstore.net", 403),
        ("http://acme.x.newstore.net@evil.example", "acme.x.newstore.net", 400),
        ("http://user@acme.x.newstore.net", "acme.x.newstore.net", 400),
        ("http://", "acme.x.newstore.net", 400),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_host_of_a_target_in_absolute_form_replaces_the_header(
    hosted: Service, target: str, host: str, status: int, version: str
) -> None:
    head = f"GET {target}{PATH} HTTP/{version}\r\nHost: {host}\r\n%AUTH%\r\n\r\n"
    (answer,) = hosted.client(make_token("acme")).raw(head.encode(), malformed=True)
    assert answer.status == status


def test_configured_host_may_end_with_a_dot(tmp_path: Path, redis_url: str) -> None:
    with Service(tmp_path / "log", redis_url, TENANT_HOST="{tenant}.x.newstore.net.") as service:
        assert service.client(make_token("acme")).get(headers={"Host": "acme.x.newstore.net"}).status == 200


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "Forwarded", "X-Original-Host", "X-Host"])
def test_forwarded_host_headers_are_ignored(hosted: Service, header: str) -> None:
    value = "host=acme.x.newstore.net" if header == "Forwarded" else "acme.x.newstore.net"
    assert hosted.client(make_token("acme")).get(headers={header: value}).status == 403


def test_rejected_token_is_a_401_on_any_host(hosted: Service) -> None:
    assert hosted.client(make_token("acme", exp=1)).get().status == 401


class ServiceWithProvider:
    """A service that accepts the tokens of an identity provider with TLS."""

    def __init__(self, directory: Path, redis_url: str, **settings: str) -> None:
        authority = trustme.CA()
        bundle = directory / "authority.pem"
        authority.cert_pem.write_to_path(str(bundle))
        self.provider = Provider(authority)
        own = {"JWT_SECRET": "", "JWT_ISSUER": self.provider.template, "SSL_CERT_FILE": str(bundle)}
        self.service = Service(directory / "log", redis_url, **own | settings)

    def __enter__(self) -> tuple[Service, Provider]:
        self.provider.__enter__()
        return self.service.__enter__(), self.provider

    def __exit__(self, *_error: object) -> None:
        self.service.__exit__()
        self.provider.__exit__()


@pytest.fixture
def service_and_provider(tmp_path: Path, redis_url: str) -> Iterator[tuple[Service, Provider]]:
    with ServiceWithProvider(tmp_path, redis_url) as (service, provider):
        provider.publish("acme", jwk(RSA_KEYS[0], kid="first"))
        yield service, provider
        assert "Traceback" not in service.log


def test_token_of_a_realm_grants_access_to_its_tenant(service_and_provider: tuple[Service, Provider]) -> None:
    service, provider = service_and_provider
    client = service.client(provider.token("acme"))
    assert client.post({"enabled": True}).status == 200
    assert client.enabled()
    assert service.client(make_token("acme")).get().status == 401
    assert len(provider.requests) == 2


def test_a_hung_issuer_is_a_500_and_delays_no_other_realm(service_and_provider: tuple[Service, Provider]) -> None:
    service, provider = service_and_provider
    provider.publish("hung", jwk(RSA_KEYS[0], kid="first"))
    provider.behaviours["hung"] = "hang"
    with ThreadPoolExecutor(9) as pool:
        hung = [pool.submit(service.client(provider.token("hung")).get) for _ in range(8)]
        assert eventually(lambda: any("hung" in path for path in provider.requests))
        assert service.client(provider.token("acme")).get().status == 200
        assert not any(answer.done() for answer in hung)
        assert {answer.result().status for answer in hung} == {500}
    assert "keys not fetched" in service.log
    assert f"no keys of {provider.issuer('hung')}: TimeoutError" in service.log


def test_invented_kids_and_realms_cause_few_requests_to_the_issuer(
    service_and_provider: tuple[Service, Provider],
) -> None:
    service, provider = service_and_provider
    assert service.client(provider.token("acme")).get().status == 200
    before = len(provider.requests)
    statuses = {service.client(provider.token("acme", kid=f"invented-{n}")).get().status for n in range(300)}
    assert statuses == {401}
    assert len(provider.requests) - before <= 6
    before = len(provider.requests)
    statuses = {service.client(provider.token(f"realm-{n}")).get().status for n in range(100)}
    assert statuses == {401, 500}
    assert len(provider.requests) - before <= 20
    assert service.client(provider.token("acme")).get().status == 200


@pytest.mark.parametrize(
    ("claims", "refusal", "detail"),
    [
        ({"aud": None}, "claim", "'aud' is missing or empty"),
        ({"sub": 7}, "claim", "The token's claim 'sub' must be a string of at most 255 characters."),
        ({"nbf": 2**40}, "not_yet_valid", "'nbf' is in the future"),
        ({"kid": "other"}, "unknown_key", "0 keys of "),
    ],
)
def test_log_names_the_claim_of_a_rejected_token(
    tmp_path: Path, redis_url: str, claims: dict[str, Any], refusal: str, detail: str
) -> None:
    with ServiceWithProvider(tmp_path, redis_url, JWT_AUDIENCE="oms") as (service, provider):
        provider.publish("acme", jwk(RSA_KEYS[0], kid="first"))
        answer = service.client(provider.token("acme", **claims)).get()
        assert answer.status == 401
        assert "JWT_" not in answer.content.decode()
        assert service.logs(f"request_id={answer.headers['x-request-id']}")
        assert f'refusal={refusal} detail="{detail}' in service.log


@pytest.mark.parametrize("configured", ["/realms/acme", "/realms/acme/"])
def test_log_names_an_issuer_with_another_slash_at_the_end(tmp_path: Path, redis_url: str, configured: str) -> None:
    with Provider() as provider:
        provider.publish("acme", jwk(RSA_KEYS[0], kid="first"))
        settings = {"JWT_SECRET": "", "JWT_ISSUER": provider.base + configured}
        with Service(tmp_path / "log", redis_url, **settings) as service:
            sent = f"{provider.base}{configured}/".removesuffix("//")
            status = service.client(provider.token("acme", tenant="acme", iss=sent)).get().status
            if configured.endswith("/"):
                assert status == 500
                assert service.logs(f"the discovery document has another issuer: '{provider.issuer('acme')}'")
            else:
                assert status == 401
                assert service.logs("'iss' is not JWT_ISSUER: they differ in the slash at the end; it is ")


@pytest.mark.parametrize("key", [pem(RSA_KEYS[0]), pem(RSA_KEYS[0]).replace("\n", "\\n")])
def test_configured_public_key_verifies_tokens(tmp_path: Path, redis_url: str, key: str) -> None:
    settings = {"JWT_SECRET": "", "JWT_PUBLIC_KEY": key}
    with Provider() as provider, Service(tmp_path / "log", redis_url, **settings) as service:
        assert service.client(provider.token("acme", tenant="acme")).get().status == 200
        assert service.client(provider.token("acme", RSA_KEYS[1], tenant="acme")).get().status == 401
        assert SECRET not in service.log
        assert provider.requests == []


def test_configured_key_set_verifies_tokens(tmp_path: Path, redis_url: str) -> None:
    with Provider() as provider:
        provider.publish("acme", jwk(RSA_KEYS[0], kid="first"))
        settings = {"JWT_SECRET": "", "JWT_JWKS_URL": provider.address("acme"), "JWT_ISSUER": provider.issuer("acme")}
        with Service(tmp_path / "log", redis_url, **settings) as service:
            assert service.client(provider.token("acme", tenant="acme")).get().status == 200
            assert service.client(provider.token("other", tenant="acme")).get().status == 401
            assert provider.requests == ["/realms/acme/keys"]
