"""uvicorn's protocol for HTTP/1.1, with bounds, and with the contract's body for what it refuses itself."""

import asyncio
import sys
from typing import Final, NoReturn, cast

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.web.failures import Failure
from app.web.request_id import NO_SNIFFING, identify, request_id_of

# A request line, the headers and the trailers together; a token of a talkative identity provider has 4 KiB.
MAX_HEAD_BYTES = 32 * 1024
# Requests on one connection that were sent ahead and wait for their turn.
MAX_WAITING = 64
# In the state that the server shares with its connections and their requests, once it was told to stop.
STOPPING: Final = "stopping"
# In the same state: whom to tell of a request that is refused here, as `Outcomes` tells of all others.
ACCOUNT: Final = "account"
# In the state of one request: the status that it was answered with here, while the application awaited its body.
REFUSED: Final = "refused"
# There, too, once its client sends no more: a stream that begins after that has nobody who would end it.
HALF_CLOSED: Final = "half_closed"

_MALFORMED = Failure(400, "Expected a request as HTTP/1.1 has it.")
_HOST = Failure(400, "Expected one Host header.")
_HEAD_TOO_LARGE = Failure(431, f"Expected a request line and headers of at most {MAX_HEAD_BYTES} bytes.")
_TOO_MANY_WAITING = Failure(400, f"Expected at most {MAX_WAITING} requests ahead of their answers.")
_LINE_BYTES = 4  # of a header beside its name and value: colon, space, end


