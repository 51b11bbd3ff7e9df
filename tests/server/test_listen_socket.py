"""What the system says of the socket that connections come in by."""

import socket
import sys

import pytest

from app.server.listen_socket import SEND_BUFFER_BYTES, drop_new_connections, is_backlog_empty, listen


@pytest.mark.skipif(sys.platform != "linux", reason="no other system can tell")
def test_it_is_drained_once_nothing_more_can_come_and_what_came_was_accepted() -> None:
    with listen(0) as listener:
        assert not is_backlog_empty(listener)
        with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5):
            drop_new_connections(listener)
            assert not is_backlog_empty(listener)
            listener.accept()[0].close()
            assert is_backlog_empty(listener)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system doubles it")
def test_send_buffers_of_accepted_connections_are_limited() -> None:
    with (
        listen(0) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=5),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SEND_BUFFER_BYTES
