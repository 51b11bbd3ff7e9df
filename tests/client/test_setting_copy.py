"""A local copy of the setting: it follows changes through failures, and returns no value that is too old."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import redis

from external_oms_config import (
    AsyncClient,
    Client,
    ConnectError,
    Disconnected,
    Message,
    Rejected,
    Setting,
    SettingCopy,
    StaleCopy,
    StatusError,
    TokenUnavailable,
    TransportError,
)
from tests.cli.command import FakeServer, http_reply
from tests.client.test_follow import COMMENT, HEAD, RETRY, event
from tests.contract import Client as Contract
from tests.processes import Service, make_token, reserve_port
from tests.relay import Relay
from tests.waiting import PATIENCE, eventually

TOKEN = make_token("acme")


def value_of(setting: Setting | None) -> tuple[bool, int] | None:
    return None if setting is None else (setting.enabled, setting.version)


def reaches(copy: SettingCopy, enabled: bool, version: int) -> bool:
    """Return True once the copy has that value."""
    return eventually(lambda: value_of(copy.last_known) == (enabled, version))


def has_problem(copy: SettingCopy, kind: type[Exception]) -> bool:
    return eventually(lambda: isinstance(copy.problem, kind))


def test_copy_has_the_current_setting_and_follows_changes(service: Service, tenant: str, client: Contract) -> None:
    client.change(True)
    with Client(service.url, make_token(tenant)) as ours:
        copy = ours.keep_copy()
        assert copy.get() == copy.last_known == Setting(enabled=True, version=1, tenant=tenant)
        assert copy.age < PATIENCE
        assert copy.problem is None
        client.change(False)
        assert reaches(copy, False, 2)


def test_copy_of_the_asynchronous_client_follows_changes(service: Service, tenant: str, client: Contract) -> None:
    async def follow() -> SettingCopy:
        async with AsyncClient(service.url, make_token(tenant)) as ours:
            copy = await ours.keep_copy()
            assert value_of(copy.get()) == (False, 0)
            await ours.set(True)
            assert await asyncio.to_thread(reaches, copy, True, 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return copy

    copy = asyncio.run(follow())
    client.change(False)
    assert value_of(copy.last_known) == (True, 1)  # the client is closed


def test_copy_survives_a_restart(stoppable: Service, tenant: str, client: Contract) -> None:
    with Client(stoppable.url, make_token(tenant)) as ours:
        copy = ours.keep_copy()
        stoppable.stop()
        assert has_problem(copy, ConnectError)
        assert copy.get().version == 0
        client.change(True, False, True)
        stoppable.start()
        assert reaches(copy, True, 3)
        assert copy.problem is None


def test_copy_takes_a_lower_version_after_a_loss(
    stoppable: Service, tenant: str, client: Contract, redis_url: str
) -> None:
    """Redis lost all data, so that versions start at 0 again."""
    client.change(True, False, True)
    with Client(stoppable.url, make_token(tenant)) as ours:
        copy = ours.keep_copy()
        assert value_of(copy.get()) == (True, 3)
        with redis.Redis.from_url(redis_url) as store:
            store.delete(*store.keys(f"*{{{tenant}}}*"))
            store.publish("external_oms:changes", tenant)  # the open stream gets a reset
            assert reaches(copy, False, 0)
            client.change(True, False)
            assert reaches(copy, False, 2)
            stoppable.stop()
            store.delete(*store.keys(f"*{{{tenant}}}*"))
        stoppable.start()
        assert reaches(copy, False, 0)


def test_service_may_be_away_at_the_start(stoppable: Service, tenant: str, client: Contract) -> None:
    client.change(True)
    stoppable.stop()
    with Client(stoppable.url, make_token(tenant)) as ours:
        copy = ours.keep_copy(wait=0)
        assert has_problem(copy, ConnectError)
        with pytest.raises(StaleCopy) as caught:
            copy.get()
        assert isinstance(caught.value.__cause__, ConnectError)
        url = f"{stoppable.url}/v0"
        assert str(caught.value) == (
            f"the copy of the setting at {url} has no value yet: cannot connect to {url}: Connection refused"
        )
        assert (copy.last_known, copy.age) == (None, float("inf"))
        stoppable.start()
        assert reaches(copy, True, 1)
        assert value_of(copy.get()) == (True, 1)


def test_copy_survives_connections_that_end(service: Service, tenant: str, client: Contract) -> None:
    with Relay(service.port) as relay, Client(relay.http_url, make_token(tenant)) as ours:
        copy = ours.keep_copy()
        for version in (1, 2, 3):
            relay.cut()
            assert has_problem(copy, TransportError)
            client.change(version % 2 == 1)
            assert reaches(copy, version % 2 == 1, version)


def test_copy_survives_expired_tokens_and_an_absent_identity_provider(
    service: Service, tenant: str, client: Contract
) -> None:
    """The function fetches a token over HTTP. The provider is away when the first one expires."""
    provider = f"http://127.0.0.1:{reserve_port()}"

    def get_token() -> str:
        return httpx.get(provider, trust_env=False).raise_for_status().text

    def issuing(**claims: object) -> FakeServer:
        return FakeServer(http_reply("200 OK", "text/plain", make_token(tenant, **claims)))

    with Client(service.url, get_token) as ours:
        copy = ours.keep_copy(wait=0)
        assert has_problem(copy, TokenUnavailable)
        with issuing(exp=int(time.time()) + 10) as identity_provider:
            provider = identity_provider.url
            assert reaches(copy, False, 0)
        assert has_problem(copy, TokenUnavailable)  # the token has expired
        assert str(copy.problem).endswith("/v0: the token function failed: Connection refused")
        client.change(True)
        assert copy.get().version == 0
        with issuing(exp=1) as identity_provider:
            provider = identity_provider.url
            assert has_problem(copy, Rejected)
        with issuing() as identity_provider:
            provider = identity_provider.url
            assert reaches(copy, True, 1)


def test_copy_survives_a_missing_scope_and_a_failing_store() -> None:
    replies = [http_reply("403 Forbidden", body="{}"), http_reply("500 Oh", body="{}")]
    with FakeServer(replies[0]) as server, Client(server.url, TOKEN) as ours:
        copy = ours.keep_copy(wait=0)
        assert has_problem(copy, Rejected)
        server.reply = replies[1]
        assert eventually(lambda: type(copy.problem) is StatusError)
        server.reply = HEAD + event(7, enabled=True)
        assert reaches(copy, True, 7)


Connection = Callable[[], Awaitable[asyncio.StreamWriter]]


@asynccontextmanager
async def scripted() -> AsyncIterator[tuple[str, Connection]]:
    """Yield the address of a server, and a function that returns its next connection after sending its head."""
    writers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        writers.put_nowait(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", writers.get


async def until(condition: Callable[[], bool]) -> None:
    assert await asyncio.to_thread(eventually, condition)


def test_old_value_is_not_returned_except_on_request() -> None:
    async def follow() -> None:
        async with scripted() as (url, connection), AsyncClient(url, TOKEN) as ours:
            copy = await ours.keep_copy(max_age=0.2, wait=0)
            stream = await connection()
            stream.write(event(5, enabled=True))
            await until(lambda: copy.last_known is not None and copy.age > 0.2)
            with pytest.raises(StaleCopy, match=r"is \d+ s old, more than 0.2 s: nothing arrives on the event stream"):
                copy.get()
            assert value_of(copy.last_known) == (True, 5)
            stream.close()
            await until(lambda: copy.problem is not None)
            with pytest.raises(StaleCopy, match=f"the event stream of {url}/v0 ended"):
                copy.get()

    asyncio.run(follow())


def test_comment_proves_that_the_value_is_current() -> None:
    async def follow() -> None:
        async with scripted() as (url, connection), AsyncClient(url, TOKEN) as ours:
            copy = await ours.keep_copy(wait=0)
            stream = await connection()
            stream.write(event(5, enabled=True))
            await until(lambda: copy.last_known is not None)
            sent_at = time.monotonic()
            stream.write(COMMENT)
            await until(lambda: time.monotonic() - copy.age > sent_at)
            stream.close()

    asyncio.run(follow())


def test_new_connection_proves_nothing_before_its_first_event() -> None:
    """Changes that were made without a connection may still be on their way."""

    async def follow() -> None:
        async with scripted() as (url, connection), AsyncClient(url, TOKEN) as ours:
            copy = await ours.keep_copy(wait=0)
            stream = await connection()
            stream.write(event(5, enabled=True))
            await until(lambda: copy.last_known is not None)
            stream.close()
            stream = await connection()
            sent_at = time.monotonic()
            stream.write(RETRY + COMMENT)
            stream.close()
            third = await connection()  # the client has read the second connection to its end
            assert time.monotonic() - copy.age < sent_at
            third.close()

    asyncio.run(follow())


@pytest.mark.parametrize("charset", ["hex", "zlib", "no-such-charset"])
def test_copy_is_utf_8_whatever_charset_the_stream_names(charset: str) -> None:
    head = HEAD.replace(b"event-stream", f"event-stream; charset={charset}".encode())
    with FakeServer(head + event(5, enabled=True)) as server, Client(server.url, TOKEN) as ours:
        assert value_of(ours.keep_copy(wait=PATIENCE).last_known) == (True, 5)


def test_client_closes_although_a_copy_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the error of the copy."""

    class Broken(AsyncClient):
        async def _follow(self, *, resume: bool) -> AsyncGenerator[Message]:
            if not resume:
                raise LookupError("no such codec")
            yield Disconnected(TransportError(""), 0)

    class Transport(httpx.AsyncBaseTransport):
        is_closed = False

        async def aclose(self) -> None:
            self.is_closed = True

    async def use(transport: Transport) -> None:
        async with Broken("http://127.0.0.1:1", TOKEN, transport=transport) as ours:
            await ours.keep_copy(wait=0)
            await until(lambda: "LookupError: no such codec" in caplog.text)
        assert transport.is_closed

    asyncio.run(use(Transport()))
