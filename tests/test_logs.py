"""Log lines: one per record, in the configured format, safe from forgery, without secrets."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from hypothesis import strategies as st
from jwt.utils import base64url_encode

from app.logs import MAX_FIELD_BYTES, MAX_TRACEBACK_BYTES, formatter, logging_config, startup_error
from bench.processes import cpu_seconds
from tests.contract import HISTORY_PATH, PATH, Wire
from tests.processes import ROOT, SECRET, WEB, Service, clean_environment, make_token, start_broken
from tests.waiting import PATIENCE

FORMATS = ["logfmt", "json", "cloud", "console"]
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
# Line ends of several standards, terminal sequences, text direction, half a character and text like a field.
HOSTILE_TEXT = "x\r\ny\n\x1b[31m\x07\x85\u2028\u2029\u202e\x9b\ud800\t\x00 level=info \" \\ ' {time=now}"


def objects(log: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON log. Any other line is an error."""
    return [json.loads(line) for line in log.splitlines()]


def line_of(service: Service, request_id: str) -> dict[str, Any]:
    """Return the one line that the service logged about a request."""
    assert service.logs(f'"request_id": "{request_id}"')
    (line,) = [each for each in objects(service.log) if each.get("request_id") == request_id]
    return line


@pytest.fixture(scope="module")
def logging_service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Any:
    log = tmp_path_factory.mktemp("logs") / "log"
    with Service(log, redis_url, LOG_FORMAT="json", JWT_READ_SCOPE="oms:read") as service:
        yield service


def valid_token(tenant: str) -> str:
    return make_token(tenant, scope="oms:read")


def test_request_is_one_line_with_all_its_fields(logging_service: Service, tenant: str) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "the-callers-own"}
    logging_service.client(valid_token(tenant)).get(headers=headers)
    line = line_of(logging_service, "the-callers-own")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("time"))
    assert 0 < line.pop("duration_ms") < 10_000
    assert line == {
        "level": "info", "event": "request", "request_id": "the-callers-own", "method": "GET", "route": PATH,
        "path": PATH, "status": 200, "tenant": tenant, "trace_id": TRACE, "parent_id": PARENT,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_line", "route", "status"),
    [
        (f"GET {HISTORY_PATH}?limit=1", HISTORY_PATH, 200),
        (f"DELETE {PATH}", PATH, 405),
        (f"OPTIONS {PATH}", PATH, 204),
        ("GET /openapi.yaml", "/openapi.yaml", 200),
        ("DELETE /openapi.yaml", "/openapi.yaml", 405),
        ("GET /v0/ui/bundle/swagger-ui.css", "/v0/ui/bundle/{path}", 200),
        ("GET /v0/ui/nothing", "/v0/ui/{path}", 404),
        ("GET /docs/a/b", "/docs/{path}", 307),
        ("GET /v0/nothing", "unmatched", 404),
        (f"GET {PATH}/", "unmatched", 404),
        ("GET /wp-login.php", "unmatched", 404),
    ],
)
def test_route_is_the_path_of_the_document_or_unmatched(
    logging_service: Service, tenant: str, request_line: str, route: str, status: int
) -> None:
    method, path = request_line.split()
    answer = logging_service.client(valid_token(tenant)).request(method, path)
    line = line_of(logging_service, answer.headers["x-request-id"])
    assert (line["method"], line["route"], line["status"]) == (method, route, status)
    assert line["path"] == path.partition("?")[0]


def test_tenant_is_logged_only_for_a_valid_token(logging_service: Service, tenant: str) -> None:
    forbidden = logging_service.client(make_token(tenant, scope="another")).get()
    rejected = logging_service.client(make_token(tenant, exp=1)).get()
    assert (forbidden.status, rejected.status) == (403, 401)
    assert line_of(logging_service, forbidden.headers["x-request-id"])["tenant"] == tenant
    assert "tenant" not in line_of(logging_service, rejected.headers["x-request-id"])


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01",
        f"01-{TRACE}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-more", f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-0g", "",
    ],
)  # fmt: skip
def test_invalid_traceparent_is_left_out(logging_service: Service, traceparent: str) -> None:
    answer = logging_service.client(None).get(headers={"traceparent": traceparent})
    assert not {"trace_id", "parent_id"} & line_of(logging_service, answer.headers["x-request-id"]).keys()


