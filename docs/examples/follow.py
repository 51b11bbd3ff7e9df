"""Follows the setting and prints each change; see docs/consuming.md. Needs httpx and httpx-sse."""

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from httpx_sse import connect_sse

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds before a reconnection
TIMEOUT = httpx.Timeout(10, read=45)  # the service sends a comment every 15 seconds


def follow(url: str, get_token: Callable[[], str]) -> Iterator[dict[str, Any]]:
    """Yield the current setting, then each change. Reconnect if the connection ends.

    Raise PermissionError if the service rejects the request (400 to 499): it would reject every repetition too.
    """
    last_event_id: dict[str, str] = {}
    wait = FIRST_WAIT
    with httpx.Client(timeout=TIMEOUT) as client:
        while True:
            problem = "the stream ended"
            try:
                headers = {"Authorization": f"Bearer {get_token()}", **last_event_id}
                with connect_sse(client, "GET", url, headers=headers) as source:
                    if source.response.is_client_error:
                        raise PermissionError(f"{source.response.status_code}: {source.response.read().decode()}")
                    source.response.raise_for_status()
                    for event in source.iter_sse():
                        wait = FIRST_WAIT
                        if event.event in {"change", "reset"}:  # httpx-sse yields comments as empty events
                            last_event_id = {"Last-Event-ID": event.id}
                            yield json.loads(event.data)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
            print(f"{problem}; reconnecting", file=sys.stderr)
            time.sleep(wait * random.uniform(0.5, 1))
            wait = min(2 * wait, LONGEST_WAIT)


if __name__ == "__main__":
    if missing := [name for name in ("EVENTS_URL", "OMS_CONFIG_TOKEN") if not os.environ.get(name)]:
        sys.exit(f"failed: {', '.join(missing)} must be set")
    try:
        for setting in follow(os.environ["EVENTS_URL"], lambda: os.environ["OMS_CONFIG_TOKEN"]):
            print(setting["version"], "on" if setting["enabled"] else "off", flush=True)
    except PermissionError as error:
        sys.exit(f"rejected: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except BrokenPipeError:  # as in `follow.py | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout at exit, and would fail again
        sys.exit("nothing reads the output any more")
    except (httpx.InvalidURL, ValueError, KeyError) as error:
        sys.exit(f"failed: {type(error).__name__}: {error}")
