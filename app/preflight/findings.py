"""The rules of the preflight check: what a store would lose."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.preflight.inspection import ServerFacts, UnreachableServer
from app.store.redis_url import Address

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the store would lose, or that could not be checked: then `seen` is False.

    An error stops the release. `servers`, host:port, are those that it is about, if the store has more than one.
    """

    level: Level
    code: str
    message: str
    seen: bool = True
    servers: Sequence[str] = ()


def findings(
    servers: Sequence[ServerFacts | UnreachableServer], address: Address, *, tls_verify: bool
) -> list[Finding]:
    """Return the findings for the store at `address`, errors first, each once with all its servers."""
    affected: dict[Finding, list[ServerFacts | UnreachableServer]] = defaultdict(list)
    for server in servers:
        for finding in _unreachable(server) if isinstance(server, UnreachableServer) else _server(server):
            affected[finding].append(server)
    is_single = len(servers) == 1 and address.kind == "server"
    found = [finding if is_single else _about(finding, those) for finding, those in affected.items()]
    return [*sorted(found, key=lambda finding: finding.level), *_transport(address, tls_verify=tls_verify)]


def _about(finding: Finding, servers: Sequence[ServerFacts | UnreachableServer]) -> Finding:
    """Return the finding with the names of its servers."""
    names = (f"replica {each.server}" if each.role == "replica" else each.server for each in servers)
    message = f"{', '.join(names)}: {finding.message}"
    return replace(finding, message=message, servers=tuple(each.server for each in servers))


def _warning(code: str, message: str) -> Finding:
    return Finding("warning", code, message)


def _unchecked(code: str, subject: str, allow: str) -> Finding:
    message = f"{subject} was not checked: the server does not say; if its ACL forbids the question, allow {allow}"
    return Finding("warning", code, message, seen=False)


def _unreachable(server: UnreachableServer) -> Iterator[Finding]:
    if server.role == "primary":
        yield Finding("error", "store", f"the store cannot be used: {server.obstacle}", seen=False)
    else:
        message = f"what a failover to it would lose was not checked: {server.obstacle}"
        yield Finding("warning", "replica_unseen", message, seen=False)


def _server(facts: ServerFacts) -> Iterator[Finding]:
    policy = facts.maxmemory_policy
    if policy is None:
        yield _unchecked("eviction_unknown", "maxmemory-policy (it has to be noeviction)", "+config|get or +info")
    # The volatile ones evict keys with an expiry, which no setting has.
    elif policy != "noeviction" and not policy.startswith("volatile-"):
        message = f"maxmemory-policy is {policy}: a full store evicts settings, and an evicted setting reads as false"
        yield Finding("error", "eviction", f"{message}; set it to noeviction")
    yield from _durability(facts)
    if facts.role == "primary" and facts.replicas is None:
        yield _unchecked("replicas_unknown", "the number of replicas", "+info")
    elif facts.role == "primary" and facts.replicas == 0:
        message = "no replica is connected: with the machine's disk, everything since the last backup is lost"
        yield _warning("no_replicas", message)


def _durability(facts: ServerFacts) -> Iterator[Finding]:
    if facts.appendonly is None:
        yield _unchecked("append_only_unknown", "appendonly, so what a restart loses,", "+config|get or +info")
    elif not facts.appendonly:
        lost = "a restart loses every change since the last snapshot"
        yield _warning("no_append_only_file", f"appendonly is off: {lost}; set appendonly yes and appendfsync always")
    elif facts.appendfsync is None:
        yield _unchecked("appendfsync_unknown", "appendfsync, so what a crash of the machine loses,", "+config|get")
    elif facts.appendfsync != "always":
        lost = "the last second or two of changes" if facts.appendfsync == "everysec" else "changes of half a minute"
        message = f"appendfsync is {facts.appendfsync}: a crash of the machine loses {lost}; set it to always"
        yield _warning("appendfsync", message)


def _transport(address: Address, *, tls_verify: bool) -> Iterator[Finding]:
    if all(_is_loopback(host) for host, _ in address.hosts):
        return
    risk = "can see the password, and read and change settings"
    if not address.tls:
        message = f"the connection to Redis is not encrypted: anyone on the network {risk}; use rediss:// or ?tls=true"
        yield _warning("no_tls", message)
    elif not tls_verify:
        message = f"the certificate is not verified (REDIS_TLS_VERIFY): anyone who redirects the connection {risk}"
        yield _warning("tls_unverified", message)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
