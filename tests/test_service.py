"""The contract over HTTP, as a consumer uses it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract import PATH, Client
from tests.processes import Service, make_token


def test_a_setting_that_was_never_set_is_not_enabled(client: Client) -> None:
    assert client.get().json == {"enabled": False}


def test_a_setting_is_read_as_it_was_written(client: Client) -> None:
    for enabled in (True, True, False, True):
        answer = client.post({"enabled": enabled})
        assert (answer.status, answer.json) == (200, {"enabled": enabled})
        assert client.get().json == {"enabled": enabled}


def test_tenants_have_separate_settings(service: Service, client: Client, tenant: str) -> None:
    other = service.client(make_token(f"{tenant}-other"))
    client.post({"enabled": True})
    assert client.enabled()
    assert not other.enabled()


def test_concurrent_requests_of_many_tenants_do_not_mix(service: Service, tenant: str) -> None:
    clients = {n: service.client(make_token(f"{tenant}-{n}")) for n in range(100)}
    with ThreadPoolExecutor(16) as pool:
        written = pool.map(lambda n: clients[n].post({"enabled": n % 3 == 0}).json["enabled"], clients)
        assert list(written) == [n % 3 == 0 for n in clients]
        assert list(pool.map(lambda n: clients[n].enabled(), clients)) == [n % 3 == 0 for n in clients]


def test_concurrent_writes_of_one_tenant_succeed_or_conflict(client: Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: client.post({"enabled": n % 2 == 0}).status, range(200)))
    assert set(answers) <= {200, 409}
    assert 200 in answers


def test_properties_that_the_schema_does_not_name_are_ignored(client: Client) -> None:
    assert client.post({"enabled": True, "else": [1, {"x": None}]}).status == 200
    assert client.enabled()


def test_a_head_request_is_answered_as_get_without_the_body(client: Client) -> None:
    answer = client.request("HEAD")
    assert (answer.status, answer.content, answer.headers["content-length"]) == (200, b"", "18")


def test_options_names_all_methods(client: Client) -> None:
    answer = client.request("OPTIONS")
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_another_method_is_a_405_with_the_allowed_methods(client: Client, method: str) -> None:
    answer = client.request(method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")


@pytest.mark.parametrize(
    "path",
    [
        PATH + "/",
        "/v0//config/sales_order/external_oms",
        "/" + PATH,
        "/config/sales_order/external_oms",
        PATH.upper(),
        "/v0",
        "/v0/",
        "/v0/openapi.json",
        "/v0/%ff%00%0a",
        "/v0/%E2%82",
        "/static/x",
        "/v0/ui/../../openapi.yaml/x",
        "/v0/ui/%2e%2e/pages.py",
        "/x" * 4000,
    ],
)
def test_unknown_path_is_a_404(client: Client, path: str) -> None:
    assert client.request("GET", path).status == 404
    assert client.request("POST", path, json={"enabled": True}).status in {404, 405}
    assert not client.enabled()


def test_a_caller_keeps_its_own_request_id(client: Client) -> None:
    for own in ("a", "ec2f3c9bb016ba971bf6074098363", "A.b_c-9" * 9):
        assert client.get(headers={"X-Request-ID": own}).headers["x-request-id"] == own


@pytest.mark.parametrize("own", ["", "a b", "x" * 65, 'a"b', "<script>"])
def test_invalid_request_id_is_replaced(client: Client, own: str) -> None:
    assert client.get(headers={"X-Request-ID": own}).headers["x-request-id"] != own


def test_request_id_is_in_the_log(service: Service, client: Client) -> None:
    request_id = client.get().headers["x-request-id"]
    assert service.logs(f"request_id={request_id} method=GET route={PATH} path={PATH} status=200")
