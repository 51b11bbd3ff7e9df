"""Passes input to httptools, with limits and with checks that httptools does not make."""

from typing import Final

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.server.framing import MAX_HEAD_BYTES, Framing
from app.server.lingering_close import LingeringTransport
from app.server.request_head import MALFORMED, MalformedHead, check_head, target_host, with_path
from app.web.middleware.error_responses import ErrorResponse

# Each header costs about 110 bytes in addition to its text. A head of 32 KiB could have 8,000 headers.
MAX_HEADERS: Final = 128
_SLASH: Final = ord("/")
_HEAD_TOO_LARGE = ErrorResponse(431, f"Expected a request line and headers of at most {MAX_HEAD_BYTES} bytes.")
_TOO_MANY_HEADERS = ErrorResponse(431, f"Expected at most {MAX_HEADERS} headers.")


class RequestParsing(HttpToolsProtocol):
    """uvicorn's protocol with limits. The parser gets one request at a time, and nothing behind a refused request.

    httptools buffers an incomplete line until it ends, so this class limits the length of a head.
    """

    transport: LingeringTransport
    _upgrade = False
    _ignores_input = False
    _waiting_input = b""  # behind a complete request, until its response is complete
    _incomplete_since: float | None = None  # when the client began to send the incomplete request
    _host: bytes | None = None  # the last valid `Host`

    def connection_made(self, transport: LingeringTransport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start to frame the input of a new connection."""
        super().connection_made(transport)
        self._framing = Framing()
        self.on_message_begin()  # a request can be refused before the parser calls it

    def data_received(self, data: bytes) -> None:
        """Pass each piece of `data` to the parser, keep it, or discard input that must not be processed."""
        start, length, framing = 0, len(data), self._framing
        while start < length:
            if self._ignores_input or self.transport.lingers:
                self.transport.discard(length - start)
                return
            if framing.in_head and self._is_answering:
                self._waiting_input += data[start:]
                self.flow.pause_reading()
                return
            if not framing.head_bytes:
                self._incomplete_since = self.loop.time()
            end = framing.end_of_piece(data, start)
            try:
                self.parser.feed_data(data[start:end])
                self._check_size()
            except (httptools.HttpParserError, MalformedHead) as error:
                self.logger.warning("Invalid HTTP request received.")
                causes = (error, error.__context__)  # httptools wraps the errors of its callbacks
                responses = [cause.response for cause in causes if isinstance(cause, MalformedHead)]
                self._end_connection(next(iter(responses), MALFORMED))
            except httptools.HttpParserUpgrade:
                if self._upgrade:
                    self._parse_without_upgrade()
            start = end

    @property
    def _is_answering(self) -> bool:
        """Return True from the end of a request's head until its response is complete."""
        # Before the first request, uvicorn's cycle is None, against its annotation.
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    def _end_connection(self, response: ErrorResponse | None) -> None:
        """End the connection. If `response` is given, it answers the request that is being read."""
        raise NotImplementedError

    def _check_head(self) -> int | None:
        """Return the length of the body, None if it is chunked. Raises MalformedHead."""
        self._check_size()
        self._host, length = check_head(self.headers, self._framing.version, self._host)
        if self.url[0] != _SLASH and (host := target_host(self.url)) is not None:
            # Servers must ignore `Host` then: RFC 9112, section 3.2.2.
            self.headers[:] = [(b"host", host), *(each for each in self.headers if each[0] != b"host")]
            self.url = with_path(self.url, self.parser.get_method())
        return length

    def _check_size(self) -> None:
        if self._framing.head_bytes > MAX_HEAD_BYTES:
            raise MalformedHead(_HEAD_TOO_LARGE)
        if len(self.headers) > MAX_HEADERS:
            raise MalformedHead(_TOO_MANY_HEADERS)

    def _scope_of_head(self) -> Scope:
        """Return a scope with what was read of a request whose head was refused."""
        scope: Scope = {**self.scope}
        if self.url and self._framing.has_line:
            scope["method"] = self.parser.get_method().decode("ascii")
            target = self.url.partition(b"?")[0]
            scope["raw_path"] = target if target.isascii() else b""
        return scope

    def _parse_without_upgrade(self) -> None:
        """Ignore a request to upgrade the protocol: parse the head again, without its `Upgrade` header.

        httptools 0.9 stops after such a head and does not parse the body.
        """
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")
