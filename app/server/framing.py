"""Finds the boundaries of the requests on one connection: the ends of request lines, heads and bodies."""

from typing import Final

# Limit for a request line, the headers and the trailers together. Large identity providers issue tokens of 4 KiB.
MAX_HEAD_BYTES: Final = 32 * 1024

_END_OF_LINE: Final = b"\r\n"
_END_OF_HEAD: Final = b"\r\n\r\n"
_VERSIONS: Final = {b" HTTP/1.1\r\n": "1.1", b" HTTP/1.0\r\n": "1.0"}  # by the last bytes of the line
_VERSION_BYTES: Final = 11  # length of these keys


class Framing:
    """Splits received bytes into pieces for the parser. No piece contains bytes of two requests.

    httptools does not report where a request ends, and it accepts `RTSP/1.0` as if it were HTTP. This class finds the
    ends and the HTTP version. The parser makes all other checks.
    """

    # True from the end of one request until the end of the next head.
    in_head = True
    # True if the request line is complete.
    has_line = False
    # The version in the request line, None for an unsupported protocol or version.
    version: str | None = None
    # Bytes of the request line, the headers and the trailers so far.
    head_bytes = 0

    _line = b""  # the last bytes of the request line, or the first of a chunk-size line
    _data_left = 0  # bytes left of the body or of the current chunk
    _in_trailers = False

    def begin_body(self, length: int | None) -> None:
        """Expect a body after the head. `length` is None for a chunked body."""
        self.in_head, self._in_trailers, self._data_left = False, False, length or 0

    def end_request(self) -> None:
        """Expect the next request."""
        self.in_head, self.has_line, self.head_bytes = True, False, 0

    def end_of_piece(self, data: bytes, start: int) -> int:
        """Return the index in `data` where the piece that begins at `start` ends.

        The parser must have processed everything before `start`.
        """
        if not self.head_bytes:
            end = data.find(_END_OF_HEAD, start) + 4
            if start + 4 < end <= start + MAX_HEAD_BYTES and not data.startswith(_END_OF_LINE, start):
                end_of_line = data.find(b"\n", start) + 1
                self._read_request_line(data[end_of_line - _VERSION_BYTES : end_of_line])
                self.head_bytes = end - start
                return end
        elif self._data_left:
            end = min(start + self._data_left, len(data))
            self._data_left -= end - start
            return end
        # One byte more than the limit, so that a head of exactly the limit is accepted.
        end = min(data.find(b"\n", start) + 1 or len(data), start + MAX_HEAD_BYTES + 1 - self.head_bytes)
        self.head_bytes += end - start
        self._read_line(data[start:end])
        return end

    def _read_line(self, part: bytes) -> None:
        """Process a line, or a part of one, of an incomplete head or a chunked body."""
        if self.in_head and not self.has_line:
            self._line = (self._line + part)[-_VERSION_BYTES:]
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
            size = 0  # the parser rejects it
        self._line, self._in_trailers = b"", size == 0
        self._data_left = size + len(_END_OF_LINE) if size else 0