def test_two_traceparents_are_left_out(logging_service: Service) -> None:
    value = f"00-{TRACE}-{PARENT}-01".encode()
    request = b"GET " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n" + (b"traceparent: " + value + b"\r\n") * 2 + b"\r\n"
    (answer,) = logging_service.client(None).raw(request)
    assert "trace_id" not in line_of(logging_service, answer.headers["x-request-id"])


def test_disconnected_client_is_logged_with_status_0(logging_service: Service, tenant: str) -> None:
    token = valid_token(tenant)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nX-Request-ID: left-{tenant}\r\n"
    with Wire("127.0.0.1", logging_service.port) as wire:
        wire.send(head.encode() + b"Content-Type: application/json\r\nContent-Length: 40\r\n\r\n{")
        logging_service.client(None).get()  # when this later request has its answer, the incomplete one has arrived
    line = line_of(logging_service, f"left-{tenant}")
    assert (line["status"], line["level"], line["tenant"]) == (0, "info", tenant)


@pytest.mark.parametrize("log_level", ["INFO", "WARNING", "ERROR"])
def test_store_failure_is_one_request_line_at_any_level(tmp_path: Path, tenant: str, log_level: str) -> None:
    url = f"unix://{tmp_path}/nothing"
    with Service(tmp_path / "log", url, LOG_FORMAT="json", LOG_LEVEL=log_level) as service:
        answer = service.client(make_token(tenant)).get()
        line = line_of(service, answer.headers["x-request-id"])
    assert (answer.status, line["status"], line["level"], line["event"]) == (500, 500, "error", "request")
    assert line["cause"].startswith("StoreError: the setting could not be read; ")
    assert line["tenant"] == tenant


def test_request_without_failure_is_not_logged_at_warning(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, LOG_LEVEL="WARNING") as service:
        assert service.client(make_token(tenant)).get().status == 200
        assert service.client(None).get().status == 401
    assert service.log == ""


@pytest.mark.parametrize("log_format", FORMATS)
def test_paths_and_headers_cannot_forge_a_line(tmp_path: Path, redis_url: str, tenant: str, log_format: str) -> None:
    target = "/x%0atime=now%20level=info%0d%1b[31m%e2%80%a8\"'\\[]{}<>|^`" + "%c2%85=forged"
    forged = b"a\x85\xe2\x80\xa8\tlevel=info event=forged"
    head = b"GET %b HTTP/1.1\r\nHost: x\r\nX-Request-ID: %b\r\ntraceparent: %b\r\nUser-Agent: %b\r\n\r\n"
    with Service(tmp_path / "log", redis_url, LOG_FORMAT=log_format) as service:
        assert service.logs(service.client(make_token(tenant)).get().headers["x-request-id"])
        before = len(service.log.splitlines())
        service.client(None).raw(head % (target.encode(), forged, forged, forged), path="/x")
        assert service.logs("/x%0atime")
        # `splitlines` also splits at U+0085 and U+2028.
        assert len(service.log.splitlines()) == before + 1
    assert "\x1b" not in service.log
    assert "event=forged" not in service.log


@pytest.mark.parametrize("log_format", FORMATS)
def test_any_record_is_one_printable_line(log_format: str) -> None:
    record = logging.makeLogRecord(
        {
            "created": 0.25,
            "msg": f"{HOSTILE_TEXT} %s",
            "args": (HOSTILE_TEXT,),
            "levelname": "INFO",
            "path": HOSTILE_TEXT,
            "odd": [HOSTILE_TEXT],
            "request_id": HOSTILE_TEXT,
        }
    )
    line = formatter(log_format).format(record)
    assert line.isprintable()
    line.encode("ascii")
    assert "1970-01-01T00:00:00.250000Z" in line
    if log_format == "json":
        assert json.loads(line)["path"] == HOSTILE_TEXT


@pytest.mark.parametrize("log_format", FORMATS)
def test_exception_text_cannot_forge_a_line_or_control_a_terminal(log_format: str) -> None:
    error = ValueError("x\ntime=now level=info event=forged \x1b[31m\x85\u2028")
    record = logging.makeLogRecord({"msg": "failed", "levelname": "ERROR", "exc_info": (ValueError, error, None)})
    first, *others = formatter(log_format).format(record).splitlines()
    assert "failed" in first
    assert all(line.startswith("    ") for line in others)
    assert not others or log_format == "console"
    assert all(line.isprintable() for line in [first, *others])


