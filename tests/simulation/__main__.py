"""Runs the simulation from the shell: `python -m tests.simulation --seeds 20000`."""

import argparse
import collections
import itertools
import multiprocessing
import time
from collections.abc import Sequence

from tests.simulation.controls import CONTROLS, first_seed
from tests.simulation.run import Result, Simulation
from tests.simulation.scenarios import SCENARIOS, run


def main() -> None:
    """Run many seeds, one seed again, or the negative controls."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", choices=["server", "sentinel", "cluster"], help="default: all")
    parser.add_argument("--seeds", type=int, default=1000, help="how many runs of each topology (default: 1000)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes (default: 1)")
    parser.add_argument("--scenario", choices=SCENARIOS, help="default: all of the topology")
    parser.add_argument("--seed", type=int, help="repeat one run of --scenario")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all commands, replies and faults")
    parser.add_argument("--controls", action="store_true", help="print the first seed that finds each negative control")
    arguments = parser.parse_args()
    if arguments.controls:
        for name in CONTROLS:
            print(f"{name}: found by seed {first_seed(name)}")
        return
    scenarios = [
        name
        for name in SCENARIOS
        if arguments.scenario in {None, name} and arguments.topology in {None, name.split(" ")[0]}
    ]
    if arguments.seed is not None:
        if len(scenarios) != 1:
            parser.error("--seed needs --scenario")
        (scenario,) = scenarios
        result = Simulation(arguments.seed, SCENARIOS[scenario], trace=print if arguments.trace else None).run()
        print(*result.violations, f"digest {result.digest}", sep="\n")
        raise SystemExit(bool(result.violations))
    topologies = collections.Counter(name.split(" ")[0] for name in scenarios)
    failed = 0
    for scenario in scenarios:
        share = -(-arguments.seeds // topologies[scenario.split(" ")[0]])  # rounded up
        failed += not _run_all(scenario, range(arguments.first, arguments.first + share), arguments.jobs)
    raise SystemExit(bool(failed))


def _run_all(scenario: str, seeds: Sequence[int], jobs: int) -> bool:
    """Run the seeds, print a summary and the first violations, and return True if there are none."""
    began = time.monotonic()
    with multiprocessing.Pool(jobs) as pool:
        results: list[Result] = pool.starmap(run, zip(itertools.repeat(scenario), seeds), chunksize=20)
    seconds = time.monotonic() - began
    failed = [result for result in results if result.violations]
    operations = sum(result.operations for result in results)
    print(
        f"{scenario}: {len(results)} seeds, {len(failed)} failed; {operations} operations,"
        f" {sum(result.events for result in results)} events, {sum(result.virtual_seconds for result in results):.0f}"
        f" virtual seconds, {sum(result.ended_streams for result in results)} ended streams in {seconds:.0f} s:"
        f" {operations / seconds:.0f} operations/s"
    )
    for result in failed[:5]:
        print(
            f"  python -m tests.simulation --scenario '{scenario}' --seed {result.seed}",
            *result.violations[:3],
            sep="\n    ",
        )
    return not failed


if __name__ == "__main__":
    main()
