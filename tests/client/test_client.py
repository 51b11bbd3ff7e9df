"""`external_oms_config` on the real service: reads, conditional changes, and the errors of both."""

import asyncio
import contextlib
import gc
import inspect
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from external_oms_config import (
    AsyncClient,
    Client,
    Conflict,
    ConnectError,
    Disconnected,
    InvalidURL,
    Message,
    OmsConfigError,
    Rejected,
    Setting,
    StatusError,
    TokenUnavailable,
    TransportError,
    UnexpectedResponse,
    UnknownOutcome,
)
from tests.cli.command import FakeServer, http_reply
from tests.contract import Client as Contract
from tests.processes import ROOT, Service, make_token, reserve_port
from tests.relay import Relay
from tests.waiting import PATIENCE

TOKEN = make_token("acme")


@pytest.fixture
def ours(service: Service, tenant: str) -> Iterator[Client]:
    """The client under test, for the tenant of the test."""
    with Client(service.url, make_token(tenant)) as client:
        yield client


def values(settings: list[Setting]) -> list[tuple[bool, int]]:
    return [(each.enabled, each.version) for each in settings]


def test_import_of_the_client_imports_no_part_of_the_server() -> None:
    code = "import sys, external_oms_config; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=True)
    assert "httpx" in done.stdout.split()
    unwanted = {"app", "connexion", "flask", "jwt", "prometheus_client", "redis", "starlette", "structlog", "uvicorn"}
    assert not unwanted & set(done.stdout.split())


def test_reads_and_writes_return_the_setting(ours: Client, tenant: str, client: Contract) -> None:
    settings = [ours.get(), ours.set(True), ours.set(True), ours.set(False, if_version=1), ours.get()]
    assert values(settings) == [(False, 0), (True, 1), (True, 1), (False, 2), (False, 2)]
    assert {ours.history().tenant, *(each.tenant for each in settings)} == {tenant}
    assert [change.version for change in ours.history().changes] == [2, 1]
    assert [change.version for change in ours.history(limit=1, before=2).changes] == [1]
    assert ours.history().changes[0].request_id == settings[3].request_id == client.history()[0]["request_id"]


@pytest.mark.parametrize("reason", ["Go-live", " 100% sure, café ☕ "])
def test_reason_is_stored_with_the_change(ours: Client, client: Contract, reason: str) -> None:
    ours.set(True, reason=reason)
    ours.update(lambda seen: not seen.enabled, reason=f"{reason}!")
    assert [change.reason for change in ours.history().changes] == [f"{reason}!", reason]
    assert [change["reason"] for change in client.history()] == [f"{reason}!", reason]


def test_asynchronous_client_does_the_same(service: Service, tenant: str) -> None:
    async def use() -> list[Setting]:
        async with AsyncClient(service.url, make_token(tenant)) as ours:
            return [await ours.get(), await ours.set(True), await ours.update(lambda seen: not seen.enabled)]

    assert values(asyncio.run(use())) == [(False, 0), (True, 1), (False, 2)]


def test_both_clients_have_the_same_methods_and_parameters() -> None:
    def methods(client: type) -> dict[str, list[inspect.Parameter]]:
        public = {name: method for name, method in vars(client).items() if not name.startswith("_")}
        return {name: list(inspect.signature(method).parameters.values()) for name, method in public.items()}

    blocking, in_asyncio = methods(Client), methods(AsyncClient)
    assert blocking.pop("close") == in_asyncio.pop("aclose")
    assert blocking == in_asyncio


def test_stale_version_is_a_conflict_with_the_current_version(ours: Client, tenant: str, client: Contract) -> None:
    client.change(True, False)
    with pytest.raises(Conflict, match=rf"409: .* the current version of tenant {tenant} is 2") as caught:
        ours.set(True, if_version=1)
    assert (caught.value.status, caught.value.version) == (409, 2)
    assert not client.enabled()


Update = Callable[..., tuple[bool, int]]


@pytest.fixture(params=["blocking", "asyncio"])
def update(request: pytest.FixtureRequest, service: Service, tenant: str) -> Update:
    """The method `update` of one of the two clients."""

    def run(decide: bool | Callable[[Setting], bool], attempts: int = 5) -> tuple[bool, int]:
        async def use() -> Setting:
            async with AsyncClient(service.url, make_token(tenant)) as ours:
                return await ours.update(decide, attempts=attempts)

        if request.param == "asyncio":
            setting = asyncio.run(use())
        else:
            with Client(service.url, make_token(tenant)) as ours:
                setting = ours.update(decide, attempts=attempts)
        return setting.enabled, setting.version

    return run