@hypothesis.given(
    st.dictionaries(
        st.from_regex(r"x_[a-z0-9_.-]*", fullmatch=True),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text("abc01-é ", max_size=9) | st.text('ab= "\\'),
        max_size=4,
    )
)
def test_logfmt_is_that_of_structlog(fields: dict[str, object]) -> None:
    record = record_of(created=0.0, **fields)
    event = {"time": "1970-01-01T00:00:00.000000Z", "level": "info", "event": "message", **fields}
    rendered = structlog.processors.LogfmtRenderer(bool_as_flag=False)(None, "", event)
    assert formatter("logfmt").format(record) == rendered


def test_process_without_stderr_has_a_formatter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert "event=message" in formatter("logfmt").format(record_of())


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x85", "\u2028", "\u202e", "\ud800"])
@pytest.mark.parametrize("log_format", FORMATS)
def test_single_unprintable_character_is_escaped(log_format: str, character: str) -> None:
    line = formatter(log_format).format(record_of(path=f"/a{character}b"))
    assert line.isprintable()
    assert "b" in line


@pytest.mark.parametrize("name", ["a b", "a\nb", "a\x9bb", "a\u2028b"])
def test_name_that_would_break_logfmt_is_not_written(name: str) -> None:
    record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", name: "level=info"})
    assert "a log record cannot be written" in formatter("logfmt").format(record)


class Unprintable:
    def __str__(self) -> str:
        raise ValueError(make_token("acme"))


@pytest.mark.parametrize(
    "fields",
    [
        {"msg": "%d of %d", "args": (make_token("acme"), 1)},
        {"msg": "nothing", "args": (make_token("acme"),)},
        {"msg": Unprintable()},
        {"msg": "a field", "odd": Unprintable()},
        {"msg": "a number", "odd": 10**5000},
    ],
    ids=["of another type", "too many", "a message", "a field", "a number"],
)
@pytest.mark.parametrize("log_format", FORMATS)
def test_unformattable_record_is_one_line_that_says_so(log_format: str, fields: dict[str, Any]) -> None:
    record = logging.makeLogRecord({"name": "library", "levelname": "INFO", **fields})
    line = formatter(log_format).format(record)
    assert line.isprintable()
    assert "eyJ" not in line
    assert "a log record cannot be written" in line
    assert "library" in line
    if log_format == "json":
        assert json.loads(line)["level"] == "error"


@pytest.mark.parametrize("log_format", FORMATS)
def test_time_and_level_of_a_line_are_not_those_of_extra(log_format: str) -> None:
    record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "time": "forged", "level": "forged"})
    assert "forged" not in formatter(log_format).format(record)


def test_cloud_format_has_the_fields_that_clouds_read() -> None:
    record = logging.makeLogRecord(
        {
            "msg": "request",
            "levelname": "WARNING",
            "status": 500,
            "tenant": "acme",
            "trace_id": TRACE,
            "span_id": PARENT,
            "timestamp": "forged",
            "severity": "forged",
        }
    )
    line = json.loads(formatter("cloud").format(record))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "message": "request", "severity": "WARNING", "http.status_code": 500, "tenant": "acme", "trace_id": TRACE,
        "span_id": PARENT, "logging.googleapis.com/trace": TRACE, "logging.googleapis.com/spanId": PARENT,
    }  # fmt: skip


@pytest.mark.parametrize("log_format", ["json", "cloud"])
def test_every_line_of_a_process_that_does_not_start_is_json(log_format: str) -> None:
    done = subprocess.run(
        WEB, env=clean_environment({"LOG_FORMAT": log_format}), cwd=ROOT, capture_output=True, text=True, check=False
    )
    (line,) = objects(done.stderr)
    assert line["message" if log_format == "cloud" else "event"].startswith("bad settings: ")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_number_that_json_lacks_is_text(number: float) -> None:
    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO", "number": number})
    assert json.loads(formatter("json").format(record))["number"] == str(number)


