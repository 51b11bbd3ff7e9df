"""uvicorn's protocol for HTTP/1.1, with limits and with the contract's error body for requests that it refuses."""

import asyncio
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.server.close_delimited import CloseDelimitedCycle
from app.server.lingering_close import MAX_DISCARDED_BYTES, LingeringTransport
from app.server.request_head import MALFORMED, MalformedHead
from app.server.request_parsing import RequestParsing
from app.web.context import request_context, server_state
from app.web.middleware.error_responses import ErrorResponse
from app.web.middleware.response_headers import common_headers


class HttpProtocol(RequestParsing):
    """One HTTP connection: sends the responses in the order of the requests, and enforces limits.

    uvicorn 0.54 has no such limits. It also drops pipelined requests when their client disconnects.

    The parser gets a pipelined request only after the response to the one before it, and the server stops reading until
    then. After a refused request, the parser gets no more input. The refused request gets its response, then the
    connection lingers, see LingeringTransport.
    """

    # Limit for the time in which a client must acknowledge a part of a response.
    max_seconds_unread = 20.0
    # Limits for sending a head, and a head with its body. They count from the first byte, or from the start of the
    # connection for its first request.
    max_seconds_head = 10.0
    max_seconds_request = 30.0
    # Limit for discarding input: the rest of a body after its response, and everything after the last response.
    max_seconds_lingering = 2.0

    _discarded_body_bytes = 0
    _is_last = False  # True if no request may follow the current one
    _idle_since = 0.0  # when the last response was complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the time limits of a new connection."""
        lingering = LingeringTransport(
            transport,
            self.loop,
            max_seconds_unread=self.max_seconds_unread,
            max_seconds_lingering=self.max_seconds_lingering,
        )
        super().connection_made(lingering)
        self._server = server_state(self.app_state)
        self._incomplete_since = self.loop.time()
        self._check_timer = self.loop.call_later(self._max_seconds_between_checks, self._check_timeouts)

    def data_received(self, data: bytes) -> None:
        """Process input. During a shutdown, the response to the last complete request closes the connection."""
        super().data_received(data)
        if self._server.is_stopping:
            self.close_after_response()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn declares no result
        """Keep the connection open until every response is sent and acknowledged.

        An event stream is closed at once, because it would never be complete.
        """
        self.transport.end_input()
        if self._is_streaming():
            self._close_early()
        else:
            self._process_waiting_input()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Disconnect the application and stop the timer."""
        self.transport.lingers = True  # uvicorn closes it once more
        super().connection_lost(exc)
        self._check_timer.cancel()

    @property
    def is_idle(self) -> bool:
        """Return True if no request waits for a response and the connection is open."""
        return not self._is_answering and not self.transport.is_closing()

    def close_after_response(self) -> None:
        """Close the connection after its last response. The server calls it when the shutdown starts."""
        if self._is_answering and not self.cycle.response_started:
            self.cycle.keep_alive = self._waiting_input != b""

    def shutdown(self) -> None:
        """Close an idle connection and end event streams. Reset a stream whose client does not read.

        The server calls it after waiting for requests.
        """
        if self.is_idle:
            self.transport.close(is_idle=True)
        elif self._is_answering and not self._waiting_input:
            self.cycle.keep_alive = False
        if self._server.end_streams is not None:
            self._server.end_streams()
        if self._is_streaming() and self.flow.write_paused:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Handle the end of a head. Called by the parser."""
        length = self._check_head()
        # httptools reports an upgrade for CONNECT too, which has no `Upgrade` header and no body.
        upgrades = self.parser.should_upgrade()
        self._upgrade = upgrades and self.parser.get_method() != b"CONNECT"
        if self._upgrade:
            return  # `_parse_without_upgrade` parses the head again
        super().on_headers_complete()
        self._framing.begin_body(length)
        if length is None:
            self.headers = []  # trailers are ignored
        if self.expect_100_continue or upgrades or (length or 0) > MAX_DISCARDED_BYTES:
            # Close after the response: the body may not come, no request follows CONNECT, or the body may be longer
            # than what is discarded.
            self.cycle.keep_alive = False
        self._is_last = not self.cycle.keep_alive
        if self._framing.version == "1.0":
            self.cycle.__class__ = CloseDelimitedCycle  # uvicorn has no parameter for the class
            self.cycle.waiting_for_100_continue = False  # RFC 9110, section 10.1.1

    def on_body(self, body: bytes) -> None:
        """Handle a part of a body. Called by the parser. After the response, the rest is discarded up to a limit."""
        if self.cycle.response_complete:
            self._discarded_body_bytes += len(body)
            if self._discarded_body_bytes > MAX_DISCARDED_BYTES:
                raise MalformedHead(MALFORMED)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Handle the end of a request. Called by the parser."""
        if self._upgrade:
            return
        super().on_message_complete()
        self._framing.end_request()
        self._discarded_body_bytes, self._incomplete_since, self._ignores_input = 0, None, self._is_last

    def on_response_complete(self) -> None:
        """Process the next waiting request. Called when a response is complete.

        Replaces uvicorn's method, which starts a timer for each request, and counts requests for `limit_max_requests`,
        which is not set.
        """
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if not self._framing.in_head:
            self._incomplete_since = self._idle_since
            self._schedule_check(self.max_seconds_lingering)
        elif self._waiting_input:
            self._process_waiting_input()

    def _process_waiting_input(self) -> None:
        """Process the input behind the last response. At the end of all input, end the connection."""
        data, self._waiting_input = self._waiting_input, b""
        self.data_received(data)
        if self.transport.has_input_ended:
            if self._is_answering:
                request_context(cast(Scope, self.cycle.scope)).is_half_closed = True
            if not self._waiting_input:
                self._end_connection(None)

    @property
    def _max_seconds_between_checks(self) -> float:
        return min(self.max_seconds_head, self.max_seconds_unread, self.timeout_keep_alive)

    def _is_streaming(self) -> bool:
        """Return True if a response without a length is being sent."""
        if not self._is_answering:
            return False
        cycle = self.cycle
        return cycle.is_close_delimited if isinstance(cycle, CloseDelimitedCycle) else bool(cycle.chunked_encoding)

    def _schedule_check(self, seconds: float) -> None:
        self._check_timer.cancel()
        self._check_timer = self.loop.call_later(seconds, self._check_timeouts)

    def _check_timeouts(self) -> None:
        """End the connection if its client has taken too long. Otherwise check again at the next possible timeout.

        A connection has one timer, which rarely fires, so that a request does not pay for timers.
        """
        if self.transport.is_closing():
            return
        now = self.loop.time()
        delay = min(self._max_seconds_between_checks, self.transport.check_unread(now))
        if self._incomplete_since is not None:
            if self.flow.read_paused:
                self._incomplete_since = now  # the server does not read
            delay = min(delay, self._incomplete_since + self._max_seconds_incomplete - now)
        elif not self._is_answering:
            delay = min(delay, self._idle_since + self.timeout_keep_alive - now)
        if delay <= 0:
            self._end_connection(None)
        self._schedule_check(max(delay, 0))

    @property
    def _max_seconds_incomplete(self) -> float:
        if self._framing.in_head:
            return self.max_seconds_head
        return self.max_seconds_lingering if self.cycle.response_complete else self.max_seconds_request

    def _end_connection(self, response: ErrorResponse | None) -> None:
        """End the connection after the responses to all complete requests.

        If `response` is given, it answers the incomplete request, unless its response has started.
        """
        if self._ignores_input:
            return
        self._ignores_input, self._incomplete_since = True, None
        if self._framing.in_head:
            if response is None:
                self._close_when_sent()
            else:
                self._respond(response)
        elif self.cycle.response_started:
            self._close_when_sent()
        elif response is None:
            self._close_early()
        else:
            # Let the application start first: it may respond without the body, and it sets the request ID.
            self.loop.call_soon(self._respond_before_application, response)

    def _close_when_sent(self) -> None:
        """Close after the current response. Close at once if there is none, or if it is an event stream."""
        if self._is_answering and not self._is_streaming():
            self.cycle.keep_alive = False
        else:
            self._close_early()

    def _close_early(self) -> None:
        """Close without waiting for the end of the current response."""
        self._disconnect_application()
        self.transport.close()

    def _disconnect_application(self) -> None:
        if self._is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _respond_before_application(self, response: ErrorResponse) -> None:
        """Respond instead of the application if it has not started to. The application still reports the request."""
        if self.transport.is_closing():
            return
        if self.cycle.response_started:
            self._close_when_sent()
            return
        scope = cast(Scope, self.cycle.scope)
        request_context(scope).server_status = response.status
        self._disconnect_application()
        self._write_response(response, scope)

    def _respond(self, response: ErrorResponse) -> None:
        """Respond to a request that did not reach the application, and report it to the request observers."""
        scope = self._scope_of_head()
        self._write_response(response, scope)
        if self._server.observe is not None:
            self._server.observe(scope, response.status, 0.0)  # durations count from the end of the head

    def _write_response(self, response: ErrorResponse, scope: Scope) -> None:
        body = response.body(scope)
        headers = [
            *self.server_state.default_headers,
            *response.headers_for(body),
            *common_headers(request_context(scope)),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[response.status] + lines + b"\r\n" + body)
        self.transport.close()
