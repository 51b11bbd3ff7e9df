"""CORS headers for pages of other origins."""

from collections.abc import Iterator

import pytest

from tests.contract import FLAGS_PATH, PATH, Answer, Client
from tests.processes import Service, make_token

PAGE = "https://admin.example"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,if-match",
}


@pytest.fixture(scope="module")
def cors_service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """A service that allows two origins."""
    log = tmp_path_factory.mktemp("cors") / "log"
    with Service(log, redis_url, CORS_ALLOW_ORIGINS=f"http://localhost:3000,{PAGE}") as service:
        yield service


@pytest.fixture
def page_client(cors_service: Service, tenant: str) -> Client:
    return cors_service.client(make_token(tenant))


def cors_headers(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", [PATH, f"{PATH}/history", FLAGS_PATH, f"{FLAGS_PATH}/x", "/nothing"])
def test_a_preflight_is_answered_without_a_token_and_before_routing(cors_service: Service, path: str) -> None:
    answer = cors_service.client(None).request("OPTIONS", path, headers=PREFLIGHT)
    assert (answer.status, answer.content) == (204, b"")
    headers = {
        name: set(value.lower().split(", "))
        for name, value in cors_headers(answer).items()
        if name != "access-control-expose-headers"
    }
    assert headers == {
        "access-control-allow-origin": {PAGE},
        "access-control-allow-methods": {"get", "post"},
        "access-control-allow-headers": {
            "authorization", "change-reason", "content-type", "if-match", "if-none-match", "last-event-id",
            "x-request-id",
        },
        "access-control-max-age": {"600"},
    }  # fmt: skip
    assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "requested",
    [
        "authorization,traceparent", "baggage, sentry-trace,tracestate", "b3", "x-b3-sampled,x-b3-spanid,x-b3-traceid",
        "request-context,request-id", "x-datadog-trace-id", "newrelic", "uber-trace-id", "x-amzn-trace-id", "x_y",
    ],
)  # fmt: skip
def test_page_may_send_the_headers_of_its_tracing_library(cors_service: Service, requested: str) -> None:
    preflight = {**PREFLIGHT, "Access-Control-Request-Headers": requested}
    answer = cors_service.client(None).request("OPTIONS", headers=preflight)
    allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
    assert allowed >= {"authorization", "if-match", *requested.replace(" ", "").split(",")}
    answer = cors_service.client(None).request("OPTIONS", headers={**preflight, "Origin": "https://evil.example"})
    assert cors_headers(answer) == {}


@pytest.mark.parametrize("requested", ["", ",,", "a b: c;", 'x"', "<script>", "ä"])
def test_malformed_header_names_are_not_repeated(cors_service: Service, requested: str) -> None:
    preflight = {**PREFLIGHT, "Access-Control-Request-Headers": requested.encode()}
    answer = cors_service.client(None).request("OPTIONS", headers=preflight)
    assert answer.headers["access-control-allow-headers"].endswith("Last-Event-ID, X-Request-ID")


@pytest.mark.parametrize("origin", ["https://evil.example", "https://admin.example.evil", "null", PAGE.upper(), ""])
def test_other_origins_are_not_allowed(cors_service: Service, page_client: Client, origin: str) -> None:
    preflight = cors_service.client(None).request("OPTIONS", headers={**PREFLIGHT, "Origin": origin})
    for answer in (preflight, page_client.get(headers={"Origin": origin})):
        assert cors_headers(answer) == {}
        assert answer.headers["vary"] == "Origin"
        assert answer.status in {200, 204}


def test_page_can_read_all_answers_including_errors(cors_service: Service, page_client: Client) -> None:
    origin = {"Origin": PAGE}
    written = page_client.post({"enabled": True}, headers=origin)
    answers = [
        written,
        page_client.get(headers={**origin, "If-None-Match": written.headers["etag"]}),
        page_client.post({"enabled": False}, headers={**origin, "If-Match": '"7"'}),
        page_client.post({"enabled": 1}, headers=origin),
        cors_service.client(None).get(headers=origin),
        page_client.request("DELETE", headers=origin),
        page_client.request("GET", "/nothing", headers=origin),
    ]
    assert [answer.status for answer in answers] == [200, 304, 409, 400, 401, 405, 404]
    for answer in answers:
        assert cors_headers(answer) == {
            "access-control-allow-origin": PAGE,
            "access-control-expose-headers": "ETag, Oms-Tenant, X-Request-ID",
        }
        assert answer.headers["vary"] == "Origin"


def test_answer_without_an_origin_has_vary_origin(page_client: Client) -> None:
    answer = page_client.get()
    assert (cors_headers(answer), answer.headers["vary"]) == ({}, "Origin")


def test_options_without_preflight_headers_lists_the_methods(page_client: Client) -> None:
    for headers in ({}, {"Origin": PAGE}, {"Access-Control-Request-Method": "GET"}):
        answer = page_client.request("OPTIONS", headers=headers)
        assert (answer.status, set(answer.headers["allow"].split(", "))) == (204, {"GET", "HEAD", "OPTIONS", "POST"})


def test_wildcard_allows_every_origin_and_reflects_none(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> None:
    with Service(tmp_path_factory.mktemp("any") / "log", redis_url, CORS_ALLOW_ORIGINS="*") as service:
        client = service.client(make_token("any-origin"))
        for answer in (client.get(headers={"Origin": PAGE}), client.request("OPTIONS", headers=PREFLIGHT)):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "vary" not in answer.headers
            assert "access-control-allow-credentials" not in answer.headers


def test_without_configured_origins_there_are_no_cors_headers(client: Client) -> None:
    answer = client.get(headers={"Origin": PAGE})
    preflight = client.request("OPTIONS", headers=PREFLIGHT)
    assert (cors_headers(answer), cors_headers(preflight)) == ({}, {})
    assert "vary" not in answer.headers
    assert "allow" in preflight.headers
