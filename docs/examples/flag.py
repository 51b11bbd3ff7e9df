"""Prints the switch, as OpenFeature's client reads it, and its version: `<version> on` or `<version> off`."""

import os
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider


def headers() -> dict[str, str]:
    """Called for each evaluation: the place to get a fresh token."""
    return {"Authorization": f"Bearer {os.environ['TOKEN']}"}


def main() -> None:
    """Reads `OMS_CONFIG_URL` and `TOKEN`."""
    api.set_provider_and_wait(OFREPProvider(os.environ["OMS_CONFIG_URL"], headers_factory=headers, timeout=2))
    flag = api.get_client().get_boolean_details("external_oms.enabled", default_value=False)
    if flag.error_code is not None:  # then the value is the default, and says nothing of the switch
        sys.exit(f"not read: {flag.error_message}")
    print(flag.flag_metadata["version"], "on" if flag.value else "off")


if __name__ == "__main__":
    main()
