"""Sets the setting unless it has changed since it was read; see docs/consuming.md. Needs the service's package."""

import os
import sys

from external_oms_config import Client, Conflict, OmsConfigError, Rejected, Setting


def ask(setting: Setting) -> bool:
    """Print the current setting and return the value that the user types."""
    print("on" if setting.enabled else "off", setting.version, flush=True)
    line = sys.stdin.readline().strip()
    if line not in {"on", "off"}:
        sys.exit("nothing was set: expected on or off")
    return line == "on"


if __name__ == "__main__":
    if missing := [name for name in ("OMS_CONFIG_URL", "OMS_CONFIG_TOKEN") if not os.environ.get(name)]:
        sys.exit(f"nothing was set: {', '.join(missing)} must be set")
    try:
        with Client(os.environ["OMS_CONFIG_URL"], os.environ["OMS_CONFIG_TOKEN"]) as client:
            now = client.update(ask)
        print("set:", "on" if now.enabled else "off", now.version)
    except Rejected as error:
        sys.exit(f"rejected: {error}")
    except Conflict as error:
        sys.exit(f"nothing was set: {error}")
    except OmsConfigError as error:
        sys.exit(f"failed: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
