"""What the system says of the socket that connections come in by."""

import socket
import sys

import pytest

from app.listener import is_drained, listen, refuse_new
from tests.processes import free_port


@pytest.mark.skipif(sys.platform != "linux", reason="no other system can tell")
def test_it_is_drained_once_nothing_more_can_come_and_what_came_was_accepted() -> None:
    port = free_port()
    with listen(port) as listener:
        assert not is_drained(listener)
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            refuse_new(listener)
            assert not is_drained(listener)
            listener.accept()[0].close()
            assert is_drained(listener)
