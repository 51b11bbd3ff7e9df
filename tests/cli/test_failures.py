"""Failures of `oms-config`: one line that names the cause and an exit status, never a traceback or a token."""

import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import trustme

from tests.cli.command import COMMAND, FakeServer, failure, http_reply, oms_config, watch
from tests.contract import Client
from tests.processes import ROOT, SECRET, Service, clean_environment, make_token, reserve_port
from tests.tls import TlsRelay
from tests.waiting import PATIENCE

TOKEN = make_token("acme")
HTML = http_reply("200 OK", "text/html; charset=utf-8", f"<html><title>Log in</title>{TOKEN}</html>")
VERBS = [("get",), ("set", "on"), ("history",), ("watch",)]
ANOTHER_SERVER = "returned 200: the response is not from the service"
REQUEST = r" \(request [A-Za-z0-9._-]+\)"


@pytest.mark.parametrize("verb", VERBS)
def test_missing_variables_are_named_together(verb: tuple[str, ...]) -> None:
    line = failure(oms_config(*verb), 2)
    assert "OMS_CONFIG_URL is not set" in line
    assert "OMS_CONFIG_TOKEN is not set" in line
    assert "OMS_CONFIG_URL" not in failure(oms_config(*verb, url="http://127.0.0.1:1"), 2)


def test_failure_is_json_with_the_json_option() -> None:
    done = oms_config("get", "--json", url="http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr) == {
        "error": "usage",
        "message": "OMS_CONFIG_TOKEN is not set: set it to an access token",
        "version": None,
        "request_id": None,
    }


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:99999",
        "http://me:hunter2@127.0.0.1",
        "http://127.0.0.1/?token=hunter2",
        "http://127.0.0.1/#hunter2",
        "http://127.0.0.1/\x1b",
    ],
)
def test_invalid_address_is_rejected_without_quoting_it(url: str) -> None:
    line = failure(oms_config("get", url=url, token=TOKEN), 2)
    assert line == "OMS_CONFIG_URL: the address must be http://host:port or https://host, without user or query"


@pytest.mark.parametrize("token", [f"Bearer {TOKEN}", f'"{TOKEN}"', f"{TOKEN}é", "a\nb"])
def test_malformed_token_is_not_sent(token: str) -> None:
    url = f"http://127.0.0.1:{reserve_port()}"
    line = failure(oms_config("get", url=url, token=token), 2)
    expected = "expected the token alone, without 'Bearer' or quotation marks"
    assert line == f"OMS_CONFIG_TOKEN: no token for {url}/v0: {expected}"


def test_there_is_no_option_for_the_token() -> None:
    done = oms_config("get", "--token", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such option '--token'" in done.stderr
    assert "--token" not in oms_config("get", "--help").stdout


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (("set",), "Missing argument"),
        (("set", "maybe"), "'maybe' is not one of 'on', 'off'"),
        (("set", "on", "--if-version", "-1"), "Invalid value for '--if-version': -1 is not in the range"),
        (("nonsense",), "No such command 'nonsense'"),
    ],
)
def test_wrong_usage_exits_with_status_2(wrong: tuple[str, ...], reason: str) -> None:
    done = oms_config(*wrong, url="http://127.0.0.1:1", token=TOKEN)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_rejected_token_exits_with_status_4(service: Service, tenant: str, verb: tuple[str, ...]) -> None:
    url = service.url
    line = failure(oms_config(*verb, url=url, token=make_token(tenant, exp=int(time.time()) - 5)), 4)
    assert re.fullmatch(re.escape(f"{url}/v0 returned 401: The token has expired.") + REQUEST, line)


@pytest.mark.parametrize("verb", VERBS)
def test_refused_connection_exits_with_status_5(verb: tuple[str, ...]) -> None:
    url = f"http://127.0.0.1:{reserve_port()}"
    assert failure(oms_config(*verb, url=url, token=TOKEN), 5) == f"cannot connect to {url}/v0: Connection refused"


def test_unknown_host_name_exits_with_status_5() -> None:
    line = failure(oms_config("get", url="http://unknown.invalid", token=TOKEN), 5)
    assert line.startswith("cannot connect to http://unknown.invalid/v0: ")


