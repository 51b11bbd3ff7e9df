"""The proxy that `oms-config` uses, and the hosts that NO_PROXY excludes."""

import httpx
import pytest

from external_oms_config.proxy import proxy_for
from tests.cli.command import FakeServer, failure, http_reply, oms_config
from tests.processes import Service, make_token, reserve_port

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", "http://x"), ("other *", "http://x"), ("localhost,127.0.0.1,[::1]", "http://localhost:8000"),
        ("localhost,127.0.0.1,[::1]", "http://127.0.0.1:8000"), ("localhost,127.0.0.1,[::1]", "http://[::1]:8000"),
        ("::1", "http://[::1]"), ("[::1]:8000", "http://[::1]:8000"), ("0:0:0:0:0:0:0:1", "http://[::1]"),
        ("[fd00::]/8", "http://[fd12::3]"), ("fd00::/8", "http://[fd12::3]"), ("10.0.0.0/8", "http://10.1.2.3"),
        ("10.9.9.9/8", "http://10.1.2.3"), ("example.com", "http://example.com"), ("example.com", "http://a.example.com"),
        (".example.com", "http://a.example.com"), ("*.example.com", "https://a.b.example.com"),
        ("EXAMPLE.com", "https://example.COM"), ("example.com.", "https://example.com"), ("x", "https://x."),
        ("x:80", "http://x"), ("x:443", "https://x"), (" a ,, x ", "http://x"), ("http://x", "http://x"),
    ],
)  # fmt: skip
def test_host_in_no_proxy_is_reached_directly(monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(httpx.URL(url)) is None


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", "http://x"), (",", "http://x"), ("x", "http://xx"), ("example.com", "http://notexample.com"),
        ("a.example.com", "http://example.com"), ("x:81", "http://x"), ("x:80", "https://x"), ("[::1]:1", "http://[::1]:8"),
        ("::1", "http://localhost"), ("10.0.0.0/8", "http://11.0.0.1"), ("10.0.0.0/8", "http://[fd00::1]"),
        ("[", "http://x"), (".", "http://x"), ("10.0.0.0/99", "http://10.0.0.1"),
    ],
)  # fmt: skip
def test_other_hosts_are_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch, no_proxy: str, url: str) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(httpx.URL(url)) == PROXY


def test_proxy_depends_on_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for(httpx.URL("http://x")) is None
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert proxy_for(httpx.URL("https://x")) == PROXY
    assert proxy_for(httpx.URL("http://x")) is None


@pytest.mark.parametrize("no_proxy", ["localhost,127.0.0.1,[::1]", "127.0.0.0/8", "*"])
def test_command_reaches_the_service_without_the_proxy(service: Service, tenant: str, no_proxy: str) -> None:
    own = {"HTTP_PROXY": f"http://127.0.0.1:{reserve_port()}", "NO_PROXY": no_proxy}
    assert oms_config("get", url=service.url, token=make_token(tenant), **own).returncode == 0


def test_command_reaches_the_service_through_the_proxy() -> None:
    with FakeServer(http_reply("200 OK", body='{"enabled": true}', ETag='"7"')) as proxy:
        done = oms_config(
            "get", url="http://oms.example", token=make_token("acme"), HTTP_PROXY=proxy.url, NO_PROXY="[::1]"
        )
    assert done.stdout == "on (version 7)\n"
    assert proxy.requests[0].startswith(b"GET http://oms.example/v0/config/sales_order/external_oms HTTP/1.1\r\n")


@pytest.mark.parametrize("tag", ['W/"7"', '"7-gzip"', 'W/"7;gzip"', '"7--br"'])
def test_tag_that_a_proxy_changed_is_the_version(tag: str) -> None:
    with FakeServer(http_reply("200 OK", body='{"enabled": true}', ETag=tag)) as proxy:
        assert oms_config("get", url=proxy.url, token=make_token("acme")).stdout == "on (version 7)\n"


@pytest.mark.parametrize("headers", [{}, {"ETag": '"5d3f2a10"'}, {"ETag": "null"}])
def test_proxy_that_removes_the_version_is_named(headers: dict[str, str]) -> None:
    with FakeServer(http_reply("200 OK", body='{"enabled": true}', **headers)) as proxy:
        line = failure(oms_config("get", url=proxy.url, token=make_token("acme")), 5)
    assert "returned 200: a proxy in front of the service has removed or replaced the header ETag" in line
