"""Answers that go on: their body is what an asynchronous generator yields."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping

import flask
from starlette.types import Receive, Send


class Stream(flask.Response):
    """An answer whose body is what an asynchronous generator yields, part by part.

    `end` is called when the answer is over, and before that when the client has left or the server is told to stop;
    then the generator has to end soon. It may be called more than once.
    """

    def __init__(self, parts: AsyncGenerator[bytes], end: Callable[[], object], headers: Mapping[str, str]) -> None:
        super().__init__(iter(()), headers=dict(headers))  # for a sequence, Werkzeug would set its length
        self.parts = parts
        self.end = end
        self.call_on_close(end)

    async def send_parts(self, receive: Receive, send: Send) -> None:
        """Sends the body, but for the message that ends it."""
        watcher = asyncio.create_task(_until_told(receive))
        watcher.add_done_callback(lambda _: self.end())
        try:
            async with contextlib.aclosing(self.parts) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        finally:
            watcher.cancel()


async def _until_told(receive: Receive) -> None:
    """Returns when the client has left, or when `BoundedProtocol.shutdown` has a message more come than there are."""
    while (await receive()).get("more_body"):
        pass
    await receive()