class _Refused(Exception):
    """Stops the parser; uvicorn then calls `send_400_response`."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn 0.54's protocol bounds nothing: httptools keeps what it has of a line until the line ends.

    It also forgets about requests that were sent ahead when their client leaves, and reads on while they wait.
    """

    # For how long a client may leave unread what is sent to it, beyond what buffers hold.
    max_seconds_unread = 20.0
    # How long a client may take to send a head, and a head and its body: from the first byte on, the first time from
    # the connection on.
    max_seconds_head = 10.0
    max_seconds_request = 30.0

    url = b""
    _failure = _MALFORMED
    _head_bytes = 0
    _held_bytes = 0
    _in_head = True
    _called_back = False
    _upgrade = False
    _data = b""
    _running: RequestResponseCycle | None = None
    _cut_off_timer: asyncio.TimerHandle | None = None
    _watching: asyncio.TimerHandle | None = None
    _awaited_since: float | None = None  # what the client has begun to send and not ended

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._awaited_since = self.loop.time()
        self._watching = self.loop.call_later(self.max_seconds_head, self._watch)

    def data_received(self, data: bytes) -> None:
        """Bounds what the parser holds back: bytes that it took without calling back."""
        self._called_back, self._data = False, data
        super().data_received(data)
        self._data = b""
        self._held_bytes = 0 if self._called_back else self._held_bytes + len(data)
        if not self._called_back and self._awaited_since is None:
            self._awaited_since = self.loop.time()  # empty lines, which the parser skips
        if self._held_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_HEAD_TOO_LARGE)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio allows for an answer, uvicorn gives none
        """Keeps a connection open on which the client only listens now, for as long as an answer is due.

        A stream has no end that would be worth waiting for: whoever closes the connection has left it.
        """
        cycle = self._newest()
        if cycle is None or cycle.response_complete or cycle.more_body or self._streams():
            return False
        cycle.keep_alive = False
        cycle.scope["state"][HALF_CLOSED] = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the request that is being answered, not only the one that came last, and forgets those between."""
        super().connection_lost(exc)
        self._cancel_cut_off()
        if self._watching is not None:
            self._watching.cancel()
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered, though one may come."""
        cycle = self._newest()
        return (cycle is None or cycle.response_complete) and not self.transport.is_closing()

    def wind_down(self) -> None:
        """Called when the server is told to stop: the connection ends with the answer to what was asked last."""
        cycle = self._newest()
        if cycle is not None and not cycle.response_started:
            cycle.keep_alive = False

    def shutdown(self) -> None:
        """Called when the server has waited: streams end, or are cut off where nobody reads them."""
        super().shutdown()
        if end_streams := self.app_state.get("end_streams"):
            end_streams()
        if self._streams() and self.flow.write_paused:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Called by the transport when a client takes less than is sent: it has `max_seconds_unread` to take more."""
        super().pause_writing()
        self._cut_off_timer = self.loop.call_later(self.max_seconds_unread, self.transport.abort)

    def resume_writing(self) -> None:
        """Called by the transport when the client has taken enough."""
        super().resume_writing()
        self._cancel_cut_off()

    def on_message_begin(self) -> None:
        """Parser callback: a request begins."""
        self._head_bytes, self._in_head, self._called_back = 0, True, True
        self._awaited_since = self.loop.time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Parser callback: a part of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback: one header, or behind a chunked body one trailer; those are let go."""
        self._count(len(name) + len(value) + _LINE_BYTES)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Parser callback: the head has ended."""
        self._called_back = True
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            self._stop(_HOST)  # RFC 9112, section 3.2
        if len(self.pipeline) >= MAX_WAITING:
            self._stop(_TOO_MANY_WAITING)
        # CONNECT upgrades without saying so, and has no body.
        self._upgrade = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._upgrade:
            return  # parsed once more, in `_unsupported_upgrade_warning`
        before = self._newest()
        idle = before is None or before.response_complete
        super().on_headers_complete()
        self._in_head = False
        if idle:
            self._running = self.cycle
        if STOPPING in self.app_state:
            if before is not None and not before.response_started:
                before.keep_alive = True  # it is not the last any more
            self.wind_down()
        if self.expect_100_continue or self.parser.should_upgrade():
            # Whether the body comes at all is known to the client alone; behind CONNECT nothing more is read.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Parser callback: a part of the body."""
        self._called_back = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Parser callback: the request has ended."""
        self._called_back, self._awaited_since = True, None
        if not self._upgrade:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has been sent: the next of the requests that wait has its turn, and nothing is read before it."""
        self._running = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()

    def send_400_response(self, msg: str) -> None:
        """Called for all that the parser, or a callback above, refuses."""
        self._refuse(self._failure)

    def _streams(self) -> bool:
        """Whether the answer that is being sent has no length."""
        return self._running is not None and bool(
            self._running.chunked_encoding and not self._running.response_complete
        )

    def _newest(self) -> RequestResponseCycle | None:
        """The request that came last; uvicorn's type does not say that there may be none."""
        return cast(RequestResponseCycle | None, self.cycle)

    def _cancel_cut_off(self) -> None:
        if self._cut_off_timer is not None:
            self._cut_off_timer.cancel()

    def _count(self, size: int) -> None:
        self._called_back = True
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop(_HEAD_TOO_LARGE)

    def _stop(self, failure: Failure) -> NoReturn:
        self._failure = failure
        raise _Refused

    def _watch(self) -> None:
        """Ends the connection where its client has taken too long, and comes back where it may yet.

        One timer for a connection's whole life: it fires seldom, and a request costs it nothing.
        """
        if self.transport.is_closing():
            # What is left to send is too little to be counted as unread, and may never be read.
            self._watching = self.loop.call_later(self.max_seconds_unread, self.transport.abort)
            return
        left, now = self.max_seconds_head, self.loop.time()
        if self._awaited_since is not None:
            if self.flow.read_paused:
                self._awaited_since = now  # it is us who do not read
            most = self.max_seconds_head if self._in_head else self.max_seconds_request
            left = min(left, self._awaited_since + most - now)
            if left <= 0:
                left = self.max_seconds_head
                self._close_behind(self._last_due())
        self._watching = self.loop.call_later(left, self._watch)

    def _refuse(self, failure: Failure) -> None:
        """Answers and closes; where earlier requests still wait for their answers, closes behind the last of them."""
        due = self._last_due()
        if due is None and self._in_head:
            self._answer_unread(failure)
        elif due is not None and due.more_body and not due.response_started:
            # The application begins first: it may answer without the body, and else knows the request's identifier.
            self.flow.pause_reading()
            self.loop.call_soon(self._answer_instead, due, failure)
        else:
            self._close_behind(due)

    def _answer_unread(self, failure: Failure) -> None:
        """Answers a request whose head was refused, and tells of it what was read."""
        begun = cast(Scope | None, self.scope)  # uvicorn's type does not say that there may be none
        scope: Scope = {"headers": []} if begun is None else {**begun}
        if self.url:
            scope["method"] = self.parser.get_method().decode("ascii")
            target = self.url.partition(b"?")[0]
            scope["raw_path"] = target if target.isascii() else b""
        identify(scope)
        self._answer(failure, scope)
        if account := self.app_state.get(ACCOUNT):
            account(scope, failure.status, 0.0)  # as for all others, time begins with the end of the head

    def _answer_instead(self, due: RequestResponseCycle, failure: Failure) -> None:
        """Answers in the place of the application, which has not begun to, and which tells of the request itself."""
        if due.response_started or self.transport.is_closing():
            self._close_behind(due)
            return
        due.scope["state"][REFUSED] = failure.status
        due.disconnected = True
        due.message_event.set()
        self._answer(failure, cast(Scope, due.scope))

    def _last_due(self) -> RequestResponseCycle | None:
        """The last request that is to be answered; the one that is still on its way is not, if it waits its turn."""
        cycle = self._newest()
        if cycle is not None and cycle.more_body and cycle is not self._running and self.pipeline:
            self.pipeline.popleft()
            cycle = self.pipeline[0][0] if self.pipeline else self._running
        return None if cycle is None or cycle.response_complete else cycle

    def _close_behind(self, due: RequestResponseCycle | None) -> None:
        """Closes once `due` is answered; at once where there is none, or its rest will never come."""
        if due is None or due.more_body or self._streams():
            self.transport.close()  # a stream has no end that would be worth waiting for
        else:
            due.keep_alive = False
            self.flow.pause_reading()

    def _answer(self, failure: Failure, scope: Scope) -> None:
        body = failure.body(scope)
        own = [
            *failure.head(body),
            (b"x-request-id", request_id_of(scope).encode()),
            NO_SNIFFING,
            (b"connection", b"close"),
        ]
        headers = b"".join(name + b": " + value + b"\r\n" for name, value in [*self.server_state.default_headers, *own])
        self.transport.write(STATUS_LINE[failure.status] + headers + b"\r\n" + body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignores what the client would rather speak: parses the request once more, without the header that says so.

        Private to uvicorn (0.54), which calls it where httptools (0.9) has stopped behind such a head, its body unread.
        """
        error = sys.exc_info()[1]
        if not self._upgrade or not isinstance(error, httptools.HttpParserUpgrade):
            return
        rest = self._data[error.args[0] :]
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)
