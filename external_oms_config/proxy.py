"""Chooses the proxy for an address from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""

import ipaddress
import re
from typing import Final
from urllib.request import getproxies

import httpx

_PORTS: Final = {"http": 80, "https": 443}
_ENTRY: Final = re.compile(
    r"(?:\w+://)?(?:(?P<host>\[[^]]*\](?:/\d+)?|[^:]*)(?::(?P<port>\d+))?|(?P<ipv6>[^:]*:[^:]*:.*))"
)


def proxy_for(url: httpx.URL) -> str | None:
    """Return the address of the proxy for `url`, or None if NO_PROXY names its host or there is no proxy."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    entries = re.split(r"[\s,]+", proxies.get("no", "").lower())
    if not proxy or any(_includes(entry, url) for entry in entries if entry):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _includes(entry: str, url: httpx.URL) -> bool:
    """Return True if `entry` of NO_PROXY includes the host of `url`.

    It is `*`, a host name, which includes its subdomains, also as `.name` or `*.name`, an IP address, in brackets or
    not, or a network such as `10.0.0.0/8`. Each may have a port.
    """
    match = _ENTRY.fullmatch(entry)
    if match is None or match["port"] not in {None, str(url.port or _PORTS[url.scheme])}:
        return False
    name = re.sub(r"[][]", "", match["host"] or match["ipv6"] or "")
    try:
        return ipaddress.ip_address(url.host) in ipaddress.ip_network(name, strict=False)
    except ValueError:  # one of them is a name
        name = name.removeprefix("*").strip(".")
    host = url.host.lower().rstrip(".")
    return entry == "*" or (name != "" and (host == name or host.endswith(f".{name}")))
