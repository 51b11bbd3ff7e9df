"""Print what a partition costs: `python -m tests.partitions --seconds 25`."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.partitions.network import reason_not_to_run
from tests.partitions.scenarios import Result, Run, partition_cluster, partition_sentinels

Scenario = Callable[[Path, Run], dict[str, Result]]

SCENARIOS: dict[str, Scenario] = {
    "Sentinel": partition_sentinels,
    "Sentinel, min-replicas-to-write 1": lambda directory, how: partition_sentinels(
        directory, how, options=(("min-replicas-to-write", "1"),)
    ),
    "Cluster": partition_cluster,
}
COLUMNS = (
    "servers",
    "worker",
    "acknowledged",
    "during the cut",
    "lost",
    "last lost after",
    "reads of lost values",
    "longest pause",
    "streams: all/reset/ended",
    "lost changes kept",
    "stale streams",
)


def main() -> None:
    """Run all scenarios, or those whose names contain a word."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=25.0, help="how long the network is cut")
    parser.add_argument("--clients", type=int, default=Run.clients, help="writing clients of each worker")
    parser.add_argument("--interval", type=float, default=Run.interval, help="seconds between the writes of a client")
    parser.add_argument("--only", default="", help="a word in the name of the servers")
    arguments = parser.parse_args()
    if reason := reason_not_to_run():
        parser.error(reason)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    how = Run(arguments.clients, arguments.interval, arguments.seconds)
    for name, scenario in SCENARIOS.items():
        if arguments.only in name:
            with tempfile.TemporaryDirectory() as directory:
                results = scenario(Path(directory), how)
            for result in results.values():
                print(f"| {name} | {' | '.join(_cells(result))} |", flush=True)


def _cells(result: Result) -> tuple[str, ...]:
    of = result.figures
    return (
        result.place.name,
        str(of.acknowledged),
        str(of.acknowledged_in_cut),
        str(of.lost),
        f"{of.last_lost:.1f} s" if of.lost else "",
        str(of.lost_reads),
        f"{of.longest_pause:.1f} s",
        f"{of.streams}/{of.reset_streams}/{of.ended_streams}",
        f"{of.kept_changes} on {of.silent_streams}" if of.kept_changes else "0",
        str(of.stale_streams),
    )


if __name__ == "__main__":
    main()
