"""A client of event streams that checks the form of each event and detects streams that are cut off."""

import http.client
import json
import re
import time
from dataclasses import dataclass
from typing import Any, Self

from tests.contract import PATH
from tests.waiting import PATIENCE

EVENTS_PATH = f"{PATH}/events"


@dataclass(frozen=True)
class Event:
    id: str
    kind: str
    version: int
    enabled: bool
    data: dict[str, Any]


class EventStream:
    """One event stream. `last_event_id` resumes an earlier one."""

    def __init__(self, port: int, token: str, last_event_id: object = None, query: str = "") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        resumed = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
        self._connection.request("GET", EVENTS_PATH + query, headers={"Authorization": f"Bearer {token}", **resumed})
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def event(self) -> Event | None:
        """Return the next event, or None at the proper end of the stream. Raise OSError if the connection is cut."""
        patient_until = time.monotonic() + PATIENCE
        while (fields := self._fields()) is not None:
            if "data" in fields:
                assert fields.keys() == {"id", "event", "data"}
                data = json.loads(fields["data"])
                assert data.keys() == {"tenant", "version", "enabled", "changed_at", "changed_by", "reason"}
                assert re.fullmatch(f"{data['version']}-[0-9a-f]{{8}}" if data["version"] else "0", fields["id"])
                return Event(fields["id"], fields["event"], data["version"], data["enabled"], data)
            assert time.monotonic() < patient_until, "the stream has only comments"
        return None

    def versions(self, number: int) -> list[int]:
        """Read the next events, check that all are changes, and return their versions."""
        versions = []
        for _ in range(number):
            event = self.event()
            assert event is not None
            assert event.kind == "change"
            versions.append(event.version)
        return versions

    def _fields(self) -> dict[str, str] | None:
        fields = {}
        while line := self._line():
            if not line.startswith(":"):
                name, _, value = line.partition(": ")
                assert name not in fields
                fields[name] = value
        return None if line is None else fields

    def _line(self) -> str | None:
        """Return a line without its line break, or None at the end of the body."""
        try:
            line = self._response.readline()
        except http.client.HTTPException as error:
            raise ConnectionResetError from error
        if not line:
            return None
        if not line.endswith(b"\n"):
            raise ConnectionResetError
        return line.decode().removesuffix("\n")