def test_update_reads_and_decides_again_after_a_conflict(update: Update, client: Contract) -> None:
    """The value is the same again after the other client's changes, but the version is not."""
    seen: list[int] = []

    def decide(setting: Setting) -> bool:
        seen.append(setting.version)
        if len(seen) == 1:
            client.change(True, False)
        return not setting.enabled

    assert update(decide) == (True, 3)
    assert seen == [0, 2]


def test_update_raises_the_conflict_after_the_last_attempt(update: Update, client: Contract) -> None:
    seen: list[int] = []

    def decide(setting: Setting) -> bool:
        seen.append(setting.version)
        client.change(not setting.enabled)
        return setting.enabled

    with pytest.raises(Conflict):
        update(decide, attempts=3)
    assert seen == [0, 1, 2]
    assert [each["version"] for each in client.history()] == [3, 2, 1]


def test_update_to_a_value_overwrites_no_change_unseen(update: Update, client: Contract) -> None:
    assert update(False) == (False, 0)
    assert update(True) == (True, 1)
    client.change(False)
    assert update(True) == (True, 3)


async def in_a_coroutine(_setting: Setting) -> bool:
    return True


@pytest.mark.filterwarnings("ignore:coroutine 'in_a_coroutine' was never awaited")
@pytest.mark.parametrize("decide", [in_a_coroutine, lambda seen: seen, lambda _: None, lambda _: 1])
def test_decision_that_is_no_bool_is_a_type_error_and_changes_nothing(
    update: Update, client: Contract, decide: Callable[[Setting], Any]
) -> None:
    with pytest.raises(TypeError, match=r"^the new value must be a bool, not (coroutine|Setting|NoneType|int)$"):
        update(decide)
    gc.collect()  # the coroutine, while its warning is ignored
    assert client.history() == []


@pytest.mark.parametrize(
    ("enabled", "others", "error"),
    [
        ("true", {}, TypeError),
        (True, {"if_version": "1\r\nX: y"}, TypeError),
        (True, {"if_version": True}, TypeError),
        (True, {"reason": b"Go-live"}, TypeError),
        (True, {"reason": "Go-live \ud800"}, ValueError),
    ],
)
def test_argument_that_cannot_be_sent_is_an_error_and_nothing_is_sent(
    enabled: Any, others: dict[str, Any], error: type[Exception]
) -> None:
    with FakeServer(b"") as server, Client(server.url, TOKEN) as ours:
        with pytest.raises(error) as caught:
            ours.set(enabled, **others)
        assert type(caught.value) is error
        assert server.requests == []


def test_an_exception_in_the_decision_changes_nothing(ours: Client, client: Contract) -> None:
    def decide(_setting: Setting) -> bool:
        raise SystemExit(7)

    with pytest.raises(SystemExit):
        ours.update(decide)
    assert (client.history(), ours.get().version) == ([], 0)


CUT = "EXEC"  # as the reason for a change: the relay cuts the connection around data with this word


def test_lost_response_to_a_write_is_an_unknown_outcome(service: Service, tenant: str, client: Contract) -> None:
    """A second update reads first, so it changes nothing if the first one was stored."""
    with Relay(service.port) as relay, Client(relay.http_url, make_token(tenant)) as ours:
        relay.rule = "cut after EXEC"
        with pytest.raises(UnknownOutcome, match="the connection was closed; the change may or may not have") as caught:
            ours.update(True, reason=CUT)
        again = ours.update(True)
    (change,) = client.history()
    assert (again.enabled, again.version, change["request_id"]) == (True, 1, caught.value.request_id)
    assert isinstance(caught.value.__cause__, TransportError)


def test_lost_write_is_an_unknown_outcome_and_not_sent_again(service: Service, tenant: str, client: Contract) -> None:
    with Relay(service.port) as relay, Client(relay.http_url, make_token(tenant)) as ours:
        relay.rule = "cut before EXEC"
        with pytest.raises(UnknownOutcome):
            ours.update(True, reason=CUT)
    assert client.history() == []


