"""uvicorn's protocol for HTTP/1.1, with bounded heads, and with the contract's body for what it refuses itself."""

from typing import NoReturn, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.web.failures import Failure
from app.web.request_id import new_request_id

# A request line, the headers and the trailers together; a token of a talkative identity provider has 4 KiB.
MAX_HEAD_BYTES = 32 * 1024

_MALFORMED = Failure(400, "Expected a request as HTTP/1.1 has it.")
_HEAD_TOO_LARGE = Failure(431, f"Expected a request line and headers of at most {MAX_HEAD_BYTES} bytes.")
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
_BODY_BEHIND_UPGRADE = Failure(400, "Expected no Upgrade header on a request with a body.")


class _Refused(Exception):
    """Stops the parser; uvicorn then calls `send_400_response`."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn 0.54's protocol bounds nothing: httptools keeps what it has of a line until the line ends."""

    _failure = _MALFORMED
    _head_bytes = 0
    _held_bytes = 0
    _in_head = False
    _called_back = False

    def data_received(self, data: bytes) -> None:
        """Bounds what the parser holds back: bytes that it took without calling back."""
        self._called_back = False
        super().data_received(data)
        self._held_bytes = 0 if self._called_back else self._held_bytes + len(data)
        if self._held_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_HEAD_TOO_LARGE)

    def on_message_begin(self) -> None:
        """Parser callback: a request begins."""
        self._head_bytes, self._in_head, self._called_back = 0, True, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Parser callback: a part of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback: one header, or behind a chunked body one trailer; those are let go."""
        self._count(len(name) + len(value))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Parser callback: the head has ended. Behind one that asks for an upgrade httptools 0.9 reads nothing."""
        self._in_head, self._called_back = False, True
        upgrade = self.parser.should_upgrade()
        if upgrade and any(name in _BODY_HEADERS for name, _ in self.headers):
            self._stop(_BODY_BEHIND_UPGRADE)
        super().on_headers_complete()
        if upgrade:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Parser callback: a part of the body."""
        self._called_back = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser callback: the request has ended."""
        self._called_back = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called for all that the parser, or a callback above, refuses."""
        self._refuse(self._failure)

    def _count(self, size: int) -> None:
        self._called_back = True
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop(_HEAD_TOO_LARGE)

    def _stop(self, failure: Failure) -> NoReturn:
        self._failure = failure
        raise _Refused

    def _refuse(self, failure: Failure) -> None:
        """Answers and closes; where an earlier request is still without its answer, closes behind that one."""
        cycle = cast(RequestResponseCycle | None, self.cycle)
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
        request_id = new_request_id()
        body = failure.body(request_id)
        own = [*failure.head(body), (b"x-request-id", request_id.encode()), (b"connection", b"close")]
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in [*self.server_state.default_headers, *own])
        self.transport.write(STATUS_LINE[failure.status] + headers + b"\r\n" + body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Private to uvicorn (0.54): two warnings for each request that asks for web sockets, which there are none."""
