"""The socket that connections come in by, and what the system can do with it."""

import contextlib
import ctypes
import socket
import struct
import sys
from typing import Final

# Limit for what the kernel buffers of the answers on one connection; Linux doubles it, for its own records. Left to
# itself, the kernel buffers up to 4 MB for a client that reads nothing.
SEND_BUFFER_BYTES: Final = 128 * 1024


def listen(port: int) -> socket.socket:
    """A socket that listens on `port`, on every address of the machine."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # accepted sockets inherit it
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))  # noqa: S104 - a platform's router reaches a process by any of its addresses
    listener.listen()  # now, or uvloop would hide that another process listens on this port
    listener.set_inheritable(True)
    return listener


# Python does not name them; asked for, the second is what was set by the first.
_SO_ATTACH_FILTER = _SO_GET_FILTER = 26
_MOST_BYTES: Final = 1024
# Linux hands the filter of a TCP socket what begins with the TCP header, whose 14th byte is the flags.
_NO_NEW_CONNECTIONS: Final = (
    (0x30, 0, 0, 13),  # load that byte
    (0x54, 0, 0, 0x12),  # of it SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # then drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # keep the rest: what completes a connection that has begun
)
_BACKLOG_OFFSET: Final = 24  # in tcp_info: tcpi_unacked, which for a socket that listens is its backlog


def drop_new_connections(listener: socket.socket) -> None:
    """Has the system begin no connection more on `listener`, in whatever processes it is open; on Linux alone.

    Those that have begun are still accepted. Closing the socket would reset them.
    """
    if sys.platform == "linux":
        program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _NO_NEW_CONNECTIONS)
        buffer = ctypes.create_string_buffer(program, len(program))
        address = struct.pack("@HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(buffer))
        with contextlib.suppress(OSError):  # a sandbox may forbid it; a stop is a stop
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, address)


def is_backlog_empty(listener: socket.socket) -> bool:
    """Whether no connection waits on `listener` to be accepted, and none will; True where the system cannot tell."""
    if sys.platform != "linux":
        return True
    if not listener.getsockopt(socket.SOL_SOCKET, _SO_GET_FILTER, _MOST_BYTES):
        return False
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MOST_BYTES)
    (waiting,) = struct.unpack_from("@I", info, _BACKLOG_OFFSET)
    return bool(waiting == 0)