@pytest.mark.parametrize("verb", [("history",), ("watch",)])
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (HTML, ANOTHER_SERVER),
        (http_reply("200 OK", body="{not json"), ANOTHER_SERVER),
        (http_reply("200 OK", body="[" * 100_000), ANOTHER_SERVER),
        (http_reply("200 OK", body="[]"), ANOTHER_SERVER),
        (
            http_reply("200 OK", body='{"enabled": 1, "changes": 1}', ETag='"1"'),
            ANOTHER_SERVER,
        ),
        (http_reply("502 Bad Gateway", "text/html", "<html>"), "returned 502: the response is not from the service"),
        (http_reply("404 Not Found", "text/plain", "?"), "returned 404: the response is not from the service"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nContent-Type: application/json\r\n\r\n{", ""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "failed: the connection was closed"),
        (b"", "failed: the connection was closed"),
    ],
)
def test_response_of_another_server_exits_with_status_5(verb: tuple[str, ...], reply: bytes, words: str) -> None:
    with FakeServer(reply) as server:
        line = failure(oms_config(*verb, url=server.url, token=TOKEN), 5)
    assert words in line
    assert f"{server.url}/v0" in line


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_rejection_by_a_proxy_exits_with_status_4(status: str) -> None:
    with FakeServer(http_reply(status, "text/html", "<html>")) as server:
        line = failure(oms_config("get", url=server.url, token=TOKEN), 4)
    assert f"returned {status[:3]}: the response is not from the service" in line


@pytest.mark.parametrize("verb", VERBS)
def test_redirect_is_not_followed(verb: tuple[str, ...]) -> None:
    with (
        FakeServer(HTML) as other,
        FakeServer(http_reply("302 Found", Location=f"{other.url}/login/{TOKEN}?secret={TOKEN}")) as server,
    ):
        line = failure(oms_config(*verb, url=server.url, token=TOKEN), 5)
    assert "returned 302: the response is not from the service; check the address" in line
    assert other.requests == []


def test_redirect_without_a_valid_url_is_not_reported_as_200() -> None:
    with FakeServer(http_reply("302 Found", Location="javascript:alert(1)")) as server:
        line = failure(oms_config("get", url=server.url, token=TOKEN), 5)
    assert line.startswith(f"the request to {server.url}/v0 failed: the response is not from the service;")


def test_token_is_removed_from_an_error_message() -> None:
    body = json.dumps({"error_code": "x", "message": f"\x1b[2Jno {TOKEN}", "request_id": "x"})
    with FakeServer(http_reply("500 Oh", body=body)) as server:
        line = failure(oms_config("get", url=server.url, token=TOKEN), 5)
    assert r"returned 500: \x1b[2Jno [token]" in line


def test_control_characters_in_a_request_id_are_escaped() -> None:
    head = "HTTP/1.1 500 Oh\r\nX-Request-ID: \x1b[2J\x9b2J\u202e\r\n\r\n".encode()
    with FakeServer(head + b'{"message": "no"}') as server:
        line = failure(oms_config("get", url=server.url, token=TOKEN), 5)
    assert line.endswith(r"(request \x1b[2J\x9b2J\u202e)")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_token_is_removed_from_the_history(options: tuple[str, ...]) -> None:
    change = {"version": 1, "enabled": True, "changed_at": TOKEN, "changed_by": f"by {TOKEN}", "request_id": TOKEN}
    document = {"tenant": TOKEN, "changes": [change | {"reason": TOKEN}]}
    with FakeServer(http_reply("200 OK", body=json.dumps(document))) as server:
        done = oms_config("history", *options, url=server.url, token=TOKEN)
    assert done.returncode == 0
    assert (done.stdout + done.stderr).count("[token]") == 5


@pytest.mark.parametrize("verb", [("set", "on"), ("watch",)])
def test_response_timeout_exits_with_status_5(verb: tuple[str, ...]) -> None:
    with FakeServer(None) as server:
        line = failure(oms_config(*verb, url=server.url, token=TOKEN), 5)
    assert line.startswith(f"the request to {server.url}/v0 failed: no response in time")


