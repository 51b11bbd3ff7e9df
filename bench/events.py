"""Cost of event streams, and delay of their events, in comparison with a common implementation (the peer).

`python -m bench.events` takes minutes, or seconds with smaller counts. It prints figures and passes no judgement. Each
server has one worker and its own store.
"""

import argparse
import contextlib
import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles

from bench.server import Gets, Round, Server
from tests.processes import WEB, Service, make_token, start_store

COMMANDS = {"service": WEB, "peer": (sys.executable, "-m", "bench.events_peer")}
WARM_UP = 200  # GETs and subscribers before the measurement
PAUSE = 0.05  # seconds between two changes


@contextlib.contextmanager
def running(directory: Path, name: str) -> Iterator[Server]:
    """Run one of the two servers, with its store."""
    store = start_store(directory / name)
    settings = {"WEB_CONCURRENCY": "1", "LOG_LEVEL": "WARNING"}
    url = f"redis://127.0.0.1:{store.port}/0"
    try:
        with Service(directory / f"{name}.log", url, command=COMMANDS[name], **settings) as process:
            yield Server(process)
    finally:
        store.stop()


def measure(servers: Sequence[Server], counts: argparse.Namespace) -> None:
    """Measure the servers in turn."""
    tokens = [make_token(f"tenant-{n % counts.tenants}", sub=f"subscriber-{n}") for n in range(counts.listeners)]
    for server in servers:
        server.get(WARM_UP, counts.connections)
        with server.subscribers(tokens[:WARM_UP]):
            pass
        server.measure_memory(tokens, counts.idle_seconds)
    _measure_changes(servers, counts.listeners_of_one, counts.changes)
    for _ in range(counts.rounds):
        for server in servers:
            server.measure_gets(tokens, counts.gets, counts.connections, counts.comments_after)


def _measure_changes(servers: Sequence[Server], subscribers: int, changes: int) -> None:
    tokens = [make_token("one", sub=f"subscriber-{n}") for n in range(subscribers)]
    with contextlib.ExitStack() as stack:
        pairs = [(server, stack.enter_context(server.subscribers(tokens))) for server in servers]
        for _ in range(changes):
            for server, connected in pairs:
                server.measure_change(connected, tokens[0])
                time.sleep(PAUSE)


Row = tuple[str, Callable[[Server], float]]


def rows(counts: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows of the table: a label, and the function that returns a server's figure."""
    yield f"KiB of memory (PSS) per event stream, of {counts.listeners}", lambda server: server.kib
    yield "% of a CPU for all of them, idle", lambda server: server.idle * 100
    answered = f"ms from a change's response to the last of {counts.listeners_of_one} events"
    yield from _percentiles(answered, lambda server: [server.after_answer])
    yield from _percentiles("ms from its request to the last event", lambda server: [server.after_request])
    yield from _get_rows("no event streams", lambda each: each.alone)
    yield from _get_rows(f"{counts.listeners} event streams", lambda each: each.silent)
    yield from _get_rows("comments on the streams", lambda each: each.commented)


def _get_rows(condition: str, gets: Callable[[Round], Gets]) -> Iterator[Row]:
    yield f"µs of CPU per GET, {condition}", lambda server: median(gets(each).cpu for each in server.rounds) * 1e6
    yield from _percentiles(f"ms per GET, {condition}", lambda server: [gets(each).latencies for each in server.rounds])


def _percentiles(text: str, samples: Callable[[Server], list[list[float]]]) -> Iterator[Row]:
    """Yield a row for p50 and one for p99, in ms: the median over the samples."""
    for percent in (50, 99):
        yield f"{text}, p{percent}", _percentile(samples, percent)


def _percentile(samples: Callable[[Server], list[list[float]]], percent: int) -> Callable[[Server], float]:
    return lambda server: median(
        quantiles(sample, n=100, method="inclusive")[percent - 1] * 1000 for sample in samples(server)
    )


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=5000, help="event streams of all tenants (%(default)s)")
    parser.add_argument("--tenants", type=int, default=500, help="tenants of the event streams (%(default)s)")
    parser.add_argument("--idle-seconds", type=float, default=15.0, help="length of the idle measurement (%(default)s)")
    parser.add_argument("--listeners-of-one", type=int, default=1000, help="streams of one tenant (%(default)s)")
    parser.add_argument("--changes", type=int, default=50, help="number of changes, at least 2 (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of GETs (%(default)s)")
    parser.add_argument("--gets", type=int, default=3000, help="GETs in each part of a round (%(default)s)")
    parser.add_argument("--connections", type=int, default=8, help="connections for GETs (%(default)s)")
    parser.add_argument("--comments-after", type=float, default=15.0, help="both servers' comment interval, in seconds")
    counts = parser.parse_args()
    if importlib.util.find_spec("sse_starlette") is None:
        sys.exit("sse-starlette is missing, which the peer needs: run this with `tox -e bench-events`")
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # the servers and subscribers inherit it
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(Path(directory), name)) for name in COMMANDS]
        measure(servers, counts)
        print(f"{'':70}" + "".join(f"{name:>10}" for name in COMMANDS))
        for text, value in rows(counts):
            print(f"{text:70}" + "".join(f"{value(server):10.2f}" for server in servers))


if __name__ == "__main__":
    main()
