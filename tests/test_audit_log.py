"""The audit log of the service: its lines at each level, in each format, from each worker."""

import json
import re
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from tests.contract import PATH
from tests.processes import Service, make_token, process_of, start_store, suspended
from tests.test_logs import FORMATS, PARENT, TRACE

FORGERY: Final = 'x" outcome=unknown event=\'forged\' \\ %0a {"event": "forged"} é \U0001f600 [31m'


def audit_lines(service: Service) -> list[dict[str, Any]]:
    """Return the audit lines in a JSON log."""
    lines = [json.loads(line) for line in service.log.splitlines()]
    return [line for line in lines if line["event"] == "setting_changed"]


@pytest.mark.parametrize("level", ["DEBUG", "WARNING", "ERROR", "CRITICAL"])
def test_change_is_one_line_with_all_fields_at_every_level(
    tmp_path: Path, redis_url: str, tenant: str, level: str
) -> None:
    headers = {
        "X-Request-ID": "order-4711", "Change-Reason": "caf%C3%A9", "traceparent": f"00-{TRACE}-{PARENT}-01",
    }  # fmt: skip
    with Service(tmp_path / "log", redis_url, LOG_FORMAT="json", LOG_LEVEL=level) as service:
        client = service.client(make_token(tenant, sub="anna"))
        for _ in range(2):
            assert client.post({"enabled": True}, headers=headers).status == 200
        assert client.post({"enabled": False}, headers={"If-Match": '"7"'}).status == 409
        assert client.post({"enabled": False}, headers={"Change-Reason": "%"}).status == 400
        assert service.logs("setting_changed")
    (line,) = audit_lines(service)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("time"))
    assert line == {
        "level": "info", "event": "setting_changed", "tenant": tenant, "enabled": True, "version": 1,
        "outcome": "stored", "changed_by": "anna", "reason": "café", "request_id": "order-4711", "trace_id": TRACE,
    }  # fmt: skip


@pytest.mark.parametrize("log_format", FORMATS)
def test_reason_and_author_cannot_forge_a_line(tmp_path: Path, redis_url: str, tenant: str, log_format: str) -> None:
    with Service(tmp_path / "log", redis_url, LOG_FORMAT=log_format, LOG_LEVEL="WARNING") as service:
        client = service.client(make_token(tenant, sub="a\ntime=now event=setting_changed\x1b[31m\u2028\u202e"))
        assert client.post({"enabled": True}, headers={"Change-Reason": quote(FORGERY)}).status == 200
        assert client.history()[0]["reason"] == FORGERY
        assert service.logs("setting_changed")
    (line,) = service.log.splitlines()  # also splits at U+2028
    assert line.isprintable()
    if log_format == "json":
        assert json.loads(line)["reason"] == FORGERY
    if log_format == "logfmt":
        # As the searches in docs/operating.md expect it.
        assert re.match(rf"time=\S+ level=info event=setting_changed request_id=\S+ tenant={tenant} ", line)
        value = re.search(r' reason="((?:[^"\\]|\\.)*)"', line)
        assert value is not None
        assert re.sub(r"\\(.)", r"\1", value[1]) == FORGERY
        assert len(re.findall(r" outcome=\w+", re.sub(r'"(?:[^"\\]|\\.)*"', '""', line))) == 1


def test_changes_of_two_workers_are_one_line_each(tmp_path: Path, redis_url: str, tenant: str) -> None:
    def change(number: int) -> int:
        client = service.client(make_token(tenant))
        headers = {"X-Request-ID": f"change-{number}", "Connection": "close"}
        return client.post({"enabled": number % 2 == 0}, headers=headers).status

    own = {"LOG_FORMAT": "json", "LOG_LEVEL": "ERROR", "WEB_CONCURRENCY": "2"}
    with Service(tmp_path / "log", redis_url, **own) as service:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(change, range(100))) <= {200, 409}
        history = service.client(make_token(tenant)).history(limit=100)
    names = ("version", "enabled", "changed_by", "request_id")
    logged = {line["version"]: tuple(line[name] for name in names) for line in audit_lines(service)}
    assert len(logged) == len(audit_lines(service)) == len(history) > 1
    assert logged == {change["version"]: tuple(change[name] for name in names) for change in history}


def test_change_of_a_client_that_leaves_is_one_line(tmp_path: Path, tenant: str) -> None:
    store = start_store(tmp_path / "store")
    own = {"LOG_FORMAT": "json", "REDIS_TIMEOUT": "20"}
    with Service(tmp_path / "log", f"redis://127.0.0.1:{store.port}", **own) as service:
        token = make_token(tenant)
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nX-Request-ID: left\r\n"
        body = 'Content-Type: application/json\r\nContent-Length: 16\r\n\r\n{"enabled":true}'
        with suspended(process_of(store)):
            with socket.create_connection(("127.0.0.1", service.port)) as client:
                client.sendall((head + body).encode())
                service.client(None).request("GET", "/livez")  # when it is answered, the write has begun
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
            service.client(None).request("GET", "/livez")
        assert service.logs('"method": "POST"')
        assert [change["request_id"] for change in service.client(token).history()] == ["left"]
    store.stop()
    assert [(line["request_id"], line["outcome"]) for line in audit_lines(service)] == [("left", "stored")]
