"""Values of earlier releases, and an earlier release next to this one on the same store.

Everything from the first release is a frozen copy. It stays as it is when the stored form grows.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis

from app.errors import ConcurrentUpdate
from app.model import Author
from app.store.redis_store import RedisStore
from tests.conftest import Run
from tests.connections import InterruptedConnections
from tests.contract import Client
from tests.processes import Service, make_token
from tests.streams import EventStream
from tests.waiting import PATIENCE

# As the first release has stored them, byte for byte.
SETTING = (
    b'{"enabled":false,"version":4,"at":1795710259750,"by":"auth0|5f7c","request":"request-4",'
    b'"id":"eb21870b3b5f411fbdd44e22e4b32dfd"}'
)
HISTORY = {
    "3": b'{"enabled":true,"version":3,"at":1795710259750,"by":"\\ud83d\\ude00 \\u00e9\\"\\\\","request":"request-3",'
    b'"id":"afafb36ad56e4a76be8374b55b425f6a"}',
    "2": b'{"enabled":false,"version":2,"at":1795710259750,"by":null,"request":"request-2",'
    b'"id":"74056fdfd37a41899fba8f7f2e1d4f27"}',
}
CHANNEL = "external_oms:changes"


def keys(tenant: str) -> tuple[str, str]:
    return f"external_oms:{{{tenant}}}", f"external_oms:{{{tenant}}}:history"


class FirstRelease:
    """The commands and the stored form of the first release, for one tenant."""

    def __init__(self, raw: Any, tenant: str) -> None:
        self._redis = raw
        self._tenant = tenant
        self._key, self._history = keys(tenant)

    def read(self) -> tuple[Any, Any]:
        value = self._redis.get(self._key)
        fields = json.loads(value) if value else {"enabled": False, "version": 0}
        return fields["enabled"], fields["version"]

    def history(self) -> list[tuple[object, ...]]:
        value = self._redis.get(self._key)
        versions = range(json.loads(value)["version"] - 1, 0, -1)
        older = self._redis.hmget(self._history, list(versions)) if versions else []
        names = ("enabled", "version", "at", "by", "request", "id")
        return [tuple(json.loads(each)[name] for name in names) for each in [value, *older]]

    def change(
        self, *, enabled: bool, expected: int | None = None, before_multi: Callable[[], object] = lambda: None
    ) -> int | None:
        """Return the new version, or None after a conflict."""
        with self._redis.pipeline() as pipeline:
            pipeline.watch(self._key, self._history)
            value, _, (seconds, microseconds) = pipeline.get(self._key), pipeline.hlen(self._history), pipeline.time()
            version = json.loads(value)["version"] if value else 0
            if expected not in {None, version}:
                return None
            before_multi()
            pipeline.multi()
            at, new = seconds * 1000 + microseconds // 1000, version + 1
            pipeline.set(
                self._key,
                f'{{"enabled":{json.dumps(enabled)},"version":{new},"at":{at},"by":"first","request":"request-{new}",'
                f'"id":"{new:032x}"}}',
            )
            if value:
                pipeline.hset(self._history, str(version), value)
            pipeline.publish(CHANNEL, self._tenant)
            try:
                pipeline.execute()
            except redis.WatchError:
                return None
        return new


def test_values_of_the_first_release_are_read_and_kept(service: Service, client: Client, raw: Any, tenant: str) -> None:
    setting, history = keys(tenant)
    raw.set(setting, SETTING)
    raw.hset(history, mapping=HISTORY)
    assert (client.enabled(), client.get().headers["etag"]) == (False, '"4"')
    common = {"changed_at": "2026-11-26T16:24:19.750Z", "reason": None}
    assert client.history() == [
        {"version": 4, "enabled": False, "changed_by": "auth0|5f7c", "request_id": "request-4", **common},
        {"version": 3, "enabled": True, "changed_by": '\U0001f600 é"\\', "request_id": "request-3", **common},
        {"version": 2, "enabled": False, "changed_by": None, "request_id": "request-2", **common},
    ]
    with EventStream(service.port, make_token(tenant), 1) as stream:
        events = [stream.event() for _ in range(3)]
        assert client.post({"enabled": True}).headers["etag"] == '"5"'
        assert stream.versions(1) == [5]
    # A client may have an event ID from a worker of another release.
    assert [event and event.id for event in events] == ["2-1a10e401", "3-59b06304", "4-10f2129b"]
    assert raw.hgetall(history) == {version.encode(): value for version, value in {**HISTORY, "4": SETTING}.items()}


def test_two_releases_share_one_store(service: Service, client: Client, raw: Any, tenant: str) -> None:
    first = FirstRelease(raw, tenant)
    with (
        raw.pubsub(ignore_subscribe_messages=True) as announcements,
        EventStream(service.port, make_token(tenant), 0) as stream,
    ):
        announcements.subscribe(CHANNEL)
        announcements.get_message(timeout=PATIENCE)
        for version in range(1, 21):
            enabled = version % 2 == 1
            if version % 3:
                assert client.post({"enabled": enabled}).headers["etag"] == f'"{version}"'
            else:
                assert first.change(enabled=enabled) == version
            assert first.read() == (enabled, version)
            assert (client.enabled(), client.get().headers["etag"]) == (enabled, f'"{version}"')
            assert announcements.get_message(timeout=PATIENCE)["data"] == tenant.encode()
            assert stream.versions(1) == [version]
    history = client.history(limit=100)
    assert [each["version"] for each in history] == list(range(20, 0, -1))
    assert [each["changed_by"] for each in history[::-1]] == (["tester"] * 2 + ["first"]) * 6 + ["tester"] * 2
    assert [(each["enabled"], each["version"], each["changed_by"], each["request_id"]) for each in history] == [
        (enabled, version, by, request) for enabled, version, _, by, request, _ in first.history()
    ]


def test_earlier_release_keeps_the_reason_of_a_change(client: Client, raw: Any, tenant: str) -> None:
    setting, history = keys(tenant)
    client.post({"enabled": True}, headers={"Change-Reason": "Go-live, caf%C3%A9"})
    value = raw.get(setting)
    first = FirstRelease(raw, tenant)
    assert (first.read(), first.change(enabled=False)) == ((True, 1), 2)
    assert raw.hget(history, "1") == value
    assert [(each["version"], each["reason"]) for each in client.history()] == [(2, None), (1, "Go-live, café")]


def test_two_releases_conflict_on_one_setting(run: Run, client: Client, raw: Any, redis_url: str, tenant: str) -> None:
    first = FirstRelease(raw, tenant)
    # Between WATCH and EXEC of the other.
    assert first.change(enabled=True, before_multi=lambda: client.post({"enabled": True})) is None

    async def overtake() -> None:
        first.change(enabled=False)

    async def change() -> None:
        connections = InterruptedConnections.to(redis_url)
        connections.before_multi = overtake
        store = RedisStore(connections, timeout=5.0, history_length=10)
        with pytest.raises(ConcurrentUpdate):
            await store.change(tenant, False, Author("tester", "request-1"))
        await store.close()

    run(change())
    # On a version that the other has replaced.
    assert first.change(enabled=True, expected=1) is None
    assert client.post({"enabled": True}, headers={"If-Match": '"1"'}).status == 409
    assert first.change(enabled=True, expected=2) == 3
    assert client.post({"enabled": False}, headers={"If-Match": '"3"'}).status == 200
    assert [each["version"] for each in client.history()] == [4, 3, 2, 1]
