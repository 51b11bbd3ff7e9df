"""Runs of the simulation: the product keeps the rules, and the rules find each negative control."""

import asyncio
import os
import subprocess
import sys

import pytest

from app.feed.feed import Feed
from tests.simulation.__main__ import summary
from tests.simulation.controls import CONTROLS, first_seed
from tests.simulation.loop import SimulatedLoop, StuckError
from tests.simulation.run import Result, Simulation, Variant
from tests.simulation.scenarios import SCENARIOS, run

SEEDS = range(1, 9)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_simulated_failures_break_no_rule(scenario: str) -> None:
    results = [run(scenario, seed) for seed in SEEDS]
    assert sum(result.operations for result in results) >= 300 * len(SEEDS)
    assert sum(result.events for result in results) >= 20 * len(SEEDS)
    assert {result.seed: result.violations[:3] for result in results if result.violations} == {}


def test_worker_whose_first_connections_are_cut_serves_in_time() -> None:
    # In this run, the worker loses its connections to all nodes while it loads its first slot map.
    assert run("cluster", 16201).violations == []


def test_short_failures_end_no_event_stream() -> None:
    assert sum(run("server", seed).ended_streams for seed in SEEDS) == 0


@pytest.mark.parametrize("name", CONTROLS)
def test_negative_control_is_found(name: str) -> None:
    assert first_seed(name) is not None


def test_seed_repeats_its_run_in_every_process() -> None:
    names = ("server", "sentinel", "cluster")
    code = f"from tests.simulation.scenarios import run; print([run(name, 3).digest for name in {sorted(names)}])"
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_trace_shows_commands_and_repeats_exactly() -> None:
    def traced(lines: list[str]) -> str:
        return Simulation(5, SCENARIOS["server"], trace=lines.append).run().digest

    first, second = list[str](), list[str]()
    assert traced(first) == traced(second) == run("server", 5).digest
    assert first == second
    assert any("[WATCH external_oms:{t0} external_oms:{t0}:history]; [GET" in line for line in first)


def test_failed_seed_is_printed_with_the_command_that_repeats_it() -> None:
    results = [Result(1), Result(2, ["a write was lost"])]
    lines = summary("cluster", results, 2.0).splitlines()
    assert lines[0].startswith("cluster: 2 seeds, 1 failed")
    assert lines[-2:] == ["  tox -e simulate -- --scenario 'cluster' --seed 2 --trace", "    a write was lost"]


def test_traceback_in_the_log_breaks_a_rule() -> None:
    class Broken(Feed):
        async def _catch_up(self) -> None:
            raise ValueError("invented")

    result = Simulation(1, SCENARIOS["server"], Variant(feed=Broken)).run()
    assert any("ValueError('invented')" in violation for violation in result.violations)


def test_seeds_run_differently() -> None:
    assert run("server", 1).digest != run("server", 2).digest


def test_run_that_waits_for_nothing_is_stuck() -> None:
    async def wait() -> None:
        await loop.create_future()

    loop = SimulatedLoop(1)
    with pytest.raises(StuckError, match="deadlock"):
        loop.run(wait())


def test_tasks_that_are_left_end_with_the_run() -> None:
    async def wait() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(loop.time())

    async def begin() -> "asyncio.Task[None]":
        left = asyncio.create_task(wait())
        await asyncio.sleep(1)
        return left

    ended: list[float] = []
    loop = SimulatedLoop(1)
    assert loop.run(begin()).cancelled()
    assert ended == [1.0]


def test_run_without_an_end_is_stuck() -> None:
    def again() -> None:
        loop.call_later(1, again)

    async def wait() -> None:
        again()
        await loop.create_future()

    loop = SimulatedLoop(1)
    with pytest.raises(StuckError, match="600 virtual seconds"):
        loop.run(wait())
