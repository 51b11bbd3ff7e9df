"""The end of a connection: lingering close, and reset of a client that does not read (RFC 9112, section 9.6)."""

import asyncio
import fcntl
import math
import socket
import struct
import sys
import termios
from typing import Any, Final

# Limit for what is read and discarded behind the last answer.
MAX_DISCARDED_BYTES: Final = 1024 * 1024

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, for 0 seconds
_POLLS: Final = 8  # within the time of a lingering close


class LingeringTransport(asyncio.Transport):
    """A TCP transport whose `close` lingers and whose `abort` resets the connection.

    Closing a socket that has unread input resets the connection, and the reset can destroy the last answer on its way
    to the client. Therefore `close` sends what is written and the end of the stream. Then it discards input until
    the client has closed, or has acknowledged everything and sent nothing more for some time. The caller passes
    the size of each piece of input to `discard`, and the client's end of stream to `end_input`.

    asyncio's `abort` leaves the kernel's send buffer in memory for minutes; a reset frees it.
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
        self._mark = 0  # how many bytes the client has to acknowledge
        self._marked_at: float | None = None
        self.lingers = False  # once `close` was called
        self._lingers_until = 0.0
        self._discarded = 0
        self._has_input_ended = False
        self._timer: asyncio.TimerHandle | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows about itself, such as its socket."""
        return self._transport.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends `data`, or nothing once the connection is closing."""
        if not self.lingers:
            self._written += len(data)
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Return True once `close` or `abort` was called, or the client has closed."""
        return self.lingers or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Stops reading, except while the connection lingers."""
        if not self.lingers:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads again, unless enough was discarded."""
        if self._discarded <= MAX_DISCARDED_BYTES:
            self._transport.resume_reading()

    def close(self) -> None:
        """Closes the connection once the client has read everything, or has taken too long."""
        if self.is_closing():
            return
        self.lingers = True
        if self._has_input_ended and not self._unread():
            self._transport.close()
            return
        self.resume_reading()
        self._transport.write_eof()
        self._lingers_until = self._loop.time() + self._max_seconds_lingering
        self._poll_later()

    def close_idle(self) -> None:
        """Closes the connection at once if the client has acknowledged everything."""
        if not self.is_closing() and not self._unread():
            self._transport.close()
        else:
            self.close()

    def abort(self) -> None:
        """Resets the connection and drops what the client has not read."""
        if not self._transport.is_closing():
            if self._socket is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def discard(self, size: int) -> None:
        """Counts `size` bytes of input that are not used. Reading stops at the limit."""
        self._discarded += size
        if self._discarded > MAX_DISCARDED_BYTES:
            self._transport.pause_reading()
            self.end_input()

    def end_input(self) -> None:
        """Called when the client sends nothing more."""
        self._has_input_ended = True
        if self.lingers and not self._transport.is_closing() and not self._unread():
            self._transport.close()

    def check_unread(self, now: float) -> float:
        """Aborts if the client has left output unread for too long. Return the seconds until the next check.

        Everything that is unacknowledged at one check has to be acknowledged `max_seconds_unread` later.
        """
        unread = self._unread()
        if not unread:
            self._marked_at = None
            return math.inf
        if self._marked_at is None or self._written - unread >= self._mark:
            self._mark, self._marked_at = self._written, now
        left = self._marked_at + self._max_seconds_unread - now
        if left <= 0:
            self.abort()
        return left

    def forget(self) -> None:
        """Called when the connection is lost; it cannot be closed any more."""
        self.lingers = True
        if self._timer is not None:
            self._timer.cancel()

    def _unread(self) -> int:
        """Return the number of bytes, the end of the stream counted as one, that the client has not acknowledged.

        Only Linux reports the size of its own part.
        """
        unread = self._transport.get_write_buffer_size()
        if sys.platform == "linux" and self._socket is not None:
            (in_kernel,) = struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))
            unread += in_kernel
        return unread

    def _poll_later(self) -> None:
        self._timer = self._loop.call_later(self._max_seconds_lingering / _POLLS, self._poll)

    def _poll(self) -> None:
        now = self._loop.time()
        if self._transport.is_closing():
            return
        if self.check_unread(now) is not math.inf:
            self._lingers_until = now + self._max_seconds_lingering
        elif self._has_input_ended or now >= self._lingers_until:
            self._transport.close()
            return
        self._poll_later()
