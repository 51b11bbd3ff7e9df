"""OpenFeature's remote evaluation: its client with the real service, and the protocol by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from app.operations import FLAG
from tests.contract import FLAGS_PATH, OFREP, OFREP_BASE, Answer, Client
from tests.processes import Service, make_token

FLAG_PATH = f"{FLAGS_PATH}/{FLAG}"
PATHS = [FLAG_PATH, FLAGS_PATH]
EMPTY = b"{}"

MakeFlagClient = Callable[[Service, str], OpenFeatureClient]


@pytest.fixture
def make_flag_client() -> Iterator[MakeFlagClient]:
    """Return a factory of OpenFeature clients for a service and a token."""

    def make_flag_client(service: Service, token: str) -> OpenFeatureClient:
        headers = {"Authorization": f"Bearer {token}"}
        provider = OFREPProvider(service.url, headers_factory=lambda: headers)
        api.set_provider_and_wait(provider, domain=token)
        providers.append(provider)
        return api.get_client(domain=token)

    providers: list[OFREPProvider] = []
    yield make_flag_client
    api.clear_providers()
    for provider in providers:
        provider.session.close()


@pytest.mark.parametrize(
    "context", [None, EvaluationContext(), EvaluationContext("order-1", {"country": "CA", "lines": [1, {"sku": "x"}]})]
)
def test_openfeature_client_reads_the_setting_as_a_flag(
    service: Service, make_flag_client: MakeFlagClient, client: Client, tenant: str, context: EvaluationContext | None
) -> None:
    flags = make_flag_client(service, make_token(tenant))
    for version, enabled in enumerate((False, True, False)):
        assert client.post({"enabled": enabled}).headers["etag"] == f'"{version}"'
        details = flags.get_boolean_details(FLAG, not enabled, context)
        assert details.error_code is None
        assert (details.value, details.variant) == (enabled, "on" if enabled else "off")
        assert (details.reason, details.flag_metadata) == (Reason.STATIC, {"version": version})


def test_openfeature_client_uses_its_default_for_an_unknown_flag(
    service: Service, make_flag_client: MakeFlagClient, tenant: str
) -> None:
    details = make_flag_client(service, make_token(tenant)).get_boolean_details("external_oms.enabled.not", True)
    assert (details.value, details.error_code) == (True, ErrorCode.FLAG_NOT_FOUND)
    assert details.error_message == f"There is no flag with this key. The only flag is {FLAG}."


def test_reading_the_flag_as_a_string_is_a_type_mismatch(
    service: Service, make_flag_client: MakeFlagClient, tenant: str
) -> None:
    details = make_flag_client(service, make_token(tenant)).get_string_details(FLAG, "default")
    assert (details.value, details.error_code) == ("default", ErrorCode.TYPE_MISMATCH)


def test_openfeature_client_uses_its_default_after_a_rejected_token(
    service: Service, make_flag_client: MakeFlagClient, client: Client, tenant: str
) -> None:
    client.post({"enabled": True})
    details = make_flag_client(service, make_token(tenant, exp=1)).get_boolean_details(FLAG, False)
    assert (details.value, details.error_code) == (False, ErrorCode.GENERAL)
    assert details.error_message == "unauthorized"


@pytest.fixture(scope="module")
def scoped(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    settings = {"JWT_READ_SCOPE": "oms:read", "JWT_WRITE_SCOPE": "oms:write"}
    with Service(tmp_path_factory.mktemp("scoped") / "log", redis_url, **settings) as service:
        yield service


def test_flag_needs_the_read_scope_only(scoped: Service, make_flag_client: MakeFlagClient, tenant: str) -> None:
    refused = make_flag_client(scoped, make_token(tenant, scope="oms:write")).get_boolean_details(FLAG, True)
    assert (refused.value, refused.error_message) == (True, "forbidden")
    read = make_flag_client(scoped, make_token(tenant, scope="oms:read")).get_boolean_details(FLAG, True)
    assert (read.value, read.error_code) == (False, None)
    for path in PATHS:
        answer = scoped.client(make_token(tenant)).post(b"nonsense", path=path)
        assert (answer.status, answer.json["errorDetails"]) == (403, "The token lacks the scope oms:read.")
        assert 'scope="oms:read"' in answer.headers["www-authenticate"]
        assert scoped.client(make_token(tenant, scope="oms:read")).post(EMPTY, path=path).status == 200


def test_openfeature_client_uses_its_default_without_a_store(
    tmp_path: Path, make_flag_client: MakeFlagClient, tenant: str
) -> None:
    with Service(tmp_path / "log", f"unix://{tmp_path}/nothing") as service:
        details = make_flag_client(service, make_token(tenant)).get_boolean_details(FLAG, True)
        assert (details.value, details.error_code) == (True, ErrorCode.GENERAL)
        for path in PATHS:
            assert service.client(make_token(tenant)).post(EMPTY, path=path).status == 500
        # The flag does not exist, so its 404 does not need the store.
        assert service.client(make_token(tenant)).post(EMPTY, path=f"{FLAGS_PATH}/other").status == 404


def test_each_tenant_has_its_own_flag(
    service: Service, make_flag_client: MakeFlagClient, client: Client, tenant: str
) -> None:
    client.post({"enabled": True})
    assert make_flag_client(service, make_token(tenant)).get_boolean_value(FLAG, False)
    context = EvaluationContext(tenant, {"tenant": tenant})
    assert not make_flag_client(service, make_token(f"{tenant}-other")).get_boolean_value(FLAG, True, context)


def evaluation(*, enabled: bool, version: int) -> dict[str, object]:
    variant = "on" if enabled else "off"
    return {
        "key": FLAG,
        "value": enabled,
        "variant": variant,
        "reason": "STATIC",
        "metadata": {"version": version},
    }


def test_flag_list_has_one_flag_and_the_version_as_etag(client: Client) -> None:
    for version, enabled in enumerate((False, True)):
        client.post({"enabled": enabled})
        answer = client.post({"context": {"targetingKey": "x"}}, path=FLAGS_PATH)
        assert (answer.status, answer.headers["etag"]) == (200, f'"{version}"')
        assert answer.json == {
            "flags": [evaluation(enabled=enabled, version=version)], "metadata": {"version": version}
        }  # fmt: skip
        assert client.post(EMPTY, path=FLAG_PATH).json == evaluation(enabled=enabled, version=version)


@pytest.mark.parametrize("condition", ['"1"', 'W/"1"', '"0", "1"', "*"])
def test_unchanged_flags_are_a_304(client: Client, condition: str) -> None:
    client.post({"enabled": True})
    answer = client.post(EMPTY, path=FLAGS_PATH, headers={"If-None-Match": condition})
    assert (answer.status, answer.headers["etag"]) == (304, '"1"')
    client.post({"enabled": False})
    if condition != "*":
        assert client.post(EMPTY, path=FLAGS_PATH, headers={"If-None-Match": condition}).status == 200


@pytest.mark.parametrize("condition", ['"0"', "1", "nonsense"])
def test_flags_for_another_or_malformed_condition_are_answered_in_full(client: Client, condition: str) -> None:
    client.post({"enabled": True})
    assert client.post(EMPTY, path=FLAGS_PATH, headers={"If-None-Match": condition}).status == 200


def test_several_lines_of_if_none_match_are_one_list(client: Client) -> None:
    client.post({"enabled": True})
    (answer,) = client.raw(
        f"POST {FLAGS_PATH} HTTP/1.1\r\nHost: x\r\n%AUTH%\r\nContent-Type: application/json\r\n".encode()
        + b'If-None-Match: "0"\r\nIf-None-Match: "1"\r\nContent-Length: 2\r\n\r\n{}',
        path=FLAGS_PATH,
    )
    assert answer.status == 304


@pytest.mark.parametrize("modified", ["1771622898", "2026-02-20T21:28:18Z", "", "yesterday"])
def test_query_from_an_event_of_an_event_stream_changes_nothing(client: Client, modified: str) -> None:
    client.post({"enabled": True})
    query = {"flagConfigEtag": '"0"', "flagConfigLastModified": modified}
    assert client.post(EMPTY, path=FLAGS_PATH, params=query).json["flags"] == [evaluation(enabled=True, version=1)]
    unchanged = client.post(EMPTY, path=FLAGS_PATH, params=query, headers={"If-None-Match": '"1"'})
    assert unchanged.status == 304


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [
        b"{}", b'{"context": {}}', b'{"context": {"targetingKey": ""}}', b'{"context": {"tenant": "other"}}',
        b'{"context": {"a": {"b": [null, 1.5, "c"]}}, "more": 1}',
    ],
)  # fmt: skip
def test_context_does_not_change_the_tenant(client: Client, path: str, body: bytes) -> None:
    assert client.post(body, path=path).status == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("body", "code", "details"),
    [
        (b"", "PARSE_ERROR", "body: expected JSON, found an empty body."),
        (b"nonsense", "PARSE_ERROR", "body: expected JSON, found a syntax error at line 1 column 1."),
        (b'{"context": {}, "context": {}}', "PARSE_ERROR", "body: expected unique keys in each object."),
        (b'{"context": %s1%s}' % (b"[" * 32, b"]" * 32), "PARSE_ERROR", "body: expected at most 32 levels of nesting."),
        (b'{"context": {"a": "\\ud800"}}', "PARSE_ERROR", "body: expected valid UTF-8 without lone surrogates."),
        (b"[]", "INVALID_CONTEXT", "body: expected a value of type object."),
        (b'{"context": "x"}', "INVALID_CONTEXT", "body.context: expected a value of type object."),
        (b'{"context": null}', "INVALID_CONTEXT", "body.context: expected a value of type object."),
        (
            b'{"context": {"targetingKey": 1}}',
            "INVALID_CONTEXT",
            "body.context.targetingKey: expected a value of type string.",
        ),
    ],
)
def test_body_against_the_protocol_is_a_400_with_the_reason(
    client: Client, path: str, body: bytes, code: str, details: str
) -> None:
    answer = client.post(body, path=path)
    assert (answer.status, answer.json["errorCode"], answer.json["errorDetails"]) == (400, code, details)


@pytest.mark.parametrize("path", PATHS)
def test_other_errors_have_the_protocols_body(service: Service, client: Client, path: str) -> None:
    def general(answer: Answer) -> int:
        assert answer.json["errorCode"] == "GENERAL"
        return answer.status

    assert general(service.client(None).post(EMPTY, path=path)) == 401
    assert general(service.client("nonsense").post(EMPTY, path=path)) == 401
    assert general(client.request("GET", path)) == 405
    assert general(client.post(b" " * 20000, path=path)) == 413
    assert general(client.post(EMPTY, path=path, headers={"Content-Type": "text/plain"})) == 415
    assert general(client.request("POST", path, content=EMPTY)) == 415


@pytest.mark.parametrize("path", PATHS)
def test_errors_of_the_http_server_have_the_protocols_body(client: Client, path: str) -> None:
    start = b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n"
    (large,) = client.raw(start + b"X: " + b"x" * 40000 + b"\r\n\r\n", path=path)
    assert (large.status, large.json["errorCode"]) == (431, "GENERAL")
    (two_hosts,) = client.raw(start + b"Host: y\r\n\r\n", path=path, malformed=True)
    assert (two_hosts.status, two_hosts.json["errorCode"]) == (400, "GENERAL")
    chunked = b"%AUTH%\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"
    (bad_chunk,) = client.raw(start + chunked, path=path)
    assert (bad_chunk.status, bad_chunk.json["errorCode"]) == (400, "GENERAL")


@pytest.mark.parametrize("path", PATHS)
def test_flags_allow_post_only(client: Client, path: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = client.request(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")
    options = client.request("OPTIONS", path)
    assert (options.status, options.headers["allow"]) == (204, "OPTIONS, POST")


@pytest.mark.parametrize(
    "key", ["other", "External_oms.enabled", f"{FLAG}%0A", f"{FLAG}%00", "a%2Fb", "a/b", "%C3%A4", "..", "%22", "%25"]
)
def test_unknown_key_is_a_404(client: Client, key: str) -> None:
    path = f"{FLAGS_PATH}/{key}"
    (answer,) = client.raw(
        b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        path=path,
    )
    assert (answer.status, answer.json["errorCode"]) == (404, "FLAG_NOT_FOUND")


@pytest.mark.parametrize(
    "path", [f"{FLAGS_PATH}/", f"{OFREP_BASE}/evaluate", f"{OFREP_BASE}/configuration", f"{OFREP_BASE}/x{FLAGS_PATH}/y"]
)
def test_path_without_a_flag_is_a_general_404(client: Client, path: str) -> None:
    answer = client.post(EMPTY, path=path)
    assert (answer.status, answer.json["errorCode"]) == (404, "GENERAL")


def test_paths_outside_the_protocol_have_the_contracts_errors(client: Client) -> None:
    for path in ("/ofrep", "/ofrep/v10/evaluate/flags", "/ofrep/v2/evaluate/flags", f"/x{FLAGS_PATH}"):
        assert client.post(EMPTY, path=path).json["error_code"] == "not_found"


def test_logged_route_of_a_flag_does_not_contain_its_key(service: Service, client: Client, tenant: str) -> None:
    for path, route in ((f"{FLAGS_PATH}/k%20x", f"{FLAGS_PATH}/{{key}}"), (FLAGS_PATH, FLAGS_PATH)):
        request_id = client.post(EMPTY, path=path, headers={"X-Request-ID": f"{tenant}-{len(path)}"}).headers[
            "x-request-id"
        ]
        assert service.logs(f"request_id={request_id} method=POST route={route} path={path} status=")


def test_base_path_of_the_document_is_the_protocols() -> None:
    assert [server["url"] for server in OFREP["servers"]] == [OFREP_BASE]
