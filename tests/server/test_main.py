"""The web process: start, log and stop."""

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest

from app.version import VERSION
from tests.contract import PATH, Wire, check
from tests.processes import ROOT, SECRET, WEB, Service, clean_environment, make_token, reserve_port, skip_locally
from tests.waiting import PATIENCE


def start(**environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a web process that ends by itself."""
    return subprocess.run(
        WEB, cwd=ROOT, env=clean_environment(environment), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_start_without_store_and_key_fails(workers: str) -> None:
    done = start(WEB_CONCURRENCY=workers)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "REDIS_URL is missing" in done.stderr
    assert "set one of JWT_SECRET, JWT_PUBLIC_KEY, JWT_JWKS_URL and JWT_ISSUER" in done.stderr


def test_misspelt_variable_is_logged_at_the_start_without_its_value(tmp_path: Path, redis_url: str) -> None:
    settings = {"JWT_ISUER": "hunter2", "JWT_EXPIRY": "hunter2", "WEB_CONCURRENCY": "2"}
    with Service(tmp_path / "log", redis_url, **settings) as service:
        assert service.has_started(2)
    assert service.log.count('event="unknown variable"') == 2
    assert 'level=warning event="unknown variable" variable=JWT_EXPIRY\n' in service.log
    assert 'level=warning event="unknown variable" variable=JWT_ISUER similar=JWT_ISSUER\n' in service.log
    assert "hunter2" not in service.log


def test_start_line_has_the_version(service: Service) -> None:
    assert service.log.count(f" level=info event=listening version={VERSION} port={service.port} ") == 1


def test_start_error_is_json_if_the_format_is_in_upper_case() -> None:
    assert "REDIS_URL is missing" in json.loads(start(LOG_FORMAT="JSON").stderr)["event"]


def test_port_in_use_is_reported_in_one_line() -> None:
    with socket.create_server(("", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = start(PORT=port, REDIS_URL="redis://localhost", JWT_SECRET=SECRET)
    assert done.returncode == 1
    assert done.stderr == f"cannot listen on port {port} (PORT): Address already in use\n"


def test_two_workers_answer_on_one_port_and_see_each_others_writes(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, WEB_CONCURRENCY="2") as service:
        for enabled in (True, False) * 10:
            assert service.client(make_token(tenant)).post({"enabled": enabled}).status == 200
            # Each request opens a connection, which either worker may accept.
            for _ in range(4):
                assert service.client(make_token(tenant)).get(headers={"Connection": "close"}).json == {
                    "enabled": enabled
                }
    assert "Traceback" not in service.log


def test_idle_connection_is_closed_after_the_configured_time(tmp_path: Path, redis_url: str) -> None:
    with Service(tmp_path / "log", redis_url, KEEP_ALIVE="1") as service, Wire("127.0.0.1", service.port) as wire:
        for _ in range(2):
            wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert wire.answer("GET").status == 200
        assert wire.read() == b""
    assert "keep_alive=1 " in service.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_stops_the_service(tmp_path: Path, redis_url: str, workers: str) -> None:
    with Service(tmp_path / "log", redis_url, WEB_CONCURRENCY=workers) as service:
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", service.port))
    assert "Traceback" not in service.log


def test_unfinished_request_at_shutdown_gets_an_error_per_the_contract(tmp_path: Path, redis_url: str) -> None:
    service = Service(tmp_path / "log", redis_url)
    with ThreadPoolExecutor(1) as pool, service, Wire("127.0.0.1", service.port) as wire:
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {make_token('half')}\r\n"
        wire.send(head.encode() + b"Content-Type: application/json\r\nContent-Length: 40\r\n\r\n{")
        service.client(None).get()  # the server has the partial request once it answers a later one
        stopped = pool.submit(service.stop)
        check("POST", PATH, wire.answer("POST"))
        stopped.result()
    assert "Traceback" not in service.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_missing_operation_stops_the_start(tmp_path: Path, workers: str) -> None:
    """Without required lifespan events, the process would start and answer every request with a 500."""
    script = tmp_path / "broken.py"
    script.write_text(
        "import runpy, app.operations\n"
        "app.operations.operations = lambda store, feed: {}\n"
        "if __name__ == '__main__': runpy.run_module('app.server', run_name='__main__')\n"
    )
    own = {"REDIS_URL": "redis://localhost", "JWT_SECRET": SECRET, "PORT": str(reserve_port())}
    own["WEB_CONCURRENCY"] = workers
    done = subprocess.run(
        [sys.executable, script], cwd=ROOT, env=clean_environment(own), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "KeyError: 'evaluateFlag'" in done.stderr


def test_json_logs_have_one_object_in_each_line(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, LOG_FORMAT="json") as service:
        request_id = service.client(make_token(tenant)).get().headers["x-request-id"]
        service.client(None).raw(b"nonsense\r\n\r\n", path="")
    lines = [json.loads(line) for line in service.log.splitlines()]
    assert {"listening", "request", "Application startup complete."} <= {line["event"] for line in lines}
    (line,) = [line for line in lines if line.get("request_id") == request_id]
    assert (line["status"], line["method"], line["level"]) == (200, "GET", "info")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["time"])


def test_log_level_can_be_raised(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, LOG_LEVEL="ERROR") as service:
        assert service.client(make_token(tenant)).get().status == 200
    assert service.log == ""


def test_path_cannot_forge_a_log_line(service: Service) -> None:
    service.client(None).request("GET", "/x%0atime=now%20level=info%20event=forged")
    assert "\ntime=now" not in service.log


def test_procfile_command_starts_the_service_and_passes_sigterm_on(tmp_path: Path, redis_url: str, tenant: str) -> None:
    web = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())["web"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with Service(tmp_path / "log", redis_url, command=("sh", "-c", web), PATH=path) as service:
        assert service.client(make_token(tenant)).get().status == 200
        service.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", service.port))


def test_tokens_of_both_secrets_are_valid_during_rotation(tmp_path: Path, redis_url: str, tenant: str) -> None:
    new = {"JWT_SECRET": "n" * 32}
    old_token, new_token = make_token(tenant), jwt.encode({"tenant": tenant, "exp": 2**32}, new["JWT_SECRET"])
    rotation = [({}, [200, 401]), (new | {"JWT_SECRET_PREVIOUS": SECRET}, [200, 200]), (new, [401, 200])]
    for number, (settings, statuses) in enumerate(rotation):
        with Service(tmp_path / f"log-{number}", redis_url, **settings) as service:
            for _ in range(2):  # the second request uses the token cache
                assert [service.client(token).get().status for token in (old_token, new_token)] == statuses
        assert SECRET not in service.log
        assert new["JWT_SECRET"] not in service.log


READ_ONLY_ROOT = "mount -o remount,bind,ro / && exec {web}"
READ_ONLY_ROOT_WITHOUT_MEMORY = "mount -t tmpfs -o ro none /dev/shm && " + READ_ONLY_ROOT


@pytest.mark.parametrize("own", [{}, {"METRICS_TOKEN": "a-token-for-metrics"}], ids=["plain", "metrics"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_service_runs_with_a_read_only_root(
    tmp_path: Path, redis_url: str, tenant: str, workers: str, own: dict[str, str]
) -> None:
    command = in_own_mounts(READ_ONLY_ROOT)
    with Service(tmp_path / "log", redis_url, command=command, WEB_CONCURRENCY=workers, **own) as service:
        assert service.has_started(int(workers))
        assert service.client(make_token(tenant)).get().status == 200
    assert "Traceback" not in service.log


def test_missing_directory_for_metrics_is_reported_in_one_line() -> None:
    own = {"METRICS_TOKEN": "a-token-for-metrics", "WEB_CONCURRENCY": "2", "LOG_LEVEL": "ERROR"}
    own |= {"REDIS_URL": "redis://localhost", "JWT_SECRET": SECRET, "PORT": str(reserve_port())}
    done = subprocess.run(
        in_own_mounts(READ_ONLY_ROOT_WITHOUT_MEMORY), cwd=ROOT, env=clean_environment(own), capture_output=True,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("METRICS_TOKEN with several workers needs a writable directory: mount a tmpfs")
    assert done.stderr.count("\n") == 1


def in_own_mounts(script: str) -> list[str]:
    """Return a command that runs `script` where it can mount, with the web process's command as {web}."""
    if os.geteuid():
        skip_locally("only root can mount")
    return ["unshare", "--mount", "sh", "-c", script.format(web=" ".join(WEB))]