@pytest.mark.parametrize(
    "reply",
    [
        HTML,
        b"",
        http_reply("500 Oh", body='{"error_code": "x", "message": "Couldn\'t", "request_id": "x"}'),
        http_reply("200 OK", body='{"enabled": true}'),
        http_reply("200 OK", body='{"enabled": false}', ETag='"1"'),
        http_reply("504 Gateway Timeout", "text/html", "<html>"),
    ],
)
def test_write_without_a_clear_response_has_an_unknown_outcome(reply: bytes) -> None:
    with FakeServer(reply) as server:
        line = failure(oms_config("set", "on", url=server.url, token=TOKEN), 5)
    assert re.search(r"; the change may or may not have been stored: check with `oms-config history`" + REQUEST, line)


def test_unsent_write_has_no_unknown_outcome() -> None:
    line = failure(oms_config("set", "on", url=f"http://127.0.0.1:{reserve_port()}", token=TOKEN), 5)
    assert "stored" not in line


def test_untrusted_certificate_exits_with_status_5(service: Service, tenant: str, tmp_path: Path) -> None:
    authority, token = trustme.CA(), make_token(tenant)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with TlsRelay(service.port, authority) as relay:
        url = f"https://127.0.0.1:{relay.port}"
        line = failure(oms_config("get", url=url, token=token), 5)
        assert line.startswith(f"cannot connect to {url}/v0: [SSL: CERTIFICATE_VERIFY_FAILED] ")
        assert oms_config("get", url=url, token=token, SSL_CERT_FILE=str(tmp_path / "authority.pem")).returncode == 0
    with TlsRelay(service.port, authority, "other.example") as relay:
        done = oms_config(
            "get",
            url=f"https://127.0.0.1:{relay.port}",
            token=token,
            SSL_CERT_FILE=str(tmp_path / "authority.pem"),
        )
        assert "certificate verify failed: IP address mismatch" in failure(done, 5)


def test_tls_to_a_plaintext_server_exits_with_status_5(service: Service) -> None:
    line = failure(oms_config("get", url=f"https://127.0.0.1:{service.port}", token=TOKEN), 5)
    assert line.startswith(f"cannot connect to https://127.0.0.1:{service.port}/v0: [SSL: ")


UNUSABLE = "cannot use the certificates or the proxy that SSL_CERT_FILE, SSL_CERT_DIR, HTTP_PROXY, "


def test_missing_certificate_file_exits_with_status_2() -> None:
    done = oms_config("get", url="https://127.0.0.1:1", token=TOKEN, SSL_CERT_FILE="/nowhere")
    assert failure(done, 2).startswith(UNUSABLE)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://me:hunter2@host", "http://[:hunter2"])
def test_invalid_proxy_exits_with_status_2_without_its_password(proxy: str) -> None:
    line = failure(oms_config("get", url="http://127.0.0.1:1", token=TOKEN, HTTP_PROXY=proxy, ALL_PROXY=proxy), 2)
    assert line.startswith(UNUSABLE)
    assert "hunter2" not in line


def test_unreachable_proxy_exits_with_status_5_without_its_password() -> None:
    proxy = f"http://me:hunter2@127.0.0.1:{reserve_port()}"
    line = failure(oms_config("get", url="http://oms.example", token=TOKEN, HTTP_PROXY=proxy), 5)
    way = "through the proxy of HTTP_PROXY or ALL_PROXY"
    assert line == f"cannot connect to http://oms.example/v0 {way}: Connection refused"


def test_proxy_that_rejects_the_connection_exits_with_status_5() -> None:
    with FakeServer(http_reply("407 Proxy Authentication Required", "text/html", "<html>")) as proxy:
        line = failure(oms_config("get", url="https://oms.example", token=TOKEN, HTTPS_PROXY=proxy.url), 5)
    way = "through the proxy of HTTPS_PROXY or ALL_PROXY"
    assert line == f"cannot connect to https://oms.example/v0 {way}: the proxy rejected the connection"
    assert not any(TOKEN.encode() in request for request in proxy.requests)


