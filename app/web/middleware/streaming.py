"""Answers that go on: their body is what an asynchronous generator yields."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import flask
from starlette.types import ASGIApp, Receive, Scope, Send
from werkzeug.datastructures import Headers

from app.server.http_protocol import HALF_CLOSED

_IN_CONTEXT = "stream"

OpenStream = Callable[[], contextlib.AbstractContextManager[object]]


def is_stream(scope: Scope) -> bool:
    """Whether the answer to the request in `scope` goes, or went, on and on."""
    return _IN_CONTEXT in scope["extensions"]["connexion_context"]


@dataclass(frozen=True, slots=True, eq=False)
class StreamBody:
    """The `parts` of an answer, and `end`, which has them end soon.

    `end` may be called more than once, also after the last part.
    """

    parts: AsyncIterator[bytes]
    end: Callable[[], object]

    async def send(self, receive: Receive, send: Send) -> None:
        """Sends all parts; ends them early when the client has left."""
        watcher = asyncio.create_task(_until_left(receive))
        watcher.add_done_callback(lambda _: self.end())
        try:
            async for part in self.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            watcher.cancel()


class StreamingResponse(flask.Response):
    """An answer with such a body. It ends the body when it is closed, unless it has handed it over."""

    def __init__(self, body: StreamBody, headers: Headers) -> None:
        super().__init__(iter(()), headers=headers)  # for a sequence, Werkzeug would set its length
        self._body: StreamBody | None = body

    def hand_over(self, scope: Scope) -> None:
        """Has `Streaming` send the body."""
        scope["extensions"]["connexion_context"][_IN_CONTEXT], self._body = self._body, None

    def close(self) -> None:
        """Called when the answer has been sent, as far as Flask knows."""
        super().close()
        if self._body is not None:
            self._body.end()


class Streaming:
    """Sends the bodies that were handed over, once all parts inside have returned.

    What they hold of a request would else be held for as long as its stream lasts: 28 KiB for each listener, not 19.
    Each is sent within a `open_stream` of its own. In the state of the lifespan, `end_streams` ends them all, those too
    that are yet to begin: for the server to call when it is told to stop.
    """

    def __init__(self, app: ASGIApp, open_stream: OpenStream = contextlib.nullcontext) -> None:
        self._app = app
        self._open_stream = open_stream
        self._running: set[StreamBody] = set()
        self._stopped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request, or the lifespan."""
        if scope["type"] == "lifespan":
            scope.get("state", {})["end_streams"] = self._end_all
        await self._app(scope, receive, send)
        if scope["type"] == "http" and _IN_CONTEXT in (context := scope["extensions"]["connexion_context"]):
            body: StreamBody = context[_IN_CONTEXT]
            self._running.add(body)
            if self._stopped or HALF_CLOSED in scope["state"]:
                body.end()
            try:
                with self._open_stream():
                    await body.send(receive, send)
            finally:
                self._running.discard(body)

    def _end_all(self) -> None:
        self._stopped = True
        for body in self._running:
            body.end()


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
