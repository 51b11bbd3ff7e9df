"""The state that the system reports for the listening socket."""

import socket
import sys

import pytest

from app.server.listen_socket import SEND_BUFFER_BYTES, drop_new_connections, is_backlog_empty, listen


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the length of the queue")
def test_backlog_is_empty_once_closed_and_accepted() -> None:
    with listen(0) as listening:
        assert not is_backlog_empty(listening)
        with socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=5):
            drop_new_connections(listening)
            assert not is_backlog_empty(listening)
            listening.accept()[0].close()
            assert is_backlog_empty(listening)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux doubles the size")
def test_send_buffers_of_accepted_connections_are_limited() -> None:
    with (
        listen(0) as listening,
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=5),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SEND_BUFFER_BYTES