ERROR = '{"error_code": "x", "message": "Couldn\'t\\n", "request_id": "x"}'


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (http_reply("401 Unauthorized", body=ERROR), Rejected, r"returned 401: Couldn't\n"),
        (http_reply("403 Forbidden", "text/html", "<html>"), Rejected, "returned 403: the response is not from the"),
        (http_reply("404 Not Found", body=ERROR), StatusError, "returned 404: Couldn't"),
        (http_reply("500 Oh", body=ERROR), StatusError, "returned 500: Couldn't"),
        (http_reply("200 OK", "text/html", "<html>"), UnexpectedResponse, "returned 200: the response is not from the"),
        (http_reply("200 OK", body='{"enabled": true}'), UnexpectedResponse, "has removed or replaced the header ETag"),
        (
            http_reply("200 OK", "application/json; charset=hex", "{}"),
            UnexpectedResponse,
            "returned 200: the response is",
        ),
        (http_reply("500 Oh", "application/json; charset=zlib", ERROR), StatusError, "returned 500: Couldn't"),
        (b"", TransportError, "failed: the connection was closed"),
    ],
)
def test_error_of_a_read_names_the_address_and_the_reason(reply: bytes, error: type[Exception], text: str) -> None:
    with FakeServer(reply) as server, Client(server.url, TOKEN) as ours, pytest.raises(OmsConfigError) as caught:
        ours.get()
    assert type(caught.value) is error
    assert server.url in str(caught.value)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_error_has_no_token_even_if_a_server_repeats_it() -> None:
    body = f'{{"error_code": "x", "message": "{TOKEN}", "request_id": "x"}}'
    server = FakeServer(http_reply("500 Oh", body=body, X_Request_ID=TOKEN))
    with server, Client(server.url, TOKEN) as ours, pytest.raises(StatusError) as caught:
        ours.get()
    assert str(caught.value).endswith("returned 500: [token]")
    assert caught.value.request_id == "[token]"


@pytest.mark.parametrize("charset", ["hex", "zlib", "undefined", "utf-16", "no-such-charset"])
def test_response_is_utf_8_whatever_charset_it_names(charset: str) -> None:
    server = FakeServer(http_reply("200 OK", f"application/json; charset={charset}", '{"enabled": true}', ETag='"7"'))
    with server, Client(server.url, TOKEN) as ours:
        assert values([ours.get()]) == [(True, 7)]


def test_service_that_is_away_is_a_connect_error() -> None:
    url = f"http://127.0.0.1:{reserve_port()}"
    with Client(url, TOKEN) as ours:
        for request in (ours.get, lambda: ours.set(True), ours.history):
            with pytest.raises(ConnectError, match=f"cannot connect to {url}/v0: Connection refused"):
                request()


def test_slow_response_is_a_transport_error_within_the_timeout() -> None:
    with FakeServer(None) as server, Client(server.url, TOKEN, timeout=0.1) as ours:
        with pytest.raises(TransportError, match="no response in time"):
            ours.get()
        with pytest.raises(UnknownOutcome, match="no response in time"):
            ours.set(True)


def test_response_that_drips_is_a_transport_error_within_the_timeout() -> None:
    async def get() -> None:
        ended = asyncio.Event()

        async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            for _ in range(40):
                writer.write(b"x")
                await asyncio.sleep(0.1)
                if writer.is_closing():  # the client has left
                    break
            writer.close()
            ended.set()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, AsyncClient(url, TOKEN, timeout=0.5) as ours:
            with pytest.raises(TransportError, match="no response in time"):
                await ours.get()
            await ended.wait()

    asyncio.run(get())


def test_invalid_address_is_rejected_without_quoting_it() -> None:
    with pytest.raises(InvalidURL, match="the address must be http://host:port") as caught:
        Client("http://me:hunter2@127.0.0.1", TOKEN)
    assert "hunter2" not in str(caught.value)


def test_token_function_is_called_for_each_request(service: Service, tenant: str) -> None:
    tokens = [make_token(tenant), make_token(tenant, exp=1), make_token(tenant)]

    async def in_a_task() -> str:
        return tokens.pop(0)

    for get_token in (in_a_task, lambda: tokens.pop(0)):
        tokens[:] = [make_token(tenant), make_token(tenant, exp=1), make_token(tenant)]
        with Client(service.url, get_token) as ours:
            ours.get()
            with pytest.raises(Rejected, match=r"The token has expired\."):
                ours.get()
            ours.get()


def no_provider() -> str:
    raise ConnectionRefusedError(111, f"secret {TOKEN}")


async def hanging_provider() -> str:
    await asyncio.sleep(PATIENCE)
    return TOKEN


@pytest.mark.parametrize(
    ("get_token", "reason"),
    [
        (no_provider, "the token function failed: Connection refused"),
        (lambda: sys.exit(TOKEN), "the token function failed: SystemExit"),
        (hanging_provider, "the token function failed: TimeoutError"),
        (lambda: f"Bearer {TOKEN}", "expected the token alone, without 'Bearer' or quotation marks"),
        (lambda: f"{TOKEN}\r\nX-Injected: 1", "expected the token alone"),
    ],
)
def test_token_that_is_unavailable_is_named_and_nothing_is_sent(get_token: Callable[[], str], reason: str) -> None:
    with FakeServer(b"") as server, Client(server.url, get_token, timeout=0.5) as ours:
        with pytest.raises(TokenUnavailable) as caught:
            ours.set(True)
        assert str(caught.value).startswith(f"no token for {server.url}/v0: {reason}")
        assert TOKEN not in "".join(traceback.format_exception(caught.value))
        assert server.requests == []


