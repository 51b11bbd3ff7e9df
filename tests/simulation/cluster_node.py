"""A node of a Redis Cluster: slots that move, and what the node knows of the other nodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from app.store.pipeline import key_slot
from tests.simulation.database import Command, Reply, keys_of
from tests.simulation.network import Network
from tests.simulation.server import Role, Server
from tests.simulation.session import Session


class SharedHost(str):
    """The host that all nodes have, so that only their ports differ.

    Its hash does not depend on the process. The product keeps nodes in sets, and their order must not either.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        return 0


HOST: Final = SharedHost("cluster")
SLOTS: Final = 16384


@dataclass(frozen=True, slots=True)
class Claim:
    """The owner of a range of slots, by the configuration with this epoch."""

    owner: "Node"
    epoch: int


class Node(Server):
    """One node. `claims` has the owner of each range that the node knows, by the range's first slot."""

    def __init__(self, network: Network, number: int, role: Role, starts: Sequence[int]) -> None:
        super().__init__(network, (HOST, 7000 + number), f"n{number}", role)
        self.claims: dict[int, Claim] = {}
        self.importing: set[int] = set()
        self.migrating: dict[int, Node] = {}
        self.is_failing = False  # it is cut off from most nodes, and knows it
        self._starts = starts
        self.commands[b"CLUSTER"] = self._cluster
        self.commands[b"ASKING"] = self._asking

    def learn(self, start: int, claim: Claim) -> None:
        """Believe a claim to the range that begins at `start`, unless a newer one is known."""
        if start not in self.claims or self.claims[start].epoch < claim.epoch:
            self.claims[start] = claim

    def current_epoch(self) -> int:
        """Return the newest epoch that the node knows."""
        return max(claim.epoch for claim in self.claims.values())

    def owner(self, slot: int) -> "Node":
        """Return the owner of a slot, as far as the node knows."""
        return self.claims[max(start for start in self._starts if start <= slot)].owner

    def move_key(self, key: bytes, target: "Node") -> None:
        """Move a key to another node, as MIGRATE does."""
        value = self.database.values[key]
        target.database.restore(key, value)
        target.append([(b"RESTORE", key, value)])
        self.database.run((b"DEL", key))
        self.append([(b"DEL", key)])

    def execute(self, session: Session, command: Command) -> Reply:
        reply = super().execute(session, command)
        if command[0] != b"ASKING" and session.queued is None:
            session.is_asking = False
        return reply

    def refusal(self, session: Session, commands: Sequence[Command]) -> Exception | None:
        keys = [key for command in commands for key in keys_of(command)]
        return (self._redirection(session, keys) if keys else None) or super().refusal(session, commands)

    def is_redirection(self, error: Exception) -> bool:
        return isinstance(error, AskError | TryAgainError | ClusterDownError)

    def _redirection(self, session: Session, keys: Sequence[bytes]) -> Exception | None:
        """Return the reply to a command with these keys if the node does not run it. Redis has the same rules."""
        if self.is_failing:
            return ClusterDownError("The cluster is down")
        slot = key_slot(keys[0])
        # While commands are queued, the keys may be missing: EXEC checks them.
        is_missing = [session.queued is None and key not in self.database.values for key in keys]
        owner = self.owner(slot)
        if owner is self and slot in self.migrating and any(is_missing):
            if not all(is_missing):
                return TryAgainError("Multiple keys request during rehashing of slot")
            return AskError(f"{slot} :{self.migrating[slot].address[1]}")
        if owner is not self and slot in self.importing and session.is_asking:
            is_half = any(is_missing) and len(set(keys)) > 1
            return TryAgainError("Multiple keys request during rehashing of slot") if is_half else None
        return None if owner is self else MovedError(f"{slot} :{owner.address[1]}")

    def _cluster(self, session: Session, command: bytes) -> Reply:
        if command == b"INFO":
            return (
                f"cluster_enabled:1\r\ncluster_state:{'fail' if self.is_failing else 'ok'}\r\n"
                f"cluster_current_epoch:{self.current_epoch()}\r\ncluster_my_epoch:{self.current_epoch()}\r\n"
            ).encode()
        assert command == b"SLOTS", command
        ends = [*self._starts[1:], SLOTS]
        # The host is NULL, as of a node that does not know its own name: the client uses the host that it has asked.
        return [
            [start, end - 1, [None, self.claims[start].owner.address[1], b"id"]]
            for start, end in zip(self._starts, ends, strict=True)
        ]

    def _asking(self, session: Session) -> bytes:
        session.is_asking = True
        return b"OK"
