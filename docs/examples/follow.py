"""Prints the setting and each change; see docs/consuming.md. Needs the service's package."""

import os
import sys

from external_oms_config import Client, Disconnected, Event, OmsConfigError, Rejected


def follow() -> None:
    """Follow the setting at `OMS_CONFIG_URL` with the token in `OMS_CONFIG_TOKEN`."""
    with Client(os.environ["OMS_CONFIG_URL"], os.environ["OMS_CONFIG_TOKEN"]) as client:
        for message in client.follow():
            if isinstance(message, Event):
                print(message.change.version, "on" if message.change.enabled else "off", flush=True)
            elif isinstance(message, Disconnected):
                if isinstance(message.error, Rejected):  # again and again, because the token never changes here
                    sys.exit(f"rejected: {message.error}")
                print(f"{message.error}; reconnecting", file=sys.stderr)


if __name__ == "__main__":
    if missing := [name for name in ("OMS_CONFIG_URL", "OMS_CONFIG_TOKEN") if not os.environ.get(name)]:
        sys.exit(f"failed: {', '.join(missing)} must be set")
    try:
        follow()
    except OmsConfigError as error:
        sys.exit(f"failed: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except BrokenPipeError:  # as in `follow.py | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes stdout at exit, and would fail again
        sys.exit("nothing reads the output any more")
