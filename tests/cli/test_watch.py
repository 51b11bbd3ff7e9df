"""`oms-config watch` on the real service, also across restarts."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

from tests.cli.command import COMMAND, TIME, FakeServer, watch
from tests.contract import Client
from tests.processes import ROOT, Service, clean_environment, make_token
from tests.waiting import PATIENCE


def test_watch_prints_the_current_setting_and_each_change(
    service: Service, tenant: str, client: Client, tmp_path: Path
) -> None:
    with watch(tmp_path, url=service.url, token=make_token(tenant)) as watcher:
        assert watcher.line() == "0  off  never set"
        client.change(True, False)
        assert re.fullmatch(rf"1  on   {TIME}  tester", watcher.line())
        assert re.fullmatch(rf"2  off  {TIME}  tester", watcher.line())
        watcher.interrupt()
        assert watcher.wait() == -signal.SIGINT
        assert (watcher.errors, watcher.is_silent()) == (f"changes of tenant {tenant}\n", True)


def test_watch_prints_one_json_object_for_each_change(
    service: Service, tenant: str, client: Client, tmp_path: Path
) -> None:
    with watch(tmp_path, "--json", url=service.url, token=make_token(tenant)) as watcher:
        assert json.loads(watcher.line()) == {
            "event": "change", "tenant": tenant, "version": 0, "enabled": False, "changed_at": None,
            "changed_by": None, "reason": None,
        }  # fmt: skip
        client.post({"enabled": True}, headers={"Change-Reason": "caf%C3%A9"})
        change = json.loads(watcher.line())
        assert re.fullmatch(TIME, change.pop("changed_at"))
        assert change == {
            "event": "change", "tenant": tenant, "version": 1, "enabled": True, "changed_by": "tester", "reason": "café"
        }  # fmt: skip


def test_watch_reports_a_restart_and_misses_no_change(
    stoppable: Service, tenant: str, client: Client, tmp_path: Path
) -> None:
    with watch(tmp_path, url=stoppable.url, token=make_token(tenant)) as watcher:
        assert watcher.line() == "0  off  never set"
        stoppable.stop()
        client.change(True, False)
        stoppable.start()
        assert watcher.line().startswith("1  on ")
        assert watcher.line().startswith("2  off ")
        client.change(True)
        assert watcher.line().startswith("3  on ")
        named, *tries, again = watcher.errors.splitlines()
    assert (named, again) == (f"changes of tenant {tenant}", "connected again")
    assert tries
    assert all(re.fullmatch(r".+; connecting again in (\d|10)\.\d s", line) for line in tries)


def test_watch_warns_if_changes_may_be_missing(
    stoppable: Service, tenant: str, client: Client, redis_url: str, tmp_path: Path
) -> None:
    """Redis lost all data, so that versions start at 0 again."""
    client.change(True, False, True)
    with watch(tmp_path, url=stoppable.url, token=make_token(tenant)) as watcher:
        assert watcher.line().startswith("3  on ")
        stoppable.stop()
        with redis.Redis.from_url(redis_url) as store:
            store.delete(*store.keys(f"*{{{tenant}}}*"))
        stoppable.start()
        assert watcher.line() == "0  off  never set"
        assert "changes may be missing" in watcher.errors
        client.change(True)
        assert watcher.line().startswith("1  on ")


def test_watch_warns_if_its_last_change_was_lost(
    stoppable: Service, tenant: str, client: Client, raw: Any, tmp_path: Path
) -> None:
    """The version of the lost change was given again."""
    client.change(True, False)
    saved = {key: raw.dump(key) for key in raw.keys(f"*{{{tenant}}}*")}
    client.change(True)
    with watch(tmp_path, url=stoppable.url, token=make_token(tenant)) as watcher:
        assert watcher.line().startswith("3  on ")
        stoppable.stop()
        for key, value in saved.items():
            raw.restore(key, 0, value, replace=True)
        client.change(True, False)
        stoppable.start()
        assert watcher.line().startswith("4  off ")
        assert "changes may be missing" in watcher.errors


def test_watch_ends_when_its_token_expires(service: Service, tenant: str, tmp_path: Path) -> None:
    token = make_token(tenant, exp=int(time.time()) + 12)
    with watch(tmp_path, "--json", url=service.url, token=token) as watcher:
        watcher.line()
        assert watcher.wait() == 4
        ended, rejected = map(json.loads, watcher.errors.splitlines())
    assert re.fullmatch(rf"the event stream of {service.url}/v0 ended; connecting again in \d\.\d s", ended["note"])
    assert rejected["error"] == "refused"
    assert rejected["message"].endswith(" returned 401: The token has expired.")


def test_watch_reconnects_with_its_last_event_id(tmp_path: Path) -> None:
    data = '{"version": 7, "enabled": true, "changed_at": "x", "changed_by": null}'
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    stream = f"{head}id: 7-5d3f2a10\nevent: change\ndata: {data}\n\n".encode()
    with FakeServer(stream) as server, watch(tmp_path, url=server.url, token="a.b.c") as watcher:
        assert [watcher.line(), watcher.line()] == ["7  on   x  -"] * 2
    first, second, *_ = server.requests
    assert b"last-event-id" not in first.lower()
    assert b"last-event-id: 7-5d3f2a10\r\n" in second.lower()


def test_watch_ends_after_its_output_is_closed(service: Service, tenant: str) -> None:
    """No further change is needed: the command does not wait for a failed write."""
    own = {"OMS_CONFIG_URL": service.url, "OMS_CONFIG_TOKEN": make_token(tenant)}
    process = subprocess.Popen(
        [*COMMAND, "watch"],
        cwd=ROOT,
        env=clean_environment(own),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "0  off  never set\n"
    process.stdout.close()
    assert process.wait(PATIENCE) == 1
    assert process.stderr.read() == f"changes of tenant {tenant}\n"
    process.stderr.close()
