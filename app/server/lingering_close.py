"""The transport of a connection: joins writes, and closes as RFC 9112, section 9.6, recommends."""

import asyncio
import fcntl
import math
import socket
import struct
import sys
import termios
from typing import Any, Final

# Limit for the input that is read and discarded after the last response.
MAX_DISCARDED_BYTES: Final = 1024 * 1024

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, for 0 seconds
_POLLS: Final = 8  # during a lingering close
_MAX_BUFFERED_BYTES: Final = 64 * 1024  # written in one event-loop iteration


class LingeringTransport(asyncio.Transport):
    """A TCP transport whose `close` lingers and whose `abort` resets the connection.

    Closing a socket that has unread input resets the connection, and the reset can destroy the last response on its
    way to the client. Therefore `close` sends the written data and the end of the output. Then it discards input until
    the client closes, or for `max_seconds_lingering` after the client has acknowledged everything. The caller must call
    `discard` for input that it does not process, and `end_input` when the client closes.

    asyncio's `abort` keeps the kernel's send buffer in memory for minutes. A reset frees it.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        *,
        max_seconds_unread: float,
        max_seconds_lingering: float,
    ) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._socket = transport.get_extra_info("socket")
        self._max_seconds_unread = max_seconds_unread
        self._max_seconds_lingering = max_seconds_lingering
        self._written = 0
        self._buffer = bytearray()  # written in this event-loop iteration
        self._deadline_bytes = 0  # what the client must acknowledge within `max_seconds_unread` of `_deadline_set_at`
        self._deadline_set_at: float | None = None
        self.lingers = False  # True after `close`, and when the connection is lost
        self._lingers_until = 0.0
        self._discarded = 0
        self.has_input_ended = False  # True after `end_input`, or after too much discarded input

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a property of the transport, such as its socket."""
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data` after the current event-loop iteration or earlier, or ignore it after `close`."""
        # Each send wakes up a client on the same machine, such as a proxy, if it sleeps. Sends in a row wake it up
        # once: with 16 connections, a worker serves 16 % more GETs. A head and its body are one send.
        if self.lingers:
            return
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer += data
        if len(self._buffer) > _MAX_BUFFERED_BYTES:
            self._flush()  # the transport pauses the application only for data that it has

    def _flush(self) -> None:
        if self._buffer and not self._transport.is_closing():
            self._written += len(self._buffer)
            self._transport.write(self._buffer)
        self._buffer = bytearray()  # a new one, because the transport may keep the old one

    def is_closing(self) -> bool:
        """Return True after `close` or `abort`, or if the connection is lost."""
        return self.lingers or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Stop reading."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading, unless the limit of discarded input is reached."""
        if self._discarded <= MAX_DISCARDED_BYTES:
            self._transport.resume_reading()

    def close(self, *, is_idle: bool = False) -> None:
        """Start a lingering close. Data written before is still sent.

        Close at once if the client has acknowledged everything, and either its input has ended or the connection
        `is_idle`.
        """
        if self.is_closing():
            return
        self.lingers = True
        self._flush()
        if (is_idle or self.has_input_ended) and not self._unacknowledged():
            self._transport.close()
            return
        self.resume_reading()
        self._transport.write_eof()
        self._lingers_until = self._loop.time() + self._max_seconds_lingering
        self._poll_later()

    def abort(self) -> None:
        """Reset the connection and drop the output that the client has not acknowledged."""
        if not self._transport.is_closing():
            if self._socket is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def discard(self, size: int) -> None:
        """Count `size` bytes of discarded input, and stop reading at the limit."""
        self._discarded += size
        if self._discarded > MAX_DISCARDED_BYTES:
            self._transport.pause_reading()
            self.end_input()

    def end_input(self) -> None:
        """Note that the client sends nothing more. A lingering connection closes if everything is acknowledged."""
        self.has_input_ended = True
        if self.lingers and not self._transport.is_closing() and not self._unacknowledged():
            self._transport.close()

    def check_unread(self, now: float) -> float:
        """Abort if the client has not acknowledged output in time. Return the seconds until the next check.

        The client must acknowledge everything that is unacknowledged at one check within `max_seconds_unread`.
        """
        unacknowledged = self._unacknowledged()
        if not unacknowledged:
            self._deadline_set_at = None
            return math.inf
        if self._deadline_set_at is None or self._written - unacknowledged >= self._deadline_bytes:
            self._deadline_bytes, self._deadline_set_at = self._written, now
        left = self._deadline_set_at + self._max_seconds_unread - now
        if left <= 0:
            self.abort()
        return left

    def _unacknowledged(self) -> int:
        """Return the number of unacknowledged bytes. The end of the output counts as one byte.

        The kernel's send buffer counts only on Linux.
        """
        unacknowledged = self._transport.get_write_buffer_size()
        if sys.platform == "linux" and self._socket is not None:
            (in_kernel,) = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))
            unacknowledged += in_kernel
        return unacknowledged

    def _poll_later(self) -> None:
        self._loop.call_later(self._max_seconds_lingering / _POLLS, self._poll)

    def _poll(self) -> None:
        now = self._loop.time()
        if self._transport.is_closing():
            return
        if self.check_unread(now) is not math.inf:
            self._lingers_until = now + self._max_seconds_lingering
        elif self.has_input_ended or now >= self._lingers_until:
            self._transport.close()
            return
        self._poll_later()
