"""The scenarios: on which servers the product runs, and with which settings."""

from functools import partial
from typing import Final

from tests.simulation.cluster import Cluster, ClusterOptions
from tests.simulation.one_server import OneServer
from tests.simulation.run import Deploy, Result, Simulation
from tests.simulation.sentinels import SentinelOptions, Sentinels
from tests.simulation.server import Server

# The first word of a name is the topology.
SCENARIOS: Final[dict[str, Deploy]] = {
    "server": partial(OneServer, Server, ["always"]),
    "server that loses writes": partial(OneServer, Server, ["everysec", "none"]),
    "sentinel": partial(Sentinels, SentinelOptions()),
    "sentinel with any quorum": partial(Sentinels, SentinelOptions(majority=False)),
    "sentinel with a required replica": partial(Sentinels, SentinelOptions(min_replicas=1)),
    "cluster": partial(Cluster, ClusterOptions()),
    "cluster with a required replica": partial(Cluster, ClusterOptions(min_replicas=1)),
}


def run(scenario: str, seed: int) -> Result:
    """Return the result of one run of the product."""
    return Simulation(seed, SCENARIOS[scenario]).run()
