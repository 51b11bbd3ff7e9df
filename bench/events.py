"""What listeners cost the service, and how soon they hear of a change, beside a peer as it is usually written.

`python -m bench.events` takes minutes; smaller counts make it seconds. It reports, and judges nothing. Each server is
one worker with a store of its own.
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
WARM_UP = 200  # GETs and listeners, before anything is measured
PAUSE = 0.05  # s, between two changes


@contextlib.contextmanager
def running(directory: Path, name: str) -> Iterator[Server]:
    """One of the two servers, with its store."""
    store = start_store(directory / name)
    settings = {"WEB_CONCURRENCY": "1", "LOG_LEVEL": "WARNING"}
    url = f"redis://127.0.0.1:{store.port}/0"
    try:
        with Service(directory / f"{name}.log", url, command=COMMANDS[name], **settings) as process:
            yield Server(process)
    finally:
        store.stop()


def measure(servers: Sequence[Server], counts: argparse.Namespace) -> None:
    """Measures now the one, now the other."""
    tokens = [make_token(f"tenant-{n % counts.tenants}", sub=f"listener-{n}") for n in range(counts.listeners)]
    for server in servers:
        server.get(WARM_UP, counts.connections)
        with server.listeners(tokens[:WARM_UP]):
            pass
        server.measure_memory(tokens, counts.idle_seconds)
    _measure_changes(servers, counts.listeners_of_one, counts.changes)
    for _ in range(counts.rounds):
        for server in servers:
            server.measure_gets(tokens, counts.gets, counts.connections, counts.comments_after)


def _measure_changes(servers: Sequence[Server], listeners: int, changes: int) -> None:
    tokens = [make_token("one", sub=f"listener-{n}") for n in range(listeners)]
    with contextlib.ExitStack() as stack:
        pairs = [(server, stack.enter_context(server.listeners(tokens))) for server in servers]
        for _ in range(changes):
            for server, each in pairs:
                server.measure_change(each, tokens[0])
                time.sleep(PAUSE)


Row = tuple[str, Callable[[Server], float]]


def rows(counts: argparse.Namespace) -> Iterator[Row]:
    """What the table has: a text, and what it says of a server."""
    yield f"KiB of memory (PSS) for each of {counts.listeners} listeners", lambda server: server.kib
    yield "% of a processor for all of them, idle", lambda server: server.idle * 100
    answered = f"ms from a change's answer to the last of {counts.listeners_of_one} listeners"
    yield from _percentiles(answered, lambda server: [server.after_answer])
    yield from _percentiles("ms from its request to the last of them", lambda server: [server.after_request])
    yield from _of_gets("nobody listening", lambda each: each.alone)
    yield from _of_gets(f"{counts.listeners} listening", lambda each: each.silent)
    yield from _of_gets("comments sent to them", lambda each: each.commented)


def _of_gets(when: str, which: Callable[[Round], Gets]) -> Iterator[Row]:
    yield f"µs of processor for a GET, {when}", lambda server: median(which(each).cpu for each in server.rounds) * 1e6
    yield from _percentiles(f"ms for a GET, {when}", lambda server: [which(each).latencies for each in server.rounds])


def _percentiles(text: str, samples: Callable[[Server], list[list[float]]]) -> Iterator[Row]:
    """p50 and p99 of each sample, in ms; the median of those."""
    for percent in (50, 99):
        yield f"{text}, p{percent}", _percentile(samples, percent)


def _percentile(samples: Callable[[Server], list[list[float]]], percent: int) -> Callable[[Server], float]:
    return lambda server: median(
        quantiles(sample, n=100, method="inclusive")[percent - 1] * 1000 for sample in samples(server)
    )


def main() -> None:
    """The benchmark, from the shell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=5000, help="of all tenants")
    parser.add_argument("--tenants", type=int, default=500)
    parser.add_argument("--idle-seconds", type=float, default=15.0)
    parser.add_argument("--listeners-of-one", type=int, default=1000, help="of the tenant that has changes")
    parser.add_argument("--changes", type=int, default=50, help="at least 2")
    parser.add_argument("--rounds", type=int, default=3, help="of GETs")
    parser.add_argument("--gets", type=int, default=3000, help="in each part of a round")
    parser.add_argument("--connections", type=int, default=8, help="that GETs are sent on")
    parser.add_argument("--comments-after", type=float, default=15.0, help="s; both servers send comments so often")
    counts = parser.parse_args()
    if importlib.util.find_spec("sse_starlette") is None:
        sys.exit("the peer needs sse-starlette; tox -e bench-events has it")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the servers and the listeners as well
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running(Path(directory), name)) for name in COMMANDS]
        measure(servers, counts)
        print(f"{'':70}" + "".join(f"{name:>10}" for name in COMMANDS))
        for text, value in rows(counts):
            print(f"{text:70}" + "".join(f"{value(server):10.2f}" for server in servers))


if __name__ == "__main__":
    main()
