"""`follow` of both clients: each change once and in order, through restarts, resets and errors."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, closing

import pytest
import redis

from external_oms_config import (
    AsyncClient,
    Client,
    Disconnected,
    Event,
    Heartbeat,
    Message,
    Rejected,
    StatusError,
    TransportError,
)
from tests.cli.command import FakeServer, http_reply
from tests.contract import Client as Contract
from tests.processes import Service, make_token
from tests.relay import Relay
from tests.waiting import PATIENCE

TOKEN = make_token("acme")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
RETRY, COMMENT = b"retry: 1000\n\n", b":\n\n"


def event(version: int, *, enabled: bool, kind: str = "change") -> bytes:
    data = {"version": version, "enabled": enabled, "changed_at": "x", "changed_by": None}
    return f"id: {version}-5d3f2a10\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


Expect = Callable[..., list[Disconnected]]


def reader_of(messages: Iterator[Message]) -> Expect:
    """Return a function that checks the next events and returns the disconnections before them."""

    def expect(*expected: tuple[int, bool], is_reset: bool = False) -> list[Disconnected]:
        disconnections = []
        for version, enabled in expected:
            while not isinstance(message := next(messages), Event):
                if isinstance(message, Disconnected):
                    disconnections.append(message)
            assert (message.change.version, message.change.enabled) == (version, enabled)
            assert message.is_reset is is_reset
        return disconnections

    return expect


def blocking(url: str, token: str | Callable[[], str]) -> Generator[Message, None, None]:
    with Client(url, token) as ours, closing(ours.follow()) as messages:
        yield from messages


def in_asyncio(url: str, token: str | Callable[[], str]) -> Generator[Message, None, None]:
    with asyncio.Runner() as runner:
        ours = AsyncClient(url, token)
        messages = ours.follow()

        async def next_message() -> Message:
            return await anext(messages)

        try:
            while True:
                yield runner.run(next_message())
        finally:
            runner.run(messages.aclose())
            runner.run(ours.aclose())


Follow = Callable[[str, str | Callable[[], str]], Generator[Message, None, None]]
both = pytest.mark.parametrize("follow", [blocking, in_asyncio])


@both
def test_current_setting_and_then_each_change_arrive(
    follow: Follow, service: Service, tenant: str, client: Contract
) -> None:
    with closing(follow(service.url, make_token(tenant))) as messages:
        expect = reader_of(messages)
        expect((0, False))
        client.change(True)
        expect((1, True))
        client.change(False, True)
        assert expect((2, False), (3, True)) == []


@both
def test_each_change_arrives_once_across_restarts(
    follow: Follow, stoppable: Service, tenant: str, client: Contract
) -> None:
    client.change(True)
    with closing(follow(stoppable.url, make_token(tenant))) as messages:
        expect = reader_of(messages)
        expect((1, True))
        for first in (2, 6):
            stoppable.stop()
            client.change(False, True, False)
            stoppable.start()
            assert expect((first, False), (first + 1, True), (first + 2, False))
            client.change(True)
            expect((first + 3, True))


def test_reset_has_the_current_setting(stoppable: Service, tenant: str, client: Contract, redis_url: str) -> None:
    """Redis lost all data, so that versions start at 0 again."""
    client.change(True, False, True)
    with closing(blocking(stoppable.url, make_token(tenant))) as messages:
        expect = reader_of(messages)
        expect((3, True))
        stoppable.stop()
        with redis.Redis.from_url(redis_url) as store:
            store.delete(*store.keys(f"*{{{tenant}}}*"))
        stoppable.start()
        expect((0, False), is_reset=True)
        client.change(True)
        expect((1, True))


def test_each_change_arrives_once_across_cut_connections(service: Service, tenant: str, client: Contract) -> None:
    with Relay(service.port) as relay, closing(blocking(relay.http_url, make_token(tenant))) as messages:
        expect = reader_of(messages)
        expect((0, False))
        for version in range(1, 7, 2):
            relay.cut()
            client.change(True, False)
            (disconnected,) = expect((version, True), (version + 1, False))
            assert isinstance(disconnected.error, TransportError)


def test_connection_without_data_is_replaced(service: Service, tenant: str, client: Contract) -> None:
    """A firewall has forgotten the connection, and reports nothing."""

    class Hasty(AsyncClient):
        _STREAM_TIMEOUT = 1.0

    async def follow() -> list[str]:
        seen: list[str] = []
        with Relay(service.port) as relay:
            async with Hasty(relay.http_url, make_token(tenant)) as ours, aclosing(ours.follow()) as messages:
                async for message in messages:
                    if isinstance(message, Disconnected):
                        seen.append(str(message.error))
                    elif isinstance(message, Event) and message.change.version == 0:
                        relay.forget()
                        await asyncio.to_thread(client.change, True)
                    elif isinstance(message, Event):
                        return seen
        return []

    reasons = asyncio.run(asyncio.wait_for(follow(), PATIENCE))
    assert reasons
    assert all(reason.endswith("failed: no response in time") for reason in reasons)


def test_new_token_is_used_after_the_old_one_has_expired(service: Service, tenant: str, client: Contract) -> None:
    tokens = [make_token(tenant, exp=int(time.time()) + 10), make_token(tenant, exp=1)]
    with closing(blocking(service.url, lambda: tokens.pop(0) if tokens else make_token(tenant))) as messages:
        expect = reader_of(messages)
        expect((0, False))
        for message in messages:
            if isinstance(message, Disconnected):
                assert str(message.error) == f"the event stream of {service.url}/v0 ended"
                break
        client.change(True)
        (rejected,) = expect((1, True))
    assert isinstance(rejected.error, Rejected)
    assert "returned 401: The token has expired." in str(rejected.error)


async def first(messages: AsyncGenerator[Message], number: int) -> list[Message]:
    async with asyncio.timeout(PATIENCE), aclosing(messages):
        return [await anext(messages) for _ in range(number)]


class Quick(AsyncClient):
    _FIRST_WAIT = 0.01
    _LONGEST_WAIT = 0.04


def test_wait_doubles_up_to_its_bound_and_varies() -> None:
    async def fail() -> list[Message]:
        with FakeServer(http_reply("500 Oh", body="{}")) as server:
            async with Quick(server.url, TOKEN) as ours:
                return await first(ours.follow(), 40)

    messages = [each for each in asyncio.run(fail()) if isinstance(each, Disconnected)]
    pauses = [each.pause for each in messages]
    bounds = [0.01, 0.02, *[0.04] * 38]
    assert all(bound / 2 <= pause <= bound for bound, pause in zip(bounds, pauses, strict=True))
    assert len(set(pauses)) > 10
    assert all(isinstance(each.error, StatusError) and each.error.status == 500 for each in messages)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_rejection_is_reported_and_tried_again(status: str) -> None:
    async def follow() -> list[Message]:
        with FakeServer(http_reply(status, body="{}")) as server:
            async with Quick(server.url, TOKEN) as ours:
                return await first(ours.follow(), 3)

    assert [type(each.error) for each in asyncio.run(follow()) if isinstance(each, Disconnected)] == [Rejected] * 3


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (RETRY + COMMENT + event(0, enabled=False) + COMMENT, [Event, Heartbeat]),
        (event(3, enabled=True) + event(1, enabled=False, kind="reset"), [Event, Event]),
        (event(3, enabled=True)[:-1], []),
        (RETRY + COMMENT, []),
    ],
    ids=["comments", "reset", "half an event", "no event"],
)
def test_heartbeat_is_only_reported_after_an_event(stream: bytes, expected: list[type]) -> None:
    async def read() -> list[Message]:
        with FakeServer(HEAD + stream) as server:
            async with AsyncClient(server.url, TOKEN) as ours:
                return await first(ours.follow(), len(expected) + 1)

    assert [type(message) for message in asyncio.run(read())] == [*expected, Disconnected]


def test_resumed_connection_reports_heartbeats_before_its_first_event() -> None:
    async def read() -> tuple[list[Message], bytes]:
        with FakeServer(HEAD + event(7, enabled=True)) as server:
            async with Quick(server.url, TOKEN) as ours, aclosing(ours.follow()) as messages:
                await anext(messages)
                server.reply = HEAD + RETRY + COMMENT
                return await first(messages, 3), server.requests[1]

    messages, request = asyncio.run(read())
    assert [type(message) for message in messages] == [Disconnected, Heartbeat, Heartbeat]
    assert b"last-event-id: 7-5d3f2a10\r\n" in request.lower()


@pytest.mark.parametrize(
    "data", ["{", "[]", "{}", '{"version": true, "enabled": true}', '{"version": 1, "enabled": 1}']
)
def test_event_of_another_server_is_an_error(data: str) -> None:
    async def follow() -> list[Message]:
        with FakeServer(HEAD + f"id: 1\nevent: change\ndata: {data}\n\n".encode()) as server:
            async with Quick(server.url, TOKEN) as ours:
                return await first(ours.follow(), 1)

    (message,) = asyncio.run(follow())
    assert isinstance(message, Disconnected)
    assert "the response is not from the service" in str(message.error)
