"""CPU time of a GET and a POST, in total and per layer.

`bin/bench` takes half a minute. The service runs in this process, with a real store and with uvicorn's protocol on
connections in memory. The figures therefore exclude the cost of clients' sockets. It prints figures and passes no
judgement. Layers are measured in separate rounds, because reading the clock makes each request slower.
"""

import argparse
import asyncio
import cProfile
import functools
import gc
import itertools
import logging.config
import pstats
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import redis
import uvicorn
import uvloop
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from app.factory import create_app
from app.logs import install_log_hooks, logging_config
from app.server.http_protocol import HttpProtocol
from app.settings import Settings
from bench.layers import Clock, measured
from tests.contract import PATH
from tests.processes import SECRET, make_token, start_store

LAYERS = ("server", "around", "Connexion", "Flask", "operation", "store")
WARM_UP = 1000  # requests
FILL_BATCH = 10_000
# The stored form of a change.
STORED = (
    '{"enabled":true,"version":1,"at":1790000000000,"by":"tester","request":"0f8fad5bd9cb469fa16570867728950e",'
    '"id":"%032x"}'
)


class Wire(asyncio.Transport):
    """A transport in memory that keeps the response until it is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the response."""
        self.written += data

    def is_closing(self) -> bool:
        """Return False: if the service closes the connection, the response shows it."""
        return False

    def close(self) -> None:
        """Do nothing: there is no socket."""

    def get_write_buffer_size(self) -> int:
        """Return 0, because the client reads everything immediately."""
        return 0


class Connection(HttpProtocol):
    """A connection that calls `on_complete` after each response."""

    on_complete: Callable[[], object]

    def on_response_complete(self) -> None:
        """Handle the end of a response. uvicorn calls this after the last byte."""
        super().on_response_complete()
        self.on_complete()


class Bench:
    """The service and an endless supply of GETs and POSTs. Each POST changes its tenant's setting."""

    def __init__(self, settings: Settings, tenants: int, connections: int) -> None:
        self._config = uvicorn.Config(
            create_app(settings), ws="none", log_config=None, access_log=False, server_header=False, proxy_headers=False
        )
        self._state = ServerState()
        self._connections = connections
        tokens = [make_token(f"tenant-{n}") for n in range(tenants)]
        flips = itertools.cycle([b'{"enabled": true}'] * tenants + [b'{"enabled": false}'] * tenants)
        self._requests: Mapping[str, Iterator[bytes]] = {
            "GET": itertools.cycle([_request("GET", token) for token in tokens]),
            "POST": (_request("POST", token, body) for token, body in zip(itertools.cycle(tokens), flips)),
        }

    async def run(self, work: Callable[["Bench"], Awaitable[None]]) -> None:
        """Run `work` between the startup and the shutdown of the service."""
        self._config.load()
        lifespan = LifespanOn(self._config)
        await lifespan.startup()
        await work(self)
        await lifespan.shutdown()

    async def send(self, method: str, count: int) -> None:
        """Send `count` requests. Each connection sends its next one when the response is complete."""
        loop = asyncio.get_running_loop()
        remaining, done = itertools.count(count - 1, -1), loop.create_future()
        connections = [Connection(self._config, self._state, {}, loop) for _ in range(self._connections)]
        responses = itertools.count(1)

        def send_next(connection: Connection) -> None:
            if next(remaining) >= 0:
                connection.data_received(next(self._requests[method]))

        def on_response(connection: Connection, wire: Wire) -> None:
            assert wire.written.startswith(b"HTTP/1.1 200 "), bytes(wire.written)
            wire.written.clear()
            send_next(connection)
            if next(responses) == count:
                done.set_result(None)

        for connection in connections:
            wire = Wire()
            # call_soon, because the service sends the response after the current event-loop iteration.
            connection.on_complete = functools.partial(loop.call_soon, on_response, connection, wire)
            connection.connection_made(wire)
            send_next(connection)
        await done
        for connection in connections:
            connection.connection_lost(None)


def _request(method: str, token: str, body: bytes = b"") -> bytes:
    head = f"{method} {PATH} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAuthorization: Bearer {token}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


async def measure(bench: Bench, counts: argparse.Namespace) -> None:
    """Measure and print the total without the layers' clock, then the layers."""
    for method in ("POST", "GET"):
        await bench.send(method, WARM_UP)
    gc.collect()
    totals: dict[str, list[float]] = {"GET": [], "POST": []}
    layers: dict[str, list[Clock]] = {"GET": [], "POST": []}
    for _ in range(counts.rounds):
        for method, times in totals.items():
            began = time.process_time()
            await bench.send(method, counts.requests)
            times.append((time.process_time() - began) / counts.requests * 1e6)
            with measured() as clock:
                await bench.send(method, counts.requests)
                clock.enter("server")
            layers[method].append(clock)
    rounds = f"{counts.rounds} rounds of {counts.requests}"
    print(f"{counts.connections} connections, {counts.tenants} tenants, median of {rounds}\n")
    print("| CPU µs    |  GET | POST |\n|-----------|-----:|-----:|")
    for layer in LAYERS:
        spent = [[clock.spent[layer] / counts.requests / 1e3 for clock in clocks] for clocks in layers.values()]
        print(_row(layer, spent))
    print(_row("total", list(totals.values())))
    if counts.profile:
        for method in totals:
            with cProfile.Profile() as profile:
                await bench.send(method, counts.requests)
            print(f"\n{method}")
            pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(counts.profile)


def _row(name: str, columns: Sequence[Sequence[float]]) -> str:
    return f"| {name:9} |" + "".join(f" {median(column):4.0f} |" for column in columns)


def _fill(port: int, count: int) -> None:
    """Store a setting with one change for each of `count` other tenants, and print the memory that each takes."""
    with redis.Redis(port=port) as client:
        before = client.info("memory")["used_memory"]
        for first in range(0, count, FILL_BATCH):
            numbers = range(first, min(count, first + FILL_BATCH))
            client.mset({f"external_oms:{{other-{number}}}": STORED % number for number in numbers})
        print(f"{(client.info('memory')['used_memory'] - before) / count:.0f} bytes for each of {count} settings\n")


def main() -> None:
    """Run the command `bin/bench`."""
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--requests", type=int, default=2000, help="requests in a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds for each method (%(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="concurrent connections (%(default)s)")
    parser.add_argument("--tenants", type=int, default=200, help="tenants in the requests (%(default)s)")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="also print the N most expensive functions")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the service; may be repeated; the log goes to stderr",
    )
    parser.add_argument("--stored", type=int, default=0, metavar="N", help="first store settings of N other tenants")
    counts = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        store = start_store(Path(directory))
        own = {"REDIS_URL": f"redis://127.0.0.1:{store.port}/0", "JWT_SECRET": SECRET, "LOG_LEVEL": "WARNING"}
        settings = Settings.read(own | dict(each.split("=", 1) for each in counts.set))
        install_log_hooks()
        logging.config.dictConfig(logging_config(settings.log_format, settings.log_level))
        try:
            if counts.stored:
                _fill(store.port, counts.stored)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                bench = Bench(settings, counts.tenants, counts.connections)
                runner.run(bench.run(lambda bench: measure(bench, counts)))
        finally:
            store.stop()


if __name__ == "__main__":
    main()
