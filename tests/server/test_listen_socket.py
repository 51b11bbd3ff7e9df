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


def test_one_socket_accepts_ipv6_and_ipv4() -> None:
    with listen(0) as listening:
        port = listening.getsockname()[1]
        for address in ("::1", "127.0.0.1"):
            socket.create_connection((address, port), timeout=5).close()


def test_ipv4_is_accepted_on_a_system_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)
    with listen(0) as listening:
        assert listening.family == socket.AF_INET
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=5).close()


@pytest.mark.parametrize("address", ["::1", "127.0.0.1"])
def test_port_that_one_family_uses_is_in_use(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as taken, pytest.raises(OSError, match="in use"):
        listen(taken.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux doubles the size")
def test_send_buffers_of_accepted_connections_are_limited() -> None:
    with (
        listen(0) as listening,
        socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=5),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * SEND_BUFFER_BYTES
