"""uvicorn's use of httptools, with limits and with the checks that httptools leaves out."""

import sys
from typing import Final, NoReturn, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.web.failures import Failure
from app.web.framing import MAX_HEAD_BYTES, Framing
from app.web.lingering import LingeringTransport
from app.web.request_head import MalformedHead, check_head

# Each header takes about 110 bytes of memory in addition to its own; a head of 32 KiB could have 8,000.
MAX_HEADERS: Final = 128
# Also the answer to all protocols and versions except HTTP/1.1 and HTTP/1.0: the contract has no 505.
MALFORMED = Failure(400, "Expected a request as HTTP/1.1 defines it.")
_HEAD_TOO_LARGE = Failure(431, f"Expected a request line and headers of at most {MAX_HEAD_BYTES} bytes.")
_TOO_MANY_HEADERS = Failure(431, f"Expected at most {MAX_HEADERS} headers.")


class RequestParsing(HttpToolsProtocol):
    """uvicorn's protocol, in which nothing reaches the parser behind a refused request or the last one allowed.

    httptools keeps an incomplete line until it ends, so the length of a head is limited here.
    """

    transport: LingeringTransport
    url = b""
    _failure = MALFORMED
    _upgrade = False
    _ignores_input = False
    _awaited_since: float | None = None  # when the client began to send what is not complete
    _host: bytes | None = None  # the last valid value

    def connection_made(self, transport: LingeringTransport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Called with the transport of a new connection."""
        super().connection_made(transport)
        self._framing = Framing()

    def data_received(self, data: bytes) -> None:
        """Passes each request to the parser in pieces of its own."""
        start, length = 0, len(data)
        while start < length:
            if self._ignores_input or self.transport.is_closing():
                self.transport.discard(length - start)
                return
            end = self._framing.end_of_piece(data, start)
            if self._awaited_since is None:
                self._awaited_since = self.loop.time()
            super().data_received(data[start:end])
            start = end
            if self._framing.head_bytes > MAX_HEAD_BYTES:
                self._end(_HEAD_TOO_LARGE)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback: one header, or a trailer of a chunked body; trailers are ignored."""
        if self._framing.in_head:
            if len(self.headers) == MAX_HEADERS:
                self._stop(_TOO_MANY_HEADERS)
            super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        """Called for all that the parser, or a callback above, refuses."""
        self._end(self._failure)

    def _end(self, failure: Failure | None) -> None:
        """Ends the connection. The request that is being read is answered with `failure`, if any."""
        raise NotImplementedError

    def _check_head(self) -> int | None:
        """Return the length of the body, None if it is chunked."""
        if self._framing.head_bytes > MAX_HEAD_BYTES:
            self._stop(_HEAD_TOO_LARGE)
        if not self._framing.is_http:
            self._stop(MALFORMED)
        try:
            self._host, length = check_head(self.headers, self.parser.get_http_version(), self._host)
        except MalformedHead as error:
            self._failure = error.failure
            raise
        return length

    def _stop(self, failure: Failure) -> NoReturn:
        """Stops the parser; uvicorn then calls `send_400_response`."""
        self._failure = failure
        raise MalformedHead(failure)

    def _scope_of_head(self) -> Scope:
        """Return what was read of a request whose head was refused."""
        begun = cast(Scope | None, self.scope)  # uvicorn's type does not say that there may be none
        scope: Scope = {"headers": []} if begun is None else {**begun}
        if self.url and self._framing.has_line:
            scope["method"] = self.parser.get_method().decode("ascii")
            target = self.url.partition(b"?")[0]
            scope["raw_path"] = target if target.isascii() else b""
        return scope

    def _unsupported_upgrade_warning(self) -> None:
        """Ignores what the client would rather speak: parses the request once more, without the header that says so.

        Private to uvicorn (0.54), which calls it when httptools (0.9) has stopped behind such a head.
        """
        if not self._upgrade or not isinstance(sys.exc_info()[1], httptools.HttpParserUpgrade):
            return
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        super().data_received(b"\r\n".join(lines) + b"\r\n\r\n")
