"""A simulated node replies as a real one does while a slot moves."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from app.store.pipeline import ResponseError, key_slot
from tests.simulation.cluster_node import Claim, Node
from tests.simulation.journal import Journal
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Network, Rates
from tests.simulation.session import Session
from tests.topologies import cluster

Ask = Callable[[str, str], Any]  # sends a command to "source" or "target", or begins a step of the move

CONVERSATION = [
    ("source", "SET {t}a 1"),
    ("source", "SET {t}b 2"),
    ("source", "SET {t}d 2"),
    ("target", "GET {t}a"),
    ("target", "ASKING"),
    ("target", "GET {t}a"),
    ("move", "begin"),
    ("source", "GET {t}a"),
    ("source", "EXISTS {t}a {t}b"),
    ("source", "GET {t}c"),
    ("source", "SET {t}c 3"),
    ("source", "EXISTS {t}a {t}c"),
    ("source", "WATCH {t}a {t}c"),
    ("source", "MULTI"),
    ("source", "SET {t}a 4"),
    ("source", "EXEC"),
    ("source", "MULTI"),
    ("source", "SET {t}a 4"),
    ("source", "SET {t}c 4"),
    ("source", "EXEC"),
    ("target", "GET {t}a"),
    ("target", "ASKING"),
    ("target", "GET {t}a"),
    ("target", "GET {t}a"),
    ("target", "ASKING"),
    ("target", "EXISTS {t}a {t}b"),
    ("source", "WATCH {t}a {t}b"),
    ("source", "MULTI"),
    ("source", "SET {t}a 5"),
    ("move", "{t}a"),
    ("source", "EXEC"),
    ("source", "EXISTS {t}a {t}b"),
    ("target", "ASKING"),
    ("target", "EXISTS {t}a {t}b"),
    ("target", "ASKING"),
    ("target", "MULTI"),
    ("target", "SET {t}a 6"),
    ("target", "EXEC"),
    ("target", "ASKING"),
    ("target", "GET {t}a"),
    ("move", "{t}b"),
    ("source", "EXISTS {t}a {t}b"),
    ("target", "ASKING"),
    ("target", "WATCH {t}a {t}b"),
    ("source", "WATCH {t}d"),
    ("source", "MULTI"),
    ("source", "GET {t}d"),
    ("move", "{t}d"),
    ("move", "end"),
    ("source", "EXEC"),
    ("source", "GET {t}a"),
    ("target", "EXISTS {t}a {t}b"),
]
SLOT = key_slot(b"{t}")


def ask_real(directory: Path) -> Iterator[Ask]:
    """Yield a function that asks two nodes of a real cluster."""
    with cluster(directory) as nodes:
        source = nodes.owner("t")
        target = next(node for node in nodes.nodes if node is not source)
        connections = {
            name: redis.Connection(port=node.port, protocol=2)
            for name, node in (("source", source), ("target", target))
        }

        def ask(name: str, command: str) -> Any:
            match name, command:
                case "move", "begin":
                    nodes.begin_move("t", target)
                case "move", "end":
                    nodes.end_move("t", target)
                case "move", key:
                    nodes.move_key(key, source, target)
                case _:
                    connections[name].send_command(*command.split())
                    return connections[name].read_response()
            return None

        yield ask
        for connection in connections.values():
            connection.disconnect()


def ask_simulated() -> Ask:
    """Return a function that asks two simulated nodes."""
    network = Network(SimulatedLoop(0), 0, Rates(), Journal())
    starts = [0, SLOT, SLOT + 1]
    source, target = (Node(network, number, "primary", starts) for number in (1, 2))
    for start in starts:
        source.learn(start, Claim(source, 1))
        target.learn(start, Claim(source, 1))
    nodes = {"source": source, "target": target}
    pushed: list[Any] = []
    sessions = {name: Session("host", name, pushed.append, lambda: None) for name in nodes}

    def ask(name: str, command: str) -> Any:
        match name, command:
            case "move", "begin":
                target.importing.add(SLOT)
                source.migrating[SLOT] = target
            case "move", "end":
                target.importing.discard(SLOT)
                del source.migrating[SLOT]
                source.learn(SLOT, Claim(target, 2))
                target.learn(SLOT, Claim(target, 2))
            case "move", key:
                source.move_key(key.encode(), target)
            case _:
                return nodes[name].execute(sessions[name], [part.encode() for part in command.split()])
        return None

    return ask


def replies(ask: Ask, conversation: Sequence[tuple[str, str]]) -> list[tuple[str, str, Any]]:
    def reply(name: str, command: str) -> Any:
        try:
            answer = ask(name, command)
        except ResponseError as error:
            answer = error
        return type(answer).__name__ if isinstance(answer, Exception) else answer

    return [(name, command, reply(name, command)) for name, command in conversation]


def test_simulated_node_replies_as_a_real_one_while_a_slot_moves(tmp_path: Path) -> None:
    for ask in ask_real(tmp_path):
        expected = replies(ask, CONVERSATION)
    assert replies(ask_simulated(), CONVERSATION) == expected


def test_nodes_have_the_same_order_in_a_set_of_every_process() -> None:
    network = Network(SimulatedLoop(0), 0, Rates(), Journal())
    assert {hash(Node(network, number, "primary", [0]).address[0]) for number in range(4)} == {0}


@pytest.mark.parametrize("epochs", [(2, 1), (1, 2)])
def test_node_believes_the_newest_claim(epochs: tuple[int, int]) -> None:
    network = Network(SimulatedLoop(0), 0, Rates(), Journal())
    nodes = [Node(network, number, "primary", [0]) for number in range(2)]
    for owner, epoch in zip(nodes, epochs, strict=True):
        nodes[0].learn(0, Claim(owner, epoch))
    assert nodes[0].owner(5) is nodes[epochs.index(2)]
