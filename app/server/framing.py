"""Boundaries of the requests on one connection: where request lines, heads and bodies end."""

from typing import Final

# Limit for a request line, the headers and the trailers together. A token of a large identity provider has 4 KiB.
MAX_HEAD_BYTES: Final = 32 * 1024

_END_OF_LINE: Final = b"\r\n"
_END_OF_HEAD: Final = b"\r\n\r\n"
_VERSIONS: Final = {b" HTTP/1.1\r\n": "1.1", b" HTTP/1.0\r\n": "1.0"}  # by the end of the request line
_END_BYTES: Final = 11  # of a request line, with the version


class Framing:
    """Splits received bytes into pieces. No piece reaches from one request into the next.

    httptools reports neither where in its input a request ends nor the protocol that a request line names: it takes
    `RTSP/1.0` for HTTP. Both are read here, from the bytes, and all other checks are the parser's.
    """

    # True from the end of one request to the end of the next head.
    in_head = True
    # True if the request line has ended.
    has_line = False
    # The version in the request line, None for a protocol or a version that the service does not speak.
    version: str | None = None
    # Length of the request line, the headers and the trailers so far.
    head_bytes = 0

    _line = b""  # the end of the request line, or the beginning of the line with a chunk's size
    _data_left = 0  # of the body, or of the current chunk
    _in_trailers = False

    def begin_body(self, length: int | None) -> None:
        """Called at the end of a head; `length` is None for a chunked body."""
        self.in_head, self._in_trailers, self._data_left = False, False, length or 0

    def end_request(self) -> None:
        """Called at the end of a request."""
        self.in_head, self.has_line, self.head_bytes = True, False, 0

    def end_of_piece(self, data: bytes, start: int) -> int:
        """Return the end of the piece of `data` that begins at `start`. The parser has read everything before it."""
        if not self.head_bytes:
            end = data.find(_END_OF_HEAD, start) + 4
            if start + 4 < end <= start + MAX_HEAD_BYTES and not data.startswith(_END_OF_LINE, start):
                end_of_line = data.find(b"\n", start) + 1
                self._read_request_line(data[end_of_line - _END_BYTES : end_of_line])
                self.head_bytes = end - start
                return end
        elif self._data_left:
            end = min(start + self._data_left, len(data))
            self._data_left -= end - start
            return end
        # One byte too many, so that a head of exactly the limit is not refused.
        end = min(data.find(b"\n", start) + 1 or len(data), start + MAX_HEAD_BYTES + 1 - self.head_bytes)
        self.head_bytes += end - start
        self._read_line(data[start:end])
        return end

    def _read_line(self, part: bytes) -> None:
        """Reads a line, or a part of one, of a head that is not complete or of a chunked body."""
        if self.in_head and not self.has_line:
            self._line = (self._line + part)[-_END_BYTES:]
            if self._line.endswith(b"\n") and self._line.strip(_END_OF_LINE):
                self._read_request_line(self._line)
        elif not self.in_head and not self._in_trailers:
            self._line += part
            if self._line.endswith(b"\n"):
                self.head_bytes -= len(self._line)
                self._begin_chunk()

    def _read_request_line(self, line: bytes) -> None:
        self.has_line, self.version, self._line = True, _VERSIONS.get(line), b""

    def _begin_chunk(self) -> None:
        try:
            size = int(self._line.partition(b";")[0], 16)
        except ValueError:
            size = 0  # the parser refuses it
        self._line, self._in_trailers = b"", size == 0
        self._data_left = size + len(_END_OF_LINE) if size else 0
