"""The simulated server replies as a real one does."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from app.store.pipeline import ResponseError
from tests.processes import start_store
from tests.simulation.journal import Journal
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Network, Rates
from tests.simulation.server import Server, UnknownCommandError
from tests.simulation.session import Session

Ask = Callable[[int, str], Any]  # sends a command on a connection with this number

# Each step has the number of a connection and a command.
CONVERSATIONS = {
    "strings and hashes": [
        (0, "GET k"),
        (0, "SET k v"),
        (0, "GET k"),
        (0, "EXISTS k h"),
        (0, "HSET h 1 a"),
        (0, "HSET h 2 b"),
        (0, "EXISTS k h"),
        (0, "HLEN h"),
        (0, "HGET h 1"),
        (0, "HGET h 3"),
        (0, "HMGET h 2 3 1"),
        (0, "HMGET none 1"),
        (0, "HDEL h 1 2 3"),
        (0, "HLEN h"),
        (0, "EXISTS h"),
        (0, "PING"),
        (0, "WAIT 0 1"),
        (0, "UNWATCH"),
    ],
    "an undisturbed transaction": [
        (0, "WATCH k h"),
        (0, "GET k"),
        (0, "MULTI"),
        (0, "SET k v"),
        (0, "HSET h 1 a"),
        (0, "HDEL h 1"),
        (0, "PUBLISH c m"),
        (0, "EXEC"),
        (0, "GET k"),
    ],
    "a rival write": [
        (0, "WATCH k"),
        (1, "SET k other"),
        (0, "MULTI"),
        (0, "SET k v"),
        (0, "EXEC"),
        (0, "GET k"),
        (0, "MULTI"),
        (0, "SET k v"),
        (0, "EXEC"),
    ],
    "a rival that writes the same value": [(0, "SET k v"), (0, "WATCH k"), (1, "SET k v"), (0, "MULTI"), (0, "EXEC")],
    "a rival write of another key": [(0, "WATCH k"), (1, "SET l v"), (0, "MULTI"), (0, "SET k v"), (0, "EXEC")],
    "a rival before UNWATCH": [(0, "WATCH k"), (1, "SET k v"), (0, "UNWATCH"), (0, "MULTI"), (0, "EXEC")],
    "a message": [(0, "SUBSCRIBE c"), (0, "PING"), (1, "PUBLISH c m"), (1, "PUBLISH d m")],
    "a full server": [
        (0, "SET k v"),
        (0, "HSET h 1 a"),
        (0, "fill"),
        (0, "GET k"),
        (0, "SET k w"),
        (0, "HDEL h 1"),
        (0, "PING"),
        (0, "MULTI"),
        (0, "SET k w"),
        (0, "PUBLISH c m"),
        (0, "EXEC"),
        (0, "GET k"),
    ],
    "a replica": [
        (0, "SET k v"),
        (1, "WATCH k"),
        (1, "MULTI"),
        (1, "SET k w"),
        (0, "demote"),
        (0, "GET k"),
        (0, "SET k w"),
        (0, "PUBLISH c m"),
        (1, "EXEC"),
        (0, "MULTI"),
        (0, "HSET h 1 a"),
        (0, "EXEC"),
        (0, "PING"),
    ],
    "EXEC without MULTI": [(0, "EXEC")],
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    server = start_store(tmp_path_factory.mktemp("compared"))
    yield server.port
    server.stop()


def ask_real(port: int) -> Iterator[Ask]:
    """Yield a function that asks a real server, which is empty at first and repaired at the end."""
    connections = [redis.Connection(port=port, protocol=2) for _ in range(2)]
    with redis.Redis(port=port) as admin:
        admin.flushall()

        def ask(number: int, command: str) -> Any:
            if command == "fill":
                admin.config_set("maxmemory", 1)
            elif command == "demote":
                admin.replicaof("127.0.0.1", "1")
            else:
                connections[number].send_command(*command.split())
                return connections[number].read_response()
            return None

        yield ask
        admin.replicaof("NO", "ONE")
        admin.config_set("maxmemory", 0)
    for connection in connections:
        connection.disconnect()


def simulated_server() -> Server:
    return Server(Network(SimulatedLoop(0), 0, Rates(), Journal()), ("redis", 6379), "redis")


def ask_simulated(server: Server) -> Ask:
    """Return a function that asks a simulated server."""
    pushed: list[Any] = []  # messages to subscribers
    sessions = [Session("host", str(number), pushed.append, lambda: None) for number in range(2)]
    for session in sessions:
        server.open(session)

    def ask(number: int, command: str) -> Any:
        if command == "fill":
            server.is_full = True
        elif command == "demote":
            server.role = "replica"
        else:
            reply = server.execute(sessions[number], [part.encode() for part in command.split()])
            if isinstance(reply, Exception):
                raise reply
            return reply
        return None

    return ask


def replies(ask: Ask, conversation: Sequence[tuple[int, str]]) -> list[Any]:
    def reply(number: int, command: str) -> Any:
        try:
            return ask(number, command)
        except ResponseError as error:
            return type(error)

    return [reply(number, command) for number, command in conversation]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_simulated_server_replies_as_a_real_one(port: int, name: str) -> None:
    conversation = CONVERSATIONS[name]
    for ask in ask_real(port):
        expected = replies(ask, conversation)
    assert replies(ask_simulated(simulated_server()), conversation) == expected


def test_unknown_command_is_an_error_that_names_it() -> None:
    with pytest.raises(UnknownCommandError, match="FLUSHALL"):
        ask_simulated(simulated_server())(0, "FLUSHALL")


@pytest.mark.parametrize(
    ("fsync", "of_machine", "can_lose"),
    [("always", True, False), ("everysec", False, False), ("everysec", True, True), ("none", False, True)],
)
def test_crash_loses_only_what_was_not_synced(fsync: Any, of_machine: bool, can_lose: bool) -> None:
    lost = []
    for seed in range(20):
        loop = SimulatedLoop(seed)
        server = Server(Network(loop, seed, Rates(), Journal()), ("redis", 6379), "redis", "primary", fsync)
        ask = ask_simulated(server)
        for number in range(10):
            ask(0, f"HSET h {number} v")
        server.crash(of_machine=of_machine)
        server.start()
        left = ask_simulated(server)(0, "HLEN h")
        assert ask_simulated(server)(0, "HMGET h " + " ".join(map(str, range(10)))) == [b"v"] * left + [None] * (
            10 - left
        )
        lost.append(left < 10)
    assert any(lost) is can_lose
