"""The figures of a partition, from operations and events that are written by hand."""

from dataclasses import replace

from tests.partitions.clients import Change, Received
from tests.partitions.figures import is_current, kept_changes, lost_reads
from tests.register import Operation

HISTORY = {1: Change("at 1", "a"), 2: Change("at 2", "b")}
FIRST, SECOND = Received(False, 1, "at 1"), Received(False, 2, "at 2")
LOST = Received(False, 2, "earlier")
WRITE = Operation("lost", 0.0, 1.0, "answered", wanted=True, expected=1, version=2, enabled=True)
READ = Operation("read", 2.0, 3.0, "answered", version=2, enabled=True)


def test_lost_change_counts_until_a_reset() -> None:
    assert kept_changes([FIRST, SECOND], HISTORY) == 0
    assert kept_changes([FIRST, LOST], HISTORY) == 1
    assert kept_changes([FIRST, LOST, Received(False, 3, "at 3")], HISTORY) == 2
    assert kept_changes([FIRST, LOST, replace(SECOND, is_reset=True)], HISTORY) == 0
    assert kept_changes([replace(LOST, is_reset=True)], HISTORY) == 1


def test_stream_is_current_if_its_last_event_is_the_newest_change() -> None:
    assert is_current([FIRST, SECOND], HISTORY)
    assert is_current([Received(False, 0, None)], {})
    assert not is_current([], HISTORY)
    assert not is_current([FIRST], HISTORY)
    assert not is_current([FIRST, LOST], HISTORY)


def test_read_of_a_lost_write_counts_until_the_client_sees_the_survivors() -> None:
    unknown = replace(WRITE, outcome="unknown", version=None, enabled=None)
    survived = replace(WRITE, name="b")
    assert lost_reads([WRITE, READ], {"b"}) == 1
    assert lost_reads([unknown, READ], {"b"}) == 1
    assert lost_reads([survived, READ], {"b"}) == 0
    assert lost_reads([WRITE, READ, survived, READ], {"b"}) == 1
    assert lost_reads([replace(WRITE, outcome="conflict"), READ], {"b"}) == 0
    assert lost_reads([WRITE, replace(READ, version=1)], {"b"}) == 0
