"""A relay between the service and its store that can cut a connection at a place of the test's choice."""

import asyncio
import contextlib
import threading
from typing import Literal, Self

Rule = Literal["forward", "cut before EXEC", "cut after EXEC", "hang"]


class Relay:
    """Forwards TCP to a port of this machine. `rule` takes effect once, on the next EXEC, but for "hang".

    With `refuse_afterwards` a cut is followed by no more connections: the store is out of reach.
    """

    def __init__(self, target: int) -> None:
        self.rule: Rule = "forward"
        self.refuse_afterwards = False
        self.executed = threading.Event()
        self._target = target
        self._cut = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._relay, "127.0.0.1", 0)

    async def _stop(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut and self.refuse_afterwards:
            writer.close()
            return
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self._target)
        swallow = asyncio.Event()
        pumps = {
            asyncio.create_task(self._to_store(reader, store_writer, swallow)),
            asyncio.create_task(self._from_store(store_reader, writer, swallow)),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for each in (writer, store_writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _to_store(
        self, reader: asyncio.StreamReader, store: asyncio.StreamWriter, swallow: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if self.rule == "hang":
                await asyncio.Event().wait()
            if b"EXEC" in data and self.rule != "forward":
                rule, self.rule, self._cut = self.rule, "forward", True
                if rule == "cut before EXEC":
                    return
                swallow.set()
            store.write(data)

    async def _from_store(
        self, store: asyncio.StreamReader, writer: asyncio.StreamWriter, swallow: asyncio.Event
    ) -> None:
        while data := await store.read(65536):
            if swallow.is_set():  # these are the replies to the EXEC: the store has carried it out
                self.executed.set()
                return
            writer.write(data)
