import re
from urllib.parse import urljoin

import pytest
import yaml

from tests.contract import Client
from tests.processes import Service


@pytest.mark.parametrize("prefix", ["", "/api", "/a/b"])
@pytest.mark.parametrize("path", ["/", "/v0/ui"])
def test_shortcuts_redirect_to_the_page_below_any_prefix(client: Client, path: str, prefix: str) -> None:
    answer = client.request("GET", path)
    assert answer.status == 307
    assert urljoin(f"http://proxy.example{prefix}{path}", answer.headers["location"]) == (
        f"http://proxy.example{prefix}/v0/ui/"
    )


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/v0/ui/", "text/html; charset=utf-8"),
        ("/v0/ui/page.js", "text/javascript; charset=utf-8"),
        ("/v0/ui/accessibility.js", "text/javascript; charset=utf-8"),
        ("/v0/ui/event_stream.js", "text/javascript; charset=utf-8"),
        ("/v0/ui/page.css", "text/css; charset=utf-8"),
        ("/v0/ui/page.json", "application/json"),
        ("/v0/ui/bundle/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/v0/ui/bundle/swagger-ui-standalone-preset.js", "text/javascript; charset=utf-8"),
        ("/v0/ui/bundle/swagger-ui.css", "text/css; charset=utf-8"),
    ],
)
def test_the_page_is_served_under_a_strict_policy(client: Client, path: str, media_type: str) -> None:
    answer = client.request("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, media_type)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


def test_the_page_names_no_other_host(client: Client) -> None:
    for file in ("", "page.js", "accessibility.js", "event_stream.js", "page.css", "page.json"):
        content = client.request("GET", f"/v0/ui/{file}").content
        assert not re.search(rb"//(?! )", content)  # with a space, it is a comment


def test_page_lists_every_document_by_its_title(client: Client) -> None:
    documents = client.request("GET", "/v0/ui/page.json").json["urls"]
    assert documents[0] == {"name": "External OMS Config API", "url": "../../openapi.yaml"}
    titles = {}
    for document in documents:
        content = client.request("GET", urljoin("/v0/ui/", document["url"])).content
        titles[document["name"]] = yaml.safe_load(content)["info"]["title"]
    client_title = titles.pop("External OMS Config API, for clients")
    assert client_title == "External OMS Config API"
    assert len(titles) == 3
    assert all(name == title for name, title in titles.items())


@pytest.mark.parametrize("path", ["/", "/v0/ui", "/v0/ui/", "/v0/ui/page.js", "/openapi.yaml", "/docs/x"])
def test_pages_are_read_only(client: Client, path: str) -> None:
    answer = client.request("POST", path)
    assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"GET", "HEAD", "OPTIONS"})
    assert client.request("HEAD", path).status in {200, 307}


@pytest.mark.parametrize(
    "path",
    [
        "/v0/ui/nothing",
        "/v0/ui/bundle/nothing",
        "/v0/ui/" + "a/" * 15_000,
        "/v0/ui/%2e%2e/%2e%2e/pages.py",
        "/docs",
        "/docs/%0d%0aX:y",
    ],
)
def test_unknown_page_is_a_404(client: Client, path: str) -> None:
    assert client.request("GET", path).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/docs/glossary.html", "/docs/a%20b/c.html", "/docs/", "/docs/a/", "/docs//evil.example", "/docs/a:b;c",
        "/docs/x.html?a=b&c=%26%23", "/docs/x?", "/docs/what%3F%23.html?y", "/docs/a%2Fb%2f%25", "/docs/%C3%A4",
        "/docs/@evil.example", "/docs/%5Cevil.example", "/docs/?url=https://evil.example/",
    ],
)  # fmt: skip
def test_links_of_the_contract_redirect_unchanged_to_the_documentation(client: Client, path: str) -> None:
    (answer,) = client.raw(f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode(), path=path)
    assert (answer.status, answer.headers["location"]) == (307, f"https://docs.newstore.net{path.removesuffix('?')}")


@pytest.mark.parametrize("target", [b"http://evil.example/docs/x", b"//evil.example/docs/x", b"/docs/\\evil.example"])
def test_no_redirect_leads_to_a_host_named_in_the_request(client: Client, target: bytes) -> None:
    (answer,) = client.raw(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n", path="/docs/x", malformed=True)
    assert answer.status >= 400 or answer.headers["location"].startswith("https://docs.newstore.net/docs/")


def test_documentation_address_is_configurable(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> None:
    log = tmp_path_factory.mktemp("docs") / "log"
    with Service(log, redis_url, DOCS_URL="http://docs.example/en/") as service:
        answer = service.client(None).request("GET", "/docs/x.html")
        assert answer.headers["location"] == "http://docs.example/en/docs/x.html"


FILES = [
    "/v0/ui/", "/v0/ui/page.json", "/v0/ui/page.js", "/v0/ui/accessibility.js", "/v0/ui/event_stream.js",
    "/v0/ui/page.css", "/v0/ui/bundle/swagger-ui-bundle.js",
    "/v0/ui/bundle/swagger-ui.css", "/v0/ui/bundle/favicon-32x32.png",
    "/openapi.yaml", "/client.yaml", "/extensions.yaml", "/ofrep.yaml",
]  # fmt: skip


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_revalidated_by_its_etag(client: Client, path: str) -> None:
    answer = client.request("GET", path)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-cache")
    tag = answer.headers["etag"]
    assert re.fullmatch(r'"[!#-~]+"', tag)
    for method in ("GET", "HEAD"):
        for condition in (tag, f'"other", W/{tag}'):
            again = client.request(method, path, headers={"If-None-Match": condition})
            assert (again.status, again.headers["etag"], again.content) == (304, tag, b"")
            assert again.headers["cache-control"] == "no-cache"
    assert client.request("GET", path, headers={"If-None-Match": '"other"'}).content == answer.content


@pytest.mark.parametrize("path", FILES)
def test_no_range_of_a_file_is_offered_or_served(client: Client, path: str) -> None:
    whole = client.request("GET", path)
    for value in ("bytes=0-3", "bytes=9-1", "nonsense"):
        answer = client.request("GET", path, headers={"Range": value})
        assert (answer.status, answer.content) == (200, whole.content)
        assert "accept-ranges" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", path, 200) for path in FILES), ("GET", "/", 307), ("GET", "/v0/ui", 307), ("HEAD", "/docs/x", 307),
        ("GET", "/docs/x", 307), ("POST", "/", 405), ("POST", "/docs/x", 405), ("PUT", "/openapi.yaml", 405),
        ("POST", "/v0/ui/", 405), ("POST", "/v0/ui/bundle/x", 405), ("GET", "/v0/ui/x", 404),
        ("GET", "/v0/ui/bundle/x", 404),
    ],
)  # fmt: skip
def test_every_answer_of_the_pages_has_the_protective_headers(
    client: Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status == status
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_etag_of_a_document_depends_on_its_bytes_only(client: Client, stoppable: Service) -> None:
    for path in ("/openapi.yaml", "/client.yaml", "/v0/ui/page.json"):
        other = stoppable.client(None).request("GET", path)
        assert other.headers["etag"] == client.request("GET", path).headers["etag"]
    tags = {
        client.request("GET", path).headers["etag"] for path in ("/openapi.yaml", "/extensions.yaml", "/ofrep.yaml")
    }
    assert len(tags) == 3