@pytest.mark.parametrize("log_format", FORMATS)
def test_text_that_looks_like_a_token_is_removed(log_format: str) -> None:
    token = make_token("acme")
    record = logging.makeLogRecord(
        {"msg": f"a {token} b", "levelname": "INFO", "path": f"/x/{token}", "cause": [token]}
    )
    line = formatter(log_format).format(record)
    assert "eyJ" not in line
    assert line.count("[token]") == 3


def record_of(**fields: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": "message", "levelname": "INFO", **fields})


def token_with(header: bytes) -> str:
    """Return a token whose header has exactly these bytes."""
    return f"{base64url_encode(header).decode()}.{make_token('acme').partition('.')[2]}"


def parts_of(token: str, size: int = 12) -> set[str]:
    """Return all substrings of a token that have this length."""
    return {token[start : start + size] for start in range(len(token) - size + 1)}


@pytest.mark.parametrize("dot", [".", "%2E", "%2e", "%252E", "%25252e", "%" + "25" * 40 + "2E", "%25%32%45"])
@pytest.mark.parametrize("before", ["/docs/", "/docs/x", "/docs/a.b-", "/docs/%20", "/docs?q=", "/eyJ/eyJ"])
def test_token_is_removed_however_its_dots_are_encoded(dot: str, before: str) -> None:
    token = make_token("acme")
    line = formatter("json").format(record_of(path=f"{before}{token.replace('.', dot)}/after"))
    assert not {part for part in parts_of(token) if part in line}
    assert "[token]" in line
    assert "/after" in line


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"HS256"}', b'{ "alg": "HS256" }', b'{\n  "alg": "HS256"\n}', b'{\r\n"alg":"HS256"}',
        b'{\t"alg":"HS256"}', b'{\n\t"alg":"HS256"}', b'{"\\u0061lg":"HS256"}', b'{  "alg":"HS256"}',
    ],
)  # fmt: skip
def test_token_is_removed_however_its_header_is_spelled(log_format: str, header: bytes) -> None:
    token = token_with(header)
    line = formatter(log_format).format(record_of(path=f"/x/{token}", cause=[token]))
    assert not {part for part in parts_of(token) if part in line}


def test_token_whose_every_character_is_encoded_is_removed() -> None:
    token = make_token("acme")
    encoded = "".join(f"%{ord(each):02x}" for each in token)
    line = formatter("json").format(record_of(path=f"/x/{encoded}", cause=encoded.replace("%", "%25")))
    assert not {part for part in parts_of(encoded) if part in line}
    assert line.count("[token]") == 2


def test_all_parts_of_an_encrypted_token_are_removed() -> None:
    token = f"{make_token('acme')}.{'a' * 30}.{'b' * 30}"
    line = formatter("json").format(record_of(path=f"/x/{token}"))
    assert json.loads(line)["path"] == "/x/[token]"


@pytest.mark.parametrize(
    "path",
    ["/framework.js", "/v0/ui/monkey-keys.css", "/100%25.txt", "/eyJustAWord", "/a%20b.c", "/%65y.html", "/ew0k.x"],
)
def test_text_that_only_resembles_a_token_is_kept(path: str) -> None:
    assert json.loads(formatter("json").format(record_of(path=path)))["path"] == path


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize(
    "character", ["x", '"', "\\", "é", "\x00", "\u2028", "\U0001f600", "\ud800", "%", "%00", "eyJ", "eyJ.x "]
)
def test_field_is_bounded_in_bytes(log_format: str, character: str) -> None:
    huge = f"begins{character * 400_000}ends"
    line = formatter(log_format).format(record_of(path=huge))
    assert len(line.encode()) < 1.25 * MAX_FIELD_BYTES  # logfmt escapes its own escapes
    assert "begins" in line
    assert re.search(r"\[\.\.\. \d+ characters left out \.\.\.\]", line)


@pytest.mark.parametrize("log_format", FORMATS)
def test_message_and_its_arguments_are_bounded(log_format: str) -> None:
    line = formatter(log_format).format(record_of(msg="%s", args=("x" * 1_000_000,)))
    assert len(line) < 1.25 * MAX_FIELD_BYTES


