"""uvicorn's use of httptools, with limits and with the checks that httptools leaves out."""

from typing import Final, NoReturn, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.server.framing import MAX_HEAD_BYTES, Framing
from app.server.lingering import LingeringTransport
from app.server.request_head import MalformedHead, check_head
from app.web.middleware.error_responses import ErrorResponse

# Each header takes about 110 bytes of memory in addition to its own; a head of 32 KiB could have 8,000.
MAX_HEADERS: Final = 128
# Also the answer to all protocols and versions except HTTP/1.1 and HTTP/1.0: the contract has no 505.
MALFORMED = ErrorResponse(400, "Expected a request as HTTP/1.1 defines it.")
_HEAD_TOO_LARGE = ErrorResponse(431, f"Expected a request line and headers of at most {MAX_HEAD_BYTES} bytes.")
_TOO_MANY_HEADERS = ErrorResponse(431, f"Expected at most {MAX_HEADERS} headers.")


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

    def connection_made(self, transport: LingeringTransport) -> None:  # type: ignore[override]  # as in uvicorn
        """Called with the transport of a new connection."""
        super().connection_made(transport)
        self._framing = Framing()

    def data_received(self, data: bytes) -> None:
        """Passes each request to the parser separately."""
        start, length, framing = 0, len(data), self._framing
        while start < length:
            if self._ignores_input or self.transport.lingers:
                self.transport.discard(length - start)
                return
            if not framing.head_bytes:
                self._awaited_since = self.loop.time()
            end = framing.end_of_piece(data, start)
            try:
                self.parser.feed_data(data[start:end])
                if framing.head_bytes:
                    self._check_size()
            except (httptools.HttpParserError, MalformedHead):
                self.logger.warning("Invalid HTTP request received.")
                self._end(self._failure)
            except httptools.HttpParserUpgrade:
                if self._upgrade:
                    self._parse_without_upgrade()
            start = end

    def _end(self, failure: ErrorResponse | None) -> None:
        """Ends the connection. The request that is being read is answered with `failure`, if any."""
        raise NotImplementedError

    def _check_head(self) -> int | None:
        """Return the length of the body, None if it is chunked."""
        self._check_size()
        version = self._framing.version
        if version is None:
            self._stop(MALFORMED)
        try:
            self._host, length = check_head(self.headers, version, self._host)
        except MalformedHead as error:
            self._failure = error.failure
            raise
        return length

    def _check_size(self) -> None:
        if self._framing.head_bytes > MAX_HEAD_BYTES:
            self._stop(_HEAD_TOO_LARGE)
        if self._framing.in_head and self._framing.has_line and len(self.headers) > MAX_HEADERS:
            self._stop(_TOO_MANY_HEADERS)

    def _stop(self, failure: ErrorResponse) -> NoReturn:
        """Stops the parser; the request is refused with `failure`."""
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

    def _parse_without_upgrade(self) -> None:
        """Ignores the protocol that the client would prefer: parses the head again, without the header that names it.

        httptools (0.9) stops behind such a head and does not read the body.
        """
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")
