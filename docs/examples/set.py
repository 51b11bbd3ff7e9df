"""Sets the switch on the condition that what was seen still stands; see docs/consuming.md. Needs httpx."""

import os
import sys
from collections.abc import Callable
from http import HTTPStatus

import httpx

ATTEMPTS = 5


def change(url: str, token: str, decide: Callable[[bool, str], bool]) -> tuple[bool, str]:
    """Sets what `decide` makes of what stands and its ETag, and asks it anew after a conflict; what stands then.

    Raises PermissionError where the service refuses it, httpx.HTTPError where nobody knows what became of it, and
    RuntimeError after too many conflicts.
    """
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=10) as client:
        for _ in range(ATTEMPTS):
            seen = told(client.get(url))
            enabled = decide(seen.json()["enabled"], seen.headers["ETag"])
            answer = client.post(url, json={"enabled": enabled}, headers={"If-Match": seen.headers["ETag"]})
            if answer.status_code != HTTPStatus.CONFLICT:
                return told(answer).json()["enabled"], answer.headers["ETag"]
    raise RuntimeError(f"{ATTEMPTS} conflicts, one after the other")


def told(answer: httpx.Response) -> httpx.Response:
    """The answer, where it is a good one."""
    if answer.is_client_error:
        raise PermissionError(f"{answer.status_code}: {answer.text}")
    return answer.raise_for_status()


def ask(enabled: bool, version: str) -> bool:
    """What a person decides who is shown what stands."""
    print("on" if enabled else "off", version, flush=True)
    line = sys.stdin.readline().strip()
    if line not in {"on", "off"}:
        sys.exit("nothing was set: expected on or off")
    return line == "on"


if __name__ == "__main__":
    try:
        now, version = change(os.environ["SETTING_URL"], os.environ["TOKEN"], ask)
        print("set:", "on" if now else "off", version)
    except PermissionError as refusal:
        sys.exit(f"refused, {refusal}")
    except RuntimeError as conflicts:
        sys.exit(f"nothing was set: {conflicts}")
