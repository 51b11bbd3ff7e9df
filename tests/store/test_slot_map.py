"""The slot map in the replies of cluster nodes."""

from typing import Any

import pytest

from app.store.slot_map import SlotMap, parse_epochs, parse_slots


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ([b"10.0.0.5", 6379, b"id", []], ("10.0.0.5", 6379)),
        ([b"node-5.example", 6379, b"id", [b"ip", b"10.0.0.5"]], ("node-5.example", 6379)),
        ([b"2001:db8::5", 6379, b"id", []], ("2001:db8::5", 6379)),
        ([None, 6379, b"id", [b"ip", b"10.0.0.5"]], ("asked", 6379)),
        ([b"", 6379, b"id", []], ("asked", 6379)),
        ([b"?", 6379, b"id", []], ("asked", 6379)),
        ([b"?", 6379, b"id"], ("asked", 6379)),
        ([b"?", 6379, b"id", [b"ip", b"10.0.0.5"]], ("10.0.0.5", 6379)),
        ([b"?", 6379, b"id", [b"ip", b""]], ("asked", 6379)),
        ([b"\xff", 6379, b"id", []], ("\ufffd", 6379)),
    ],
)
def test_node_with_an_unknown_host_has_another_address(node: list[Any], expected: object) -> None:
    assert parse_slots([[0, 16383, node, [b"replica", 6379, b"id", []]]], "asked") == [(0, 16383, expected)]


def test_epochs_are_those_of_the_cluster_and_the_node() -> None:
    info = b"cluster_state:ok\r\ncluster_current_epoch:12\r\ncluster_my_epoch:9\r\n"
    assert parse_epochs(info) == (12, 9)
    assert parse_epochs(b"cluster_state:ok\r\n") == (0, 0)


def test_slot_outside_every_range_has_no_owner() -> None:
    first, second = ("10.0.0.5", 1), ("10.0.0.5", 2)
    slots = SlotMap([(10, 20, second), (1, 5, first)])
    owners = [slots.owner_of(slot) for slot in (0, 1, 5, 6, 10, 20, 21)]
    assert owners == [None, first, first, None, second, second, None]
