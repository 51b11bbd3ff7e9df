"""Changes the setting with a client that is generated from /client.yaml; see docs/consuming.md."""

import os
import sys
from urllib.parse import quote

import httpx
from external_oms import AuthenticatedClient
from external_oms.api.default import get_oms_configuration, set_external_oms_configuration
from external_oms.models import GetOmsConfigurationResponse200, SetExternalOmsConfigurationBody


def main() -> None:
    """Change the setting at `OMS_CONFIG_URL`, then try the same write again: its version is no longer current."""
    with AuthenticatedClient(f"{os.environ['OMS_CONFIG_URL']}/v0", os.environ["OMS_CONFIG_TOKEN"]) as client:
        read = get_oms_configuration.sync_detailed(client=client)
        if not isinstance(read.parsed, GetOmsConfigurationResponse200):
            sys.exit(f"rejected: {read.status_code} {read.parsed}")
        version = read.headers["ETag"]
        print("read:", read.parsed.enabled, version)
        body = SetExternalOmsConfigurationBody(enabled=not read.parsed.enabled)
        for _ in range(2):
            written = set_external_oms_configuration.sync_detailed(
                client=client, body=body, if_match=version, change_reason=quote("Café reopens")
            )
            print("written:", written.status_code, written.parsed, written.headers.get("ETag"))


if __name__ == "__main__":
    if missing := [name for name in ("OMS_CONFIG_URL", "OMS_CONFIG_TOKEN") if not os.environ.get(name)]:
        sys.exit(f"nothing was set: {', '.join(missing)} must be set")
    try:
        main()
    except httpx.HTTPError as error:
        sys.exit(f"failed, the setting may or may not have been set: {type(error).__name__}: {error}")
