"""A Redis server in memory: transactions, publish and subscribe, WAIT and faults."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Literal

from redis.exceptions import ExecAbortError, OutOfMemoryError, ReadOnlyError, ResponseError

from app.store.redis_url import HostPort
from tests.simulation.database import WRITES, Command, Database, Reply
from tests.simulation.journal import Disturbance
from tests.simulation.log import Fsync, Log, LogEntry, stores_a_change
from tests.simulation.network import Network
from tests.simulation.replication import Replication
from tests.simulation.session import Session

Role = Literal["primary", "replica"]

_BLOCKED: Final = object()  # in the place of a reply that comes later
_EPOCH: Final = 1_700_000_000  # Redis's clock at the start of a run, in seconds


class UnknownCommandError(Exception):
    """The store has sent a command that the simulation does not have."""


class Server:
    """One Redis server. `commands` has the commands that concern the session, not only the keys."""

    def __init__(
        self, network: Network, address: HostPort, host: str, role: Role = "primary", fsync: Fsync = "always"
    ) -> None:
        self.network = network
        self.address = address
        self.host = host
        self.name = f"{host}:{address[1]}"
        self.rates = network.rates
        self.role: Role = role
        self.database = Database()
        self.log = Log(fsync)
        self.is_up = True
        self.is_full = False
        self.replicas: list[Replication] = []
        self._is_hanging = False
        self._stalled: deque[tuple[Session, Command]] = deque()
        self._sessions: dict[Session, None] = {}
        self._waiting: list[tuple[Session, int]] = []
        self.commands: dict[bytes, Callable[..., Reply]] = {
            b"MULTI": self._multi,
            b"EXEC": self._exec,
            b"WATCH": self._watch,
            b"UNWATCH": self.unwatch,
            b"WAIT": self._wait,
            b"SUBSCRIBE": self._subscribe,
            b"PING": self._ping,
            b"TIME": self._time,
            b"ROLE": self._role,
        }

    @property
    def sessions(self) -> int:
        """Return the number of open connections."""
        return len(self._sessions)

    def open(self, session: Session) -> None:
        """Accept a connection."""
        self._sessions[session] = None

    def receive(self, session: Session, command: Command) -> None:
        """Run a command that has arrived, unless the server is down. While it hangs, the command waits."""
        if not session.is_open:
            return
        if self._is_hanging:
            self._stalled.append((session, command))
        elif session.wait is not None:
            session.later.append(command)
        elif self._happens(self.rates.cut_before):
            self._cut(session, command, "before")
        else:
            reply = self.execute(session, command)
            if self._happens(self.rates.cut_after):
                self._cut(session, command, "after")
            elif reply is not _BLOCKED:
                session.reply(reply)

    def close(self, session: Session) -> None:
        """Close a connection. The client sees it after all replies."""
        if session.is_open:
            session.is_open = False
            self._sessions.pop(session, None)
            session.close()

    def close_all(self) -> None:
        """Close all connections."""
        for session in list(self._sessions):
            self.close(session)

    def hang(self) -> None:
        """Stop to run commands."""
        self._is_hanging = True

    def resume(self) -> None:
        """Run what has arrived since `hang`, and then what arrives."""
        self._is_hanging = False
        stalled, self._stalled = self._stalled, deque()
        for session, command in stalled:
            self.receive(session, command)

    def crash(self, *, of_machine: bool) -> None:
        """End the process, or the machine with it. What was not synced is lost."""
        self.is_up = False
        self._stalled.clear()
        self._is_hanging = False
        self.close_all()
        self.network.journal.note(self.network.loop.time(), f"{self.name} crashes")
        lost = self.log.lose(self.network.chance, self.network.loop.time(), of_machine=of_machine)
        if lost:
            self._drop(lost)
            self.database.replace(self.log.replay())

    def _drop(self, lost: Sequence[LogEntry]) -> None:
        commands = [command for entry in lost for command in entry.commands]
        self.network.journal.drop([command[2] for command in commands if stores_a_change(command)])

    def start(self) -> None:
        """Start again with what is on the disk."""
        self.is_up = True

    def synchronize(self, primary: "Server") -> None:
        """Become a replica of `primary`: lose all that it does not have, and follow it."""
        self.role = "replica"
        for session, _ in list(self._waiting):
            self.close(session)  # as Redis does with blocked clients
        self._waiting.clear()
        self._drop(self.log.replace(primary.log))
        self.database.replace(primary.database)
        Replication(primary, self)

    def apply(self, entry: LogEntry) -> None:
        """Apply a log entry of the primary."""
        self.log.entries.append(entry)
        for command in entry.commands:
            if command[0] == b"PUBLISH":
                self._publish(command[1], command[2])
            else:
                self.database.run(command)

    def execute(self, session: Session, command: Command) -> Reply:
        """Run one command and return its reply."""
        name = command[0]
        if session.queued is not None and name not in {b"EXEC", b"MULTI", b"WATCH"}:
            return self._queue(session, command)
        if name in self.commands:
            return self.commands[name](session, *command[1:])
        return self.refusal(session, [command]) or self._run(session, [command])[0]

    def refusal(self, session: Session, commands: Sequence[Command]) -> Exception | None:
        """Return the error reply if the server does not accept the commands, otherwise None."""
        names = {command[0] for command in commands}
        if self.role == "replica" and names & WRITES:
            return ReadOnlyError("You can't write against a read only replica.")
        if self.is_full and names & {b"SET", b"HSET"}:
            return OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        return None

    def _queue(self, session: Session, command: Command) -> Reply:
        assert session.queued is not None
        if error := self.refusal(session, [command]):
            session.is_aborted = True
            return error
        session.queued.append(command)
        return b"QUEUED"

    def _run(self, session: Session, commands: Sequence[Command]) -> list[Reply]:
        """Run commands as one transaction."""
        replies, logged = [], []
        for command in commands:
            if command[0] == b"PUBLISH":
                replies.append(self._publish(command[1], command[2]))
                logged.append(command)
            elif command[0] in WRITES:
                self._record(command)
                replies.append(self.database.run(command))
                logged.append(command)
            elif self.database.has_command(command[0]):
                replies.append(self.database.run(command))
            else:
                raise UnknownCommandError(f"{self.name} does not have the command {b' '.join(command).decode()}")
        if logged and self.role == "primary":
            self.append(logged)
            session.offset = len(self.log.entries)
        return replies

    def append(self, commands: Sequence[Command]) -> None:
        """Append a transaction to the log, for the replicas."""
        self.log.entries.append(LogEntry(self.network.loop.time(), commands))
        for replication in self.replicas:
            replication.wake()

    def _record(self, command: Command) -> None:
        if stores_a_change(command):
            old = self.database.run((b"GET", command[1]))
            self.network.journal.record(self.name, command[1], command[2], old, self.network.loop.time())

    def _publish(self, channel: bytes, message: bytes) -> int:
        subscribers = [session for session in self._sessions if session.channel == channel]
        for session in subscribers:
            session.reply([b"message", channel, message])
        return len(subscribers)

    def is_modified(self, watched: dict[bytes, int]) -> bool:
        """Return True if one of the watched keys was modified since."""
        return any(self.database.modifications.get(key, 0) != count for key, count in watched.items())

    def _exec(self, session: Session) -> Reply:
        queued, session.queued = session.queued, None
        watched, session.watched = session.watched, {}
        if queued is None:
            return ResponseError("EXEC without MULTI")
        if session.is_aborted:
            return ExecAbortError("Transaction discarded because of previous errors.")
        error = self.refusal(session, queued)
        if error is not None and not self.is_redirection(error):
            return ExecAbortError(f"Transaction discarded because of: {error}")
        if self.is_modified(watched):
            return None
        return error or self._run(session, queued)

    def is_redirection(self, error: Exception) -> bool:
        """Return True if the error reply names another node. A server that is no node of a cluster gives none."""
        return False

    def _multi(self, session: Session) -> bytes:
        session.queued, session.is_aborted = [], False
        return b"OK"

    def _watch(self, session: Session, *keys: bytes) -> Reply:
        if error := self.refusal(session, [(b"WATCH", *keys)]):
            return error
        for key in keys:
            session.watched.setdefault(key, self.database.modifications.get(key, 0))
        return b"OK"

    def unwatch(self, session: Session) -> bytes:
        """Forget what the session watches."""
        session.watched = {}
        return b"OK"

    def _wait(self, session: Session, replicas: bytes, milliseconds: bytes) -> Reply:
        confirmed = self._confirmations(session)
        if confirmed >= int(replicas):
            return confirmed
        session.wait = self.network.loop.call_later(int(milliseconds) / 1000, self._end_wait, session)
        self._waiting.append((session, int(replicas)))
        return _BLOCKED

    def confirm(self) -> None:
        """End each WAIT that has enough confirmations now. A replica calls this."""
        for session, replicas in list(self._waiting):
            if self._confirmations(session) >= replicas:
                self._end_wait(session)

    def _end_wait(self, session: Session) -> None:
        if session.wait is not None:
            session.wait.cancel()
            session.wait = None
            self._waiting = [each for each in self._waiting if each[0] is not session]
            if session.is_open:
                session.reply(self._confirmations(session))
            later, session.later = session.later, deque()
            for command in later:
                self.receive(session, command)

    def _confirmations(self, session: Session) -> int:
        return sum(each.confirmed >= session.offset for each in self.replicas)

    def _subscribe(self, session: Session, channel: bytes) -> Reply:
        session.channel = channel
        return [b"subscribe", channel, 1]

    def _ping(self, session: Session) -> Reply:
        return [b"pong", b""] if session.channel else b"PONG"

    def _time(self, session: Session) -> Reply:
        seconds, part = divmod(self.network.loop.time(), 1)
        return [b"%d" % (_EPOCH + int(seconds)), b"%d" % int(part * 1e6)]

    def _role(self, session: Session) -> Reply:
        if self.role == "primary":
            return [b"master", len(self.log.entries), []]
        return [b"slave", b"", 0, b"connected", len(self.log.entries)]

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self.network.chance.random() < rate

    def _cut(self, session: Session, command: Command, when: str) -> None:
        now = self.network.loop.time()
        kind = f"cut {when} {command[0].decode()} of {session.name}"
        self.network.journal.disturb(Disturbance(kind, now, now, [session.host]))
        self.close(session)
