"""Runs the simulation from the shell: `python -m tests.simulation --seeds 20000`."""

import argparse
import collections
import itertools
import multiprocessing
import time
from collections.abc import Sequence
from typing import Final

from tests.simulation.controls import CONTROLS, first_seed
from tests.simulation.run import Result, Simulation
from tests.simulation.scenarios import SCENARIOS, run

_SHOWN: Final = 5  # failed runs, and violations of each


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
        missed = False
        for name in CONTROLS:
            seed = first_seed(name)
            print(f"{name}: found by seed {seed}" if seed else f"{name}: not found", flush=True)
            missed = missed or seed is None
        raise SystemExit(missed)
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
    """Run the seeds, print a summary, and return True if no run broke a rule."""
    began = time.monotonic()
    with multiprocessing.Pool(jobs) as pool:
        results = pool.starmap(run, zip(itertools.repeat(scenario), seeds), chunksize=20)
    print(summary(scenario, results, time.monotonic() - began), flush=True)
    return not any(result.violations for result in results)


def summary(scenario: str, results: Sequence[Result], seconds: float) -> str:
    """Return the sums of the runs, and for the first failed ones the command that repeats them."""
    failed = [result for result in results if result.violations]
    operations = sum(result.operations for result in results)
    rate = f"{seconds:.0f} s, {operations / seconds:.0f} operations/s"
    lines = [f"{scenario}: {len(results)} seeds, {len(failed)} failed; {rate}"]
    names = ("operations", "events", "ended_streams", "virtual_seconds")
    lines += [f"  {name}: {sum(getattr(result, name) for result in results):.0f}" for name in names]
    for result in failed[:_SHOWN]:
        lines.append(f"  tox -e simulate -- --scenario '{scenario}' --seed {result.seed} --trace")
        lines += [f"    {violation}" for violation in result.violations[:_SHOWN]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
