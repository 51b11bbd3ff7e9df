"""uvicorn's protocol for HTTP/1.1, with limits, and with the contract's body for the requests that it refuses."""

import asyncio
from typing import cast

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.server.lingering import MAX_DISCARDED_BYTES, LingeringTransport
from app.server.request_parsing import MALFORMED, RequestParsing
from app.web.context import request_context, server_state
from app.web.middleware.error_responses import ErrorResponse
from app.web.middleware.request_id import NO_SNIFFING

# Requests on one connection that were sent ahead and wait for their turn.
MAX_WAITING = 64

_TOO_MANY_WAITING = ErrorResponse(400, f"Expected at most {MAX_WAITING} requests ahead of their answers.")


class HttpProtocol(RequestParsing):
    """Answers the requests of one connection in order, within limits of time and number.

    uvicorn 0.54 has no limits. It also forgets requests that were sent ahead when their client disconnects, and reads
    on while they wait.

    Behind a refused request, nothing more reaches the parser. All requests that arrived complete are answered in order,
    then the refused one. Then the connection lingers.
    """

    # How long a client may leave a part of an answer unacknowledged.
    max_seconds_unread = 20.0
    # How long a client may take to send a head, and a head and its body: from the first byte on, the first time from
    # the connection on.
    max_seconds_head = 10.0
    max_seconds_request = 30.0
    # How long input is discarded: the rest of a body after its answer, and everything behind the last answer.
    max_seconds_lingering = 2.0

    _unwanted_bytes = 0
    _is_last = False  # no request may follow the current one
    _idle_since = 0.0  # when the last answer was complete
    _running: RequestResponseCycle | None = None
    _refused: tuple[ErrorResponse, Scope] | None = None  # to be answered behind the requests that came before
    _watching: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begins to wait for the first request."""
        lingering = LingeringTransport(
            transport,
            self.loop,
            max_seconds_unread=self.max_seconds_unread,
            max_seconds_lingering=self.max_seconds_lingering,
        )
        super().connection_made(lingering)
        self._server = server_state(self.app_state)
        self._awaited_since = self.loop.time()
        self._watch_in(self._max_seconds_between_checks)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio allows for an answer, uvicorn gives none
        """Keeps the connection open until every answer is sent and acknowledged.

        A stream ends at once: it has no end, and its client has closed.
        """
        self.transport.end_input()
        self._end(None)
        due = self._last_due()
        if self._streams():
            self._abandon()
        elif due is not None:
            request_context(cast(Scope, due.scope)).is_half_closed = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the request that is being answered, not only the one that came last, and forgets those between."""
        self.transport.forget()
        super().connection_lost(exc)
        if self._watching is not None:
            self._watching.cancel()
        self.pipeline.clear()
        self._disconnect_running()

    @property
    def is_idle(self) -> bool:
        """Return True if no request waits for its answer and the connection is open."""
        return self._last_due() is None and not self.transport.is_closing()

    def close_after_response(self) -> None:
        """Called when the server begins to stop: the connection ends with the last answer."""
        due = self._last_due()
        if due is not None and not due.response_started:
            due.keep_alive = False

    def shutdown(self) -> None:
        """Called when the server has waited: streams end, or are reset if their client does not read."""
        if self.is_idle:
            self.transport.close_idle()
        super().shutdown()
        if self._server.end_streams is not None:
            self._server.end_streams()
        if self._streams() and self.flow.write_paused:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Parser callback: the head has ended."""
        length = self._check_head()
        if len(self.pipeline) >= MAX_WAITING:
            self._stop(_TOO_MANY_WAITING)
        # CONNECT upgrades without saying so, and has no body.
        upgrades = self.parser.should_upgrade()
        self._upgrade = upgrades and self.parser.get_method() != b"CONNECT"
        if self._upgrade:
            return  # parsed again, in `_parse_without_upgrade`
        before = self._last_due()
        super().on_headers_complete()
        self._framing.begin_body(length)
        if length is None:
            self.headers = []  # trailers are ignored
        if before is None:
            self._running = self.cycle
        if self.expect_100_continue or upgrades or (length or 0) > MAX_DISCARDED_BYTES:
            # The client alone knows if the body comes at all; behind CONNECT comes no request. A body may also be more
            # than is read behind an answer.
            self.cycle.keep_alive = False
        self._is_last = not self.cycle.keep_alive
        if self._server.is_stopping:
            if before is not None and not before.response_started:
                before.keep_alive = True  # it is not the last any more
            self.close_after_response()

    def on_body(self, body: bytes) -> None:
        """Parser callback: a part of the body; of a body that is not wanted, a limited number of bytes is read."""
        if self.cycle.response_complete:
            self._unwanted_bytes += len(body)
            if self._unwanted_bytes > MAX_DISCARDED_BYTES:
                self._stop(MALFORMED)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser callback: the request has ended."""
        if self._upgrade:
            return
        super().on_message_complete()
        self._framing.end_request()
        self._unwanted_bytes, self._awaited_since, self._ignores_input = 0, None, self._is_last

    def on_response_complete(self) -> None:
        """Called when an answer is complete: starts the next request that waits. Nothing is read before it.

        Replaces uvicorn's, which starts and cancels a timer for each request.
        """
        self.server_state.total_requests += 1
        self._running = None
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            self._start_asgi_task(self._running, app)
            self.flow.pause_reading()
        elif self._refused is not None:
            self._answer(*self._refused)
        else:
            self.flow.resume_reading()
            self._idle_since = self.loop.time()
            if not self._framing.in_head:
                self._awaited_since = self._idle_since
                self._watch_in(self.max_seconds_lingering)

    @property
    def _max_seconds_between_checks(self) -> float:
        return min(self.max_seconds_head, self.max_seconds_unread)

    def _streams(self) -> bool:
        """Return True while an answer without a length is being sent."""
        return self._running is not None and bool(
            self._running.chunked_encoding and not self._running.response_complete
        )

    def _last_due(self) -> RequestResponseCycle | None:
        """Return the last request that has no complete answer."""
        return self.pipeline[0][0] if self.pipeline else self._running

    def _watch_in(self, seconds: float) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._watching = self.loop.call_later(seconds, self._watch)

    def _watch(self) -> None:
        """Ends the connection if its client has taken too long, and otherwise checks again when it may have.

        One timer for a connection's whole life: it fires seldom, and a request costs it nothing.
        """
        if self.transport.is_closing():
            return
        now = self.loop.time()
        left = min(self._max_seconds_between_checks, self.transport.check_unread(now))
        if self._awaited_since is not None:
            if self.flow.read_paused:
                self._awaited_since = now  # the server does not read
            remaining = self._awaited_since + self._max_seconds_awaited - now
        elif self._last_due() is None:
            remaining = self._idle_since + self.timeout_keep_alive - now
        else:
            remaining = left
        if remaining <= 0:
            self._end(None)
        else:
            left = min(left, remaining)
        self._watch_in(max(left, 0))

    @property
    def _max_seconds_awaited(self) -> float:
        if self._framing.in_head:
            return self.max_seconds_head
        return self.max_seconds_lingering if self.cycle.response_complete else self.max_seconds_request

    def _end(self, failure: ErrorResponse | None) -> None:
        """Ends the connection behind the requests that arrived complete.

        The one that did not is answered with `failure`, if any, unless its answer has begun.
        """
        if self._ignores_input:
            return
        self._ignores_input, self._awaited_since = True, None
        incomplete = None if self._framing.in_head else self.cycle
        if incomplete is not None and (incomplete is self._running or incomplete.response_complete):
            self._end_in_body(incomplete, failure)
            return
        if incomplete is not None:
            self.pipeline.popleft()
        scope = self._scope_of_head() if incomplete is None else cast(Scope, incomplete.scope)
        due = self._last_due()
        if due is None and failure is not None:
            self._answer(failure, scope)
        elif due is None or self._streams():
            self._abandon()  # a stream has no end
        elif failure is not None:
            self._refused = failure, scope
        else:
            due.keep_alive = False

    def _end_in_body(self, incomplete: RequestResponseCycle, failure: ErrorResponse | None) -> None:
        """Ends the connection behind the answer to a request whose body is incomplete."""
        if incomplete.response_started and not incomplete.response_complete and not self._streams():
            incomplete.keep_alive = False
        elif failure is None or incomplete.response_started:
            self._abandon()
        else:
            # The application begins first: it may answer without the body, and else knows the request's identifier.
            self.loop.call_soon(self._answer_instead, incomplete, failure)

    def _abandon(self) -> None:
        """Closes without waiting for the answer that is being sent."""
        self._disconnect_running()
        self.transport.close()

    def _disconnect_running(self) -> None:
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _answer_instead(self, due: RequestResponseCycle, failure: ErrorResponse) -> None:
        """Answers instead of the application, which has not begun to. The application still reports the request."""
        if due.response_started or self.transport.is_closing():
            self._end_in_body(due, failure)
            return
        request_context(cast(Scope, due.scope)).server_status = failure.status
        self._disconnect_running()
        self._write(failure, cast(Scope, due.scope))

    def _answer(self, failure: ErrorResponse, scope: Scope) -> None:
        """Answers a request that did not reach the application, and reports what was read of it."""
        self._refused = None
        self._write(failure, scope)
        if self._server.observe is not None:
            self._server.observe(scope, failure.status, 0.0)  # as for all others, time begins with the end of the head

    def _write(self, failure: ErrorResponse, scope: Scope) -> None:
        body = failure.body(scope)
        own = [
            *failure.head(body),
            (b"x-request-id", request_context(scope).request_id.encode()),
            NO_SNIFFING,
            (b"connection", b"close"),
        ]
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in [*self.server_state.default_headers, *own])
        self.transport.write(STATUS_LINE[failure.status] + headers + b"\r\n" + body)
        self.transport.close()