def test_ctrl_c_ends_a_write_with_an_unknown_outcome() -> None:
    with FakeServer(None) as server:
        process = subprocess.Popen(
            [*COMMAND, "set", "on"],
            cwd=ROOT,
            env=clean_environment({"OMS_CONFIG_URL": server.url, "OMS_CONFIG_TOKEN": TOKEN}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.has_request.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (-signal.SIGINT, "")
    assert stderr == "\ninterrupted: the change may or may not have been stored: check with `oms-config history`\n"


def test_closed_output_pipe_prints_no_error(service: Service, tenant: str) -> None:
    oms_config("set", "on", url=service.url, token=make_token(tenant))
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*COMMAND, "history"],
        cwd=ROOT,
        env=clean_environment({"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": make_token(tenant)}),
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, f"changes of tenant {tenant}\n".encode())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize(
    ("arguments", "note"), [(("get",), ""), (("--help",), ""), (("set", "on"), "; the setting was set")]
)
def test_unwritable_output_exits_with_status_5(
    service: Service, tenant: str, arguments: tuple[str, ...], note: str
) -> None:
    own = {"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": make_token(tenant)}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=ROOT,
            env=clean_environment(own),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    expected = f"error   cannot write the output: No space left on device{note}\n"
    assert (done.returncode, done.stderr.decode()) == (5, expected)


@pytest.mark.parametrize("arguments", ["set on", "get", "token", "--help", "--version"])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_closed_output_exits_with_status_5_and_sends_nothing(
    service: Service, tenant: str, client: Client, arguments: str, closed: str
) -> None:
    own = {"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": make_token(tenant), "JWT_SECRET": SECRET}
    command = f"{shlex.join(COMMAND)} {arguments} {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=ROOT,
        env=clean_environment(own),
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    expected = b"" if "2>" in closed else b"error   cannot write the output: stdout is closed\n"
    assert (done.returncode, done.stderr) == (5, expected)
    assert client.history() == []


@pytest.mark.parametrize("verb", [("history",), ("watch",)])
def test_control_characters_in_a_change_are_escaped(verb: tuple[str, ...], tmp_path: Path) -> None:
    change = {"version": 2, "enabled": True, "changed_at": "\x1b[2J\n", "changed_by": "\x1b[3J", "request_id": "\x1b"}
    change |= {"reason": "\x1b[4J\u202e", "tenant": "\x1b[5J"}
    body = json.dumps({"tenant": "\x1b[5J", "changes": [change]})
    events = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: change\ndata: {json.dumps(change)}\n\n"
    with FakeServer(http_reply("200 OK", body=body) if verb == ("history",) else events.encode()) as server:
        if verb == ("history",):
            done = oms_config(*verb, url=server.url, token=TOKEN)
            row, errors = done.stdout.rstrip("\n"), done.stderr
        else:
            with watch(tmp_path, url=server.url, token=TOKEN) as watcher:
                row, errors = watcher.line(), watcher.errors
    assert errors.splitlines()[0] == r"changes of tenant \x1b[5J"
    assert row.endswith(r'  "\x1b[4J\u202e"')
    assert row.startswith(r"2  on   \x1b[2J\n  \x1b[3J")
    assert row.isprintable()


@pytest.mark.parametrize(
    ("verb", "headers", "body"),
    [
        ("history", "", b"x" * (2 << 20)),
        ("history", "Content-Encoding: gzip\r\n", gzip.compress(b'{"changes": []}')),
        ("watch", "", b"x" * (2 << 20)),
        ("watch", "", b"data: x\n" * (1 << 18)),
        ("watch", "Content-Encoding: gzip\r\n", gzip.compress(b"\n" * 99)),
    ],
    ids=["response", "compressed response", "line", "event", "compressed stream"],
)
def test_response_that_could_grow_without_bound_is_not_read(verb: str, headers: str, body: bytes) -> None:
    kind = "text/event-stream" if verb == "watch" else "application/json"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{headers}\r\n"
    with FakeServer(head.encode() + body, then_close=False) as server:
        line = failure(oms_config(verb, url=server.url, token=TOKEN), 5)
    assert "returned 200: the response is not from the service" in line
