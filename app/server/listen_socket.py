"""The listening socket, and a kernel filter that drops new connections to it."""

import contextlib
import ctypes
import socket
import struct
import sys
from typing import Final

# Limit for the unsent output that the kernel buffers for one connection. Linux doubles it for its own bookkeeping.
# The kernel's default limit is 4 MB for a client that reads nothing.
SEND_BUFFER_BYTES: Final = 128 * 1024


def listen(port: int) -> socket.socket:
    """Return a socket that listens on `port` of every IPv6 and IPv4 address and that child processes inherit.

    If the system has no IPv6, the socket is for IPv4 only. Raises OSError if the port is in use. The caller closes the
    socket.
    """
    # Here, because uvloop hides the error for a port in use. The platform's router may use any address.
    has_both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if has_both else socket.AF_INET
    listening_socket = socket.create_server(("", port), family=family, dualstack_ipv6=has_both)
    listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # accepted sockets inherit it
    listening_socket.set_inheritable(True)
    return listening_socket


# Python has no names for these. Linux gives both the same number: set attaches a filter, get returns it.
_SO_ATTACH_FILTER = _SO_GET_FILTER = 26
_MAX_OPTION_BYTES: Final = 1024
# A filter of a TCP socket gets each packet from the TCP header on. Byte 13 holds the flags.
_NO_NEW_CONNECTIONS: Final = (
    (0x30, 0, 0, 13),  # load that byte
    (0x54, 0, 0, 0x12),  # mask SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN only?
    (0x06, 0, 0, 0),  # then drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # else keep it: it belongs to an existing connection or completes a handshake
)
_BACKLOG_OFFSET: Final = 24  # tcpi_unacked in tcp_info: the length of the listen queue


def drop_new_connections(listening_socket: socket.socket) -> None:
    """Make the kernel drop new connections to `listening_socket`, in all processes that share it. Linux only.

    Connections in the listen queue can still be accepted. Closing the socket would reset them.
    """
    if sys.platform == "linux":
        program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _NO_NEW_CONNECTIONS)
        buffer = ctypes.create_string_buffer(program, len(program))
        address = struct.pack("@HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(buffer))
        with contextlib.suppress(OSError):  # a sandbox may forbid it; the shutdown continues without
            listening_socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, address)


def is_backlog_empty(listening_socket: socket.socket) -> bool:
    """Return True if the listen queue is empty and new connections are dropped. Always return True if not on Linux."""
    if sys.platform != "linux":
        return True
    if not listening_socket.getsockopt(socket.SOL_SOCKET, _SO_GET_FILTER, _MAX_OPTION_BYTES):
        return False
    info = listening_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MAX_OPTION_BYTES)
    (queue_length,) = struct.unpack_from("@I", info, _BACKLOG_OFFSET)
    return bool(queue_length == 0)
