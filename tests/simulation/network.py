"""Links between named hosts: delays, lost connections and partitions, all decided by the seed."""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.simulation.journal import Disturbance, Journal
from tests.simulation.loop import SimulatedLoop

# In seconds. Two messages of one connection never arrive at the same time.
_TICK: Final = 1e-7


@dataclass
class Rates:
    """The shares of commands before or after which the connection is cut, and of messages that are slow."""

    cut_before: float = 0.0
    cut_after: float = 0.0
    slow: float = 0.0

    @classmethod
    def choose(cls, chance: random.Random) -> "Rates":
        """Return the rates of one run."""
        return cls(chance.choice([0, 0.01, 0.05]), chance.choice([0, 0.01, 0.05]), chance.choice([0, 0.002, 0.02]))

    def clear(self) -> None:
        """Let nothing go wrong from now on."""
        self.cut_before = self.cut_after = self.slow = 0.0


class Network:
    """Links between named hosts. A message between hosts that are cut off from each other arrives after `heal`."""

    def __init__(self, loop: SimulatedLoop, seed: int, rates: Rates, journal: Journal) -> None:
        self.loop = loop
        self.rates = rates
        self.journal = journal
        self.chance = random.Random(f"network {seed}")
        self._cuts: set[frozenset[str]] = set()
        self._stalled: list[Channel] = []
        self._unreached: list[asyncio.Future[None]] = []

    def delay(self, host: str, rates: Rates) -> float:
        """Return the delay of a message to or from a client on `host`."""
        if rates.slow and self.chance.random() < rates.slow:
            delay = self.chance.uniform(0.05, 0.9)
            self.journal.disturb(Disturbance("slow", self.loop.time(), self.loop.time() + delay, [host]))
            return delay
        return 0.0001 + 0.003 * self.chance.random()

    def partition(self, group: Iterable[str], others: Iterable[str]) -> None:
        """Cut each host of `group` off from each of `others`."""
        others = list(others)
        self._cuts |= {frozenset((one, other)) for one in group for other in others}

    async def reach(self, one: str, other: str) -> None:
        """Return once two hosts are not cut off from each other."""
        while self.is_cut(one, other):
            self._unreached.append(self.loop.create_future())
            await self._unreached[-1]

    def heal(self) -> None:
        """Join all hosts again. What was sent meanwhile arrives within half a second."""
        self._cuts.clear()
        for future in self._unreached:
            if not future.done():
                future.set_result(None)
        self._unreached.clear()
        stalled, self._stalled = self._stalled, []
        for channel in stalled:
            self.loop.call_later(self.chance.uniform(0, 0.5), channel.release)

    def is_cut(self, one: str, other: str) -> bool:
        """Return True if messages between two hosts do not arrive."""
        return bool(self._cuts) and frozenset((one, other)) in self._cuts

    def stall(self, channel: "Channel") -> None:
        """Release `channel` when the network is healed."""
        self._stalled.append(channel)


class Channel:
    """One direction of a connection: calls `receive` with each packet of messages, in order."""

    def __init__(
        self, network: Network, rates: Rates, client: str, server: str, receive: Callable[[Sequence[Any]], object]
    ) -> None:
        self._network = network
        self._rates = rates
        self._client = client
        self._server = server
        self._receive = receive
        self._last = 0.0
        self._held: list[Sequence[Any]] = []

    def send(self, messages: Sequence[Any]) -> None:
        """Send messages in one or more packets. Between two packets, other clients' commands may come."""
        network = self._network
        at = max(self._last, network.loop.time() + network.delay(self._client, self._rates))
        first = 0
        for end in range(1, len(messages) + 1):
            if end == len(messages) or network.chance.random() < 0.3:
                at += _TICK
                network.loop.call_at(at, self._arrive, messages[first:end])
                first, at = end, at + 0.001 * network.chance.random()
        self._last = at

    def release(self) -> None:
        """Deliver what was held back while the hosts were cut off from each other."""
        if self._network.is_cut(self._client, self._server):
            self._network.stall(self)
            return
        held, self._held = self._held, []
        for packet in held:
            self._receive(packet)

    def _arrive(self, packet: Sequence[Any]) -> None:
        if self._held or self._network.is_cut(self._client, self._server):
            if not self._held:
                self._network.stall(self)
            self._held.append(packet)
        else:
            self._receive(packet)
