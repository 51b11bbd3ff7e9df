"""Readiness in the log and in the metrics: one line for each change, with the cause, and a gauge."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.errors import StoreError
from app.web.endpoints.readiness import Readiness
from tests.contract import probe
from tests.fake_store import FakeStore
from tests.processes import Service, process_of, reserve_port, start_store, suspended
from tests.topologies import Node
from tests.waiting import eventually
from tests.web.middleware.test_request_metrics import TOKEN, reaches, scrape, total

Run = Callable[[Awaitable[object]], object]


def ready_lines(service: Service) -> list[str]:
    return re.findall(r'level=\w+ event=(?:ready|"not ready").*', service.log)


def test_outage_is_one_warning_and_its_end_one_line(tmp_path: Path) -> None:
    port = reserve_port()
    with Service(tmp_path / "log", f"redis://127.0.0.1:{port}/0") as service:
        assert {probe(service.port, "/readyz").status for _ in range(5)} == {503}
        server = start_store(tmp_path / "data", port)
        try:
            assert eventually(lambda: probe(service.port, "/readyz").status == 200)
            assert {probe(service.port, "/readyz").status for _ in range(5)} == {200}
            assert ready_lines(service) == [
                'level=warning event="not ready" cause="cannot connect to it: Connection refused"',
                "level=info event=ready",
            ]
            with suspended(process_of(server)):
                assert probe(service.port, "/readyz").status == 503
            assert ready_lines(service)[2:] == [
                'level=warning event="not ready" cause="it did not answer in time (REDIS_TIMEOUT)"'
            ]
        finally:
            server.stop()


def test_mistake_in_the_address_is_named(tmp_path: Path) -> None:
    sentinel = Node(tmp_path / "sentinel", (("sentinel monitor", f"oms 127.0.0.1 {reserve_port()} 1"),))
    sentinel.start(sentinel=True)
    try:
        for scheme, cause in (
            ("rediss", "it does not use TLS: use redis://"),
            ("redis", "it is a sentinel: use redis+sentinel://"),
        ):
            with Service(tmp_path / scheme, f"{scheme}://127.0.0.1:{sentinel.port}") as service:
                assert probe(service.port, "/readyz").status == 503
                assert ready_lines(service) == [f'level=warning event="not ready" cause="{cause}"']
    finally:
        sentinel.stop()


def test_scrape_measures_readiness_of_several_workers_without_probes(tmp_path: Path) -> None:
    server = start_store(tmp_path / "data")
    own = {"METRICS_TOKEN": TOKEN, "WEB_CONCURRENCY": "2", "REDIS_TIMEOUT": "0.3"}
    try:
        with Service(tmp_path / "log", f"{server.connection_url}/0", **own) as service:
            assert service.has_started(2)
            assert reaches(service, 1, "external_oms_ready")
            with suspended(process_of(server)):
                # Any worker may answer. None exposes an answer from before.
                assert [total(scrape(service), "external_oms_ready") for _ in range(4)] == [0] * 4
            assert reaches(service, 1, "external_oms_ready")
            assert ready_lines(service)
    finally:
        server.stop()


class FailingStore(FakeStore):
    """A store whose pings end when the test sets their results."""

    def __init__(self) -> None:
        super().__init__(10)
        self.pings: list[asyncio.Future[None]] = []

    async def ping(self) -> None:
        self.pings.append(asyncio.get_running_loop().create_future())
        await self.pings[-1]


async def _explain(error: StoreError) -> str:
    return str(error)


def test_late_failure_of_an_earlier_check_is_not_reported(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def overtake() -> None:
        store = FailingStore()
        readiness = Readiness(store, _explain)
        earlier = asyncio.create_task(readiness.check())
        await asyncio.sleep(0)
        later = asyncio.create_task(readiness.check())
        await asyncio.sleep(0)
        store.pings[1].set_result(None)
        assert await later
        store.pings[0].set_exception(StoreError("away"))
        assert not await earlier
        assert readiness.is_ready

    run(overtake())
    assert caplog.record_tuples == []


def test_end_of_an_outage_is_reported_after_its_cause(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def recover() -> None:
        store, explained = FailingStore(), asyncio.Event()

        async def explain(error: StoreError) -> str:
            await explained.wait()
            return str(error)

        readiness = Readiness(store, explain)
        failing = asyncio.create_task(readiness.check())
        await asyncio.sleep(0)
        store.pings[0].set_exception(StoreError("away"))
        succeeding = asyncio.create_task(readiness.check())
        await asyncio.sleep(0)
        store.pings[1].set_result(None)
        for _ in range(3):
            await asyncio.sleep(0)
        explained.set()
        assert [await failing, await succeeding] == [False, True]

    run(recover())
    assert [(each.message, vars(each).get("cause")) for each in caplog.records] == [
        ("not ready", "away"),
        ("ready", None),
    ]
