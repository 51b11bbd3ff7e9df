"""Request observers: calls and log lines, also for requests that fail."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from app.errors import StoreError
from app.web.middleware.access_log import log_request
from app.web.middleware.error_responses import ErrorResponses
from app.web.middleware.request_observers import RequestObservers
from tests.conftest import Run
from tests.contract import PATH, Wire
from tests.processes import Service, make_token


@pytest.mark.parametrize(
    ("error", "events"),
    [
        (StoreError("gone"), ["request"]),
        (asyncio.CancelledError("stopped"), ["request"]),
        (RuntimeError("unforeseen"), ["request failed", "request"]),
    ],
)
def test_failure_after_the_answer_began_is_logged_with_its_cause(
    run: Run, caplog: pytest.LogCaptureFixture, error: BaseException, events: list[str]
) -> None:
    async def breaks(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    async def send(_message: Any) -> None:
        pass

    async def fails() -> None:
        with pytest.raises(type(error)):
            await RequestObservers(ErrorResponses(breaks), [log_request])(scope, None, send)  # type: ignore[arg-type]

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/x",
        "raw_path": b"/x",
        "headers": [(b"x-request-id", b"abc")],
    }
    with caplog.at_level(logging.INFO):
        run(fails())
    assert [record.message for record in caplog.records] == events
    line = caplog.records[-1].__dict__
    assert (line["levelname"], line["status"], line["cause"]) == ("ERROR", 200, f"{type(error).__name__}: {error}")
    assert bool(caplog.records[0].exc_info) == (len(events) > 1)


def test_each_observer_is_called_once_for_each_request(run: Run) -> None:
    async def answers(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def send(_message: Any) -> None:
        pass

    statuses: list[int] = []
    observers = RequestObservers(answers, [lambda _scope, status, _seconds: statuses.append(status)] * 2)
    run(observers({"type": "http", "headers": []}, None, send))  # type: ignore[arg-type]
    assert statuses == [204, 204]


def test_client_that_leaves_before_its_answer_is_observed_with_status_0(run: Run) -> None:
    async def reads(_scope: Any, _receive: Any, _send: Any) -> None:
        raise ClientDisconnect

    statuses: list[int] = []
    observers = RequestObservers(ErrorResponses(reads), [lambda _scope, status, _seconds: statuses.append(status)])
    run(observers({"type": "http", "headers": []}, None, None))  # type: ignore[arg-type]
    assert statuses == [0]


def test_client_that_leaves_within_its_body_is_logged_with_status_0(service: Service, tenant: str) -> None:
    auth = f"Authorization: Bearer {make_token(tenant)}\r\nX-Request-ID: left-{tenant}\r\n"
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{auth}Content-Type: application/json\r\nContent-Length: 40\r\n\r\n"
    with Wire("127.0.0.1", service.port) as wire:
        wire.send(head.encode() + b'{"enabled": true}')
    assert service.logs(f"request_id=left-{tenant} method=POST route={PATH} path={PATH} status=0")
    assert not service.client(make_token(tenant)).enabled()