@pytest.mark.parametrize("log_format", FORMATS)
def test_traceback_is_bounded_and_keeps_both_ends(log_format: str) -> None:
    error = ExceptionGroup("outer", [ValueError("x \n" * 500_000), KeyError("the last one")])
    line = formatter(log_format).format(record_of(exc_info=(ExceptionGroup, error, None)))
    assert MAX_FIELD_BYTES < len(line) < 1.5 * MAX_TRACEBACK_BYTES  # includes the indents of the console format
    assert "outer" in line
    assert "the last one" in line


def test_field_below_the_bound_is_whole() -> None:
    path = "/" + "x" * (MAX_FIELD_BYTES - 10)
    assert json.loads(formatter("json").format(record_of(path=path)))["path"] == path


@pytest.mark.parametrize("dot", [".", "%2E"])
def test_no_part_of_a_token_is_left_where_a_field_is_cut(dot: str) -> None:
    token = make_token("acme")
    parts, encoded = parts_of(token), token.replace(".", dot)
    line_of_path = formatter("json").format
    for border in (MAX_FIELD_BYTES * 3 // 4, MAX_FIELD_BYTES // 4):
        for position in range(border - len(encoded) - 60, border + 60, 7):
            filler = "/" * position, "/" * (2 * MAX_FIELD_BYTES - position)
            for path in (encoded.join(filler), encoded.join(filler)[::-1].replace(encoded[::-1], encoded)):
                line = line_of_path(record_of(path=path))
                assert not [part for part in parts if part in line]


def test_hostile_path_neither_stops_the_service_nor_fills_its_log(logging_service: Service) -> None:
    request = b"GET /" + b"eyJ" * 10_850 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    with Wire("127.0.0.1", logging_service.port) as wire:
        before = cpu_seconds(logging_service.pid)
        wire.send(request * 30)
        assert logging_service.client(None).request("GET", "/livez").status == 200
        request_ids = [wire.answer("GET").headers["x-request-id"] for _ in range(30)]
    # A quadratic pattern took 2 s for each request.
    assert cpu_seconds(logging_service.pid) - before < 5
    for request_id in request_ids:
        assert len(line_of(logging_service, request_id)["path"]) <= MAX_FIELD_BYTES


@pytest.mark.parametrize("dot", ["%2E", "%252E", "%25252e"])
@pytest.mark.parametrize("path", ["/docs/", "/x", "/v0/ui/", "/ofrep/v1/evaluate/flags/"])
def test_no_part_of_a_token_in_a_path_reaches_the_log(logging_service: Service, path: str, dot: str) -> None:
    token = make_token("acme")
    request = f"GET {path}{token.replace('.', dot)} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    with Wire("127.0.0.1", logging_service.port) as wire:
        wire.send(request)
        request_id = wire.answer("GET").headers["x-request-id"]
    line_of(logging_service, request_id)
    assert not {part for part in parts_of(token) if part in logging_service.log}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_debug_log_has_no_token_secret_or_body(tmp_path: Path, valkey: Any, tenant: str, workers: str) -> None:
    url = f"redis://a-user:a-passw0rd@127.0.0.1:{valkey.port}/0"
    with Service(tmp_path / "log", url, LOG_LEVEL="DEBUG", LOG_FORMAT="json", WEB_CONCURRENCY=workers) as service:
        token = make_token(tenant, marker="in-the-token")
        client = service.client(token)
        client.post({"enabled": True, "marker": "in-the-body"})
        client.post(b'{"enabled": "in-the-body"}')
        client.post(b"in-the-body")
        client.get(headers={"Cookie": "in-the-cookie", "Authorization": "Basic aW4tdGhlLWhlYWRlcg=="})
        client.request("GET", f"{PATH}?access_token={token}")
        client.request("GET", f"/x/{token}")
        assert service.logs("[token]")
    assert objects(service.log)
    for secret in ("a-passw0rd", "a-user", SECRET, "in-the-body", "in-the-cookie", "aW4tdGhl", "eyJ", token):
        assert secret not in service.log


def test_debug_records_of_libraries_are_never_logged() -> None:
    """Records of httpcore contain headers, and those of redis contain pushed data. Only `app` logs at DEBUG."""
    config = logging_config("json", "DEBUG")
    assert config["root"]["level"] == "INFO"
    assert [name for name, each in config["loggers"].items() if each.get("level") == "DEBUG"] == ["app"]


def test_start_logs_the_settings_in_one_line_without_secrets(tmp_path: Path, redis_url: str) -> None:
    own = {"LOG_FORMAT": "json", "WEB_CONCURRENCY": "2", "JWT_AUDIENCE": "oms", "JWT_READ_SCOPE": "oms:read"}
    with Service(tmp_path / "log", redis_url, DOCS_URL="https://docs.example", **own) as service:
        pass
    (line,) = [each for each in objects(service.log) if each["event"] == "listening"]
    expected = {
        "port": service.port, "web_concurrency": 2, "redis_url": redis_url, "redis_timeout": 1.0,
        "jwt_keys": "JWT_SECRET", "jwt_algorithms": "HS256", "jwt_audience": "oms", "jwt_read_scope": "oms:read",
        "log_format": "json", "log_level": "INFO", "docs_url": "https://docs.example",
    }  # fmt: skip
    assert expected.items() <= line.items()
    assert SECRET not in service.log


def test_json_log_is_objects_when_a_worker_dies(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, LOG_FORMAT="json", WEB_CONCURRENCY="2") as service:
        service.client(make_token(tenant)).get()
        service.client(None).raw(b"nonsense\r\n\r\n", path="")
        worker = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()[-1]
        os.kill(int(worker), signal.SIGKILL)
        assert service.logs("died")
    events = [line["event"] for line in objects(service.log)]
    assert any(event.startswith("Started parent process") for event in events)
    assert any(event.startswith("Stopping parent process") for event in events)


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("import warnings; warnings.warn('a warning')", "a warning"),
        ("raise ValueError('not caught')", "uncaught exception"),
        ("import threading; threading.Thread(target=lambda: 1 / 0).start()", "uncaught exception"),
        ("class A:\n  def __del__(self): 1 / 0\nA()", "uncaught exception"),
    ],
)
def test_json_log_has_warnings_and_uncaught_exceptions_as_objects(code: str, event: str) -> None:
    script = (
        "import logging.config\nfrom app.logs import install_log_hooks, logging_config\n"
        f"logging.config.dictConfig(logging_config('json', 'INFO'))\ninstall_log_hooks()\n{code}"
    )
    environment = clean_environment({})
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    (line,) = objects(done.stderr)
    assert event in line["event"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_application_that_cannot_be_built_is_logged_as_json(tmp_path: Path, workers: str) -> None:
    fault = "import app.store.connections as driver\ndriver.ServerConnections.to = None"
    done = start_broken(tmp_path / "broken.py", fault, LOG_FORMAT="json", WEB_CONCURRENCY=workers)
    assert "the application cannot be built" in {line["event"] for line in objects(done.stderr)}
    assert done.returncode == 3


def test_startup_error_is_an_object_with_json() -> None:
    environment = clean_environment({"LOG_FORMAT": "json"})
    done = subprocess.run(WEB, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    (line,) = objects(done.stderr)
    assert (done.returncode, line["level"]) == (1, "critical")
    assert line["event"].startswith("bad settings: REDIS_URL is missing")


@pytest.mark.parametrize("log_format", [None, "logfmt", "console", "nonsense"])
def test_startup_error_is_a_sentence_without_json(log_format: str | None) -> None:
    assert startup_error("no start", log_format) == "no start"


def test_the_console_has_colours_only_at_a_terminal(tmp_path: Path) -> None:
    script = (
        "import logging.config\nfrom app.logs import logging_config\n"
        "logging.config.dictConfig(logging_config('console', 'INFO'))\nlogging.error('hello')"
    )
    main_end, terminal = os.openpty()
    with (tmp_path / "file").open("wb") as file:
        for stream in (terminal, file):
            command = [sys.executable, "-c", script]
            subprocess.run(command, cwd=ROOT, env=clean_environment({}), stderr=stream, check=True)
    at_terminal, in_file = os.read(main_end, 4096), (tmp_path / "file").read_bytes()
    os.close(main_end)
    os.close(terminal)
    assert b"hello" in at_terminal
    assert b"hello" in in_file
    assert b"\x1b[" in at_terminal
    assert b"\x1b[" not in in_file