def test_threads_share_one_client(ours: Client) -> None:
    results: list[Setting] = []
    threads = [threading.Thread(target=lambda: results.append(ours.get())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values(results) == [(False, 0)] * 20


def test_token_function_that_hangs_does_not_delay_the_end() -> None:
    """The program ends too, because the thread of the function is a daemon."""
    code = (
        "import sys, threading; from external_oms_config import Client, TokenUnavailable\n"
        "with Client('http://127.0.0.1:1', threading.Event().wait, timeout=0.2) as ours:\n"
        "    try: ours.get()\n"
        "    except TokenUnavailable as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert done.stdout == "no token for http://127.0.0.1:1/v0: the token function failed: TimeoutError\n"
    assert done.stderr == ""


def test_token_function_that_hangs_is_called_a_bounded_number_of_times() -> None:
    may_return, calls = threading.Event(), list[int]()

    def hang() -> str:
        calls.append(1)
        assert may_return.wait(PATIENCE)
        return TOKEN

    async def use(ours: AsyncClient) -> None:
        results = await asyncio.gather(*[ours.get() for _ in range(40)], return_exceptions=True)
        assert [type(each) for each in results] == [TokenUnavailable] * 40
        assert len(calls) == 32
        may_return.set()
        async with asyncio.timeout(PATIENCE):
            while isinstance((await asyncio.gather(ours.get(), return_exceptions=True))[0], TokenUnavailable):
                pass  # the calls are about to end

    async def run() -> None:
        with FakeServer(http_reply("200 OK", body='{"enabled": true}', ETag='"7"')) as server:
            async with AsyncClient(server.url, hang, timeout=0.5) as ours:
                await use(ours)

    asyncio.run(run())


class Call:
    """A call of `work` in a thread."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def ended(self) -> bool:
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (lambda ours: ours.get(), RuntimeError),
        (lambda ours: list(ours.follow()), RuntimeError),
        (lambda ours: ours.keep_copy(wait=1000.0), RuntimeError),
        (lambda ours: ours.set(True), UnknownOutcome),
    ],
    ids=["get", "follow", "keep_copy", "set"],
)
def test_close_ends_the_calls_that_wait(work: Callable[[Client], object], error: type[Exception]) -> None:
    with FakeServer(None) as server:
        ours = Client(server.url, TOKEN, timeout=PATIENCE)
        call = Call(lambda: work(ours))
        assert server.has_request.wait(PATIENCE)
        ours.close()
        assert call.ended()
    assert isinstance(call.error, error)
    assert "closed" in str(call.error)


def test_close_ends_a_reader_that_waits_to_reconnect() -> None:
    disconnected = threading.Event()

    def follow(messages: Iterator[Message]) -> None:
        for _message in messages:
            disconnected.set()

    ours = Client(f"http://127.0.0.1:{reserve_port()}", TOKEN)
    call = Call(lambda: follow(ours.follow()))
    assert disconnected.wait(PATIENCE)
    ours.close()
    assert call.ended()
    assert isinstance(call.error, RuntimeError)


def test_calls_that_meet_the_close_end() -> None:
    """Threads call without a pause while the client closes."""

    def call_on(get: Callable[[], Setting]) -> None:
        while True:
            with contextlib.suppress(ConnectError):
                get()

    url = f"http://127.0.0.1:{reserve_port()}"
    for _ in range(20):
        ours = Client(url, TOKEN)
        calls = [Call(partial(call_on, ours.get)) for _ in range(4)]
        ours.close()
        assert all(each.ended() and isinstance(each.error, RuntimeError) for each in calls)


def test_client_may_be_closed_again_and_in_two_threads() -> None:
    ours = Client("http://127.0.0.1:1", TOKEN)
    calls = [Call(ours.close) for _ in range(2)]
    assert all(each.ended() and each.error is None for each in calls)
    ours.close()
    assert not any(each.name == "oms-config client" for each in threading.enumerate())


def test_reader_may_be_closed_after_the_client() -> None:
    with Client(f"http://127.0.0.1:{reserve_port()}", TOKEN) as ours:
        messages = ours.follow()
        assert isinstance(next(messages), Disconnected)
    messages.close()


def test_closed_client_raises_at_once() -> None:
    with Client("http://127.0.0.1:1", TOKEN) as ours:
        pass
    with pytest.raises(RuntimeError, match="is closed"):
        ours.get()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_client_from_before_a_fork_raises_at_once(ours: Client) -> None:
    child = os.fork()
    if child == 0:
        try:
            ours.get()
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
