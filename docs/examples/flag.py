"""Reads the setting with the OpenFeature client and prints `<version> on` or `<version> off`."""

import logging
import os
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider


def headers() -> dict[str, str]:
    """Return the headers of one evaluation. To use fresh tokens, get them here: the client calls this each time."""
    # Without line ends, because the client's error for a header with one would contain the token.
    return {"Authorization": f"Bearer {''.join(os.environ['OMS_CONFIG_TOKEN'].split())}"}


def main() -> None:
    """Evaluate the flag at `OMS_CONFIG_URL` with the token in `OMS_CONFIG_TOKEN`."""
    logging.getLogger("openfeature").addHandler(logging.NullHandler())  # otherwise it prints tracebacks
    api.set_provider_and_wait(OFREPProvider(os.environ["OMS_CONFIG_URL"], headers_factory=headers, timeout=2))
    flag = api.get_client().get_boolean_details("external_oms.enabled", default_value=False)
    if flag.error_code is not None:  # the value is then the default, not the setting
        sys.exit(f"cannot read the flag: {flag.error_message}")
    print(flag.flag_metadata["version"], "on" if flag.value else "off")


if __name__ == "__main__":
    if missing := [name for name in ("OMS_CONFIG_URL", "OMS_CONFIG_TOKEN") if not os.environ.get(name)]:
        sys.exit(f"cannot read the flag: {', '.join(missing)} must be set")
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
