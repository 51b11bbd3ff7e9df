"""Machines for the tests: network namespaces, joined by a bridge that can be cut."""

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tests.topologies import Host

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_numbers = itertools.count()


@dataclass(frozen=True)
class Machine(Host):
    """A network namespace. What runs in it sees only its own loopback interface and the network of the tests."""

    namespace: str

    def run(self, work: Callable[[], T]) -> T:
        """See `Host`. Processes and threads that `work` starts stay on this machine."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                _enter(self.namespace)
                results.append(work())
            except BaseException as error:
                errors.append(error)

        # A namespace is entered by one thread. The others stay in the network of the host.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


class Network:
    """Machines on one bridge. The bridge is in a namespace too, so the network of the host does not change."""

    def __init__(self, prefix: str, machines: Sequence[Machine]) -> None:
        self._hub = prefix
        self.machines = machines

    def cut(self, one: Machine, other: Machine) -> None:
        """Drop all packets between two machines. Connections between them stay open and silent."""
        # A port that is isolated exchanges packets only with ports that are not.
        for machine in (one, other):
            _ip("-n", self._hub, "link", "set", _port(machine), "type", "bridge_slave", "isolated", "on")

    def heal(self) -> None:
        """Connect all machines again."""
        for machine in self.machines:
            _ip("-n", self._hub, "link", "set", _port(machine), "type", "bridge_slave", "isolated", "off")


@contextlib.contextmanager
def network(size: int) -> Iterator[Network]:
    """Make a network of `size` machines. It is removed at the end of the block, also after an error."""
    hub = f"oms-{os.getpid()}-{next(_numbers)}"
    machines = [Machine(f"10.77.0.{number}", f"{hub}-{number}") for number in range(1, size + 1)]
    try:
        _ip("netns", "add", hub)
        _ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", hub, "link", "set", "bridge", "up")
        for machine in machines:
            _ip("netns", "add", machine.namespace)
            _connect(hub, machine)
        for machine in machines:
            for other in machines:
                if other is not machine:
                    # Without this, the machine would notice a cut at once: no answer to ARP.
                    neighbour = (other.address, "lladdr", _mac(other), "dev", "eth0", "nud", "permanent")
                    _ip("-n", machine.namespace, "neigh", "replace", *neighbour)
        yield Network(hub, machines)
    finally:
        for namespace in (hub, *(machine.namespace for machine in machines)):
            if Path("/run/netns", namespace).exists():
                _ip("netns", "delete", namespace)


def reason_not_to_run() -> str | None:
    """Return why this machine cannot make network namespaces, or None if it can."""
    if not has_ip():
        return "ip is not installed (Debian: iproute2)"
    try:
        with network(2):
            return None
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here (root is needed): {error.stderr.strip()}"


def has_ip() -> bool:
    return shutil.which("ip") is not None


def _connect(hub: str, machine: Machine) -> None:
    peer = ("peer", "name", "eth0", "address", _mac(machine), "netns", machine.namespace)
    _ip("-n", hub, "link", "add", _port(machine), "type", "veth", *peer)
    _ip("-n", hub, "link", "set", _port(machine), "master", "bridge", "up")
    _ip("-n", machine.namespace, "address", "add", f"{machine.address}/24", "dev", "eth0")
    for interface in ("lo", "eth0"):
        _ip("-n", machine.namespace, "link", "set", interface, "up")


def _number(machine: Machine) -> int:
    return int(machine.address.rpartition(".")[2])


def _port(machine: Machine) -> str:
    return f"port{_number(machine)}"


def _mac(machine: Machine) -> str:
    return f"02:00:00:00:00:{_number(machine):02x}"


def _ip(*arguments: str) -> None:
    program = shutil.which("ip")
    assert program is not None
    subprocess.run([program, *arguments], check=True, capture_output=True, text=True)


def _enter(namespace: str) -> None:
    """Move the calling thread into a namespace."""
    with Path("/run/netns", namespace).open() as file:
        # Python has os.setns since 3.12.
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns", namespace)
