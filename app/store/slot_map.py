"""The slot map of a cluster: the node that has each slot, according to the replies of a node."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from app.store.redis_url import HostPort

Range = tuple[int, int, HostPort]  # first slot, last slot, the node that has them

# What a node sends instead of the host of a node whose host it does not know.
_UNKNOWN_HOSTS: Final = frozenset({"", "?"})


class SlotMap:
    """The owner of each slot: the `ranges` that a node returned at its `epoch`, and slots that have `moved` since.

    An epoch rises with each change of the cluster's configuration, such as a failover.
    """

    def __init__(self, ranges: Sequence[Range] = (), epoch: int = 0) -> None:
        self.epoch = epoch
        self.moved: dict[int, HostPort] = {}
        self.nodes = frozenset(node for _, _, node in ranges)
        self._ranges = sorted(ranges)

    def owner_of(self, slot: int) -> HostPort | None:
        """Return the node that has `slot`, or None if no node has it."""
        if slot in self.moved:
            return self.moved[slot]
        index = bisect_right(self._ranges, slot, key=itemgetter(0)) - 1
        if index < 0:
            return None
        _, last, node = self._ranges[index]
        return node if slot <= last else None

    def is_confirmed_by(self, newer: "SlotMap") -> bool:
        """Return True if `newer` has the same epoch and owners, and no slot has moved meanwhile."""
        return not self.moved and (self.epoch, self._ranges) == (newer.epoch, newer._ranges)


def parse_slots(reply: Sequence[Any], queried_host: str) -> list[Range]:
    """Return the ranges in a reply to CLUSTER SLOTS."""
    return [(int(first), int(last), _host_port(node, queried_host)) for first, last, node, *_ in reply]


def parse_epochs(info: bytes) -> tuple[int, int]:
    """Return the epoch of the cluster and the epoch of the node itself, in a reply to CLUSTER INFO."""
    fields = dict(re.findall(rb"cluster_(current|my)_epoch:(\d+)", info))
    return int(fields.get(b"current", 0)), int(fields.get(b"my", 0))


def known_host(host: str, queried_host: str) -> str:
    """Return `host`, or the queried host if the queried node does not know it."""
    return queried_host if host in _UNKNOWN_HOSTS else host


def _host_port(node: Sequence[Any], queried_host: str) -> HostPort:
    """Return the address of a node. If it has no hostname yet, it may be listed with its IP address in addition."""
    host, port, _, *metadata = node
    if host == b"?" and metadata:
        names, values = metadata[0][::2], metadata[0][1::2]
        host = dict(zip(names, values, strict=True)).get(b"ip")
    return known_host((host or b"").decode(errors="replace"), queried_host), int(port)
