"""Sets the setting unless it has changed since it was read; see docs/consuming.md. Needs httpx."""

import os
import sys
from collections.abc import Callable
from http import HTTPStatus

import httpx

ATTEMPTS = 5


def change(url: str, token: str, decide: Callable[[bool, str], bool]) -> tuple[bool, str]:
    """Set the value that `decide` returns, and return the new value and its ETag.

    `decide` gets the current value and its ETag. After a conflict, it is called again with the new ones.

    Raise PermissionError if the service rejects the request, and RuntimeError if nothing was set: after ATTEMPTS
    conflicts, or without an ETag. After any other error, the setting may or may not have been set.
    """
    with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=10) as client:
        for _ in range(ATTEMPTS):
            current = checked(client.get(url))
            if "ETag" not in current.headers:
                raise RuntimeError("the response has no ETag: a proxy in front of the service removes it")
            enabled = decide(current.json()["enabled"], current.headers["ETag"])
            response = client.post(url, json={"enabled": enabled}, headers={"If-Match": current.headers["ETag"]})
            if response.status_code != HTTPStatus.CONFLICT:
                return checked(response).json()["enabled"], response.headers["ETag"]
    raise RuntimeError(f"{ATTEMPTS} conflicts in a row")


def checked(response: httpx.Response) -> httpx.Response:
    """Return a successful response. Raise PermissionError for 400 to 499, and httpx.HTTPStatusError otherwise."""
    if response.is_client_error:
        raise PermissionError(f"{response.status_code}: {response.text}")
    return response.raise_for_status()


def ask(enabled: bool, version: str) -> bool:
    """Print the current setting and return the value that the user types."""
    print("on" if enabled else "off", version, flush=True)
    line = sys.stdin.readline().strip()
    if line not in {"on", "off"}:
        sys.exit("nothing was set: expected on or off")
    return line == "on"


if __name__ == "__main__":
    if missing := [name for name in ("SETTING_URL", "OMS_CONFIG_TOKEN") if not os.environ.get(name)]:
        sys.exit(f"nothing was set: {', '.join(missing)} must be set")
    try:
        now, version = change(os.environ["SETTING_URL"], os.environ["OMS_CONFIG_TOKEN"], ask)
        print("set:", "on" if now else "off", version)
    except PermissionError as error:
        sys.exit(f"rejected: {error}")
    except RuntimeError as error:
        sys.exit(f"nothing was set: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        sys.exit(f"failed, the setting may or may not have been set: {type(error).__name__}: {error}")
