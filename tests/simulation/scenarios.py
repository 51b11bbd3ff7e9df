"""The scenarios: on which servers the product runs, and with which settings."""

from functools import partial
from typing import Final

from tests.simulation.one_server import OneServer
from tests.simulation.run import PRODUCT, Deploy, Result, Simulation, Variant

# The first word of a name is the topology.
SCENARIOS: Final[dict[str, Deploy]] = {
    "server": partial(OneServer, fsync=["always"]),
    "server that loses writes": partial(OneServer, fsync=["everysec", "none"]),
}


def run(scenario: str, seed: int, variant: Variant = PRODUCT) -> Result:
    """Return the result of one run."""
    return Simulation(seed, SCENARIOS[scenario], variant).run()
