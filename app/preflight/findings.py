"""Rules of the preflight check. A finding names lost data, a larger outage, a missing right, or something unchecked."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.preflight.inspection import SentinelFacts, ServerFacts, UnreachableServer
from app.store.redis_url import Address, Kind

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of the preflight check.

    An error stops the release; a warning does not. `seen` is False if something could not be checked. `servers`, as
    host:port, names the servers concerned if the store can have more than one.
    """

    level: Level
    code: str
    message: str
    seen: bool = True
    servers: Sequence[str] = ()


def findings(servers: Sequence[ServerFacts | UnreachableServer], address: Address, min_replicas: int) -> list[Finding]:
    """Return the findings for the store at `address`, errors first. Servers with the same finding share it."""
    affected: dict[Finding, list[ServerFacts | UnreachableServer]] = defaultdict(list)
    for server in servers:
        found_there = (
            _server(server, address.kind) if isinstance(server, ServerFacts) else _unreachable(server, address)
        )
        for finding in found_there:
            affected[finding].append(server)
    is_single = len(servers) == 1 and address.kind == "server"
    found = [finding if is_single else _with_servers(finding, each) for finding, each in affected.items()]
    has_replicas = any(each.replicas for each in servers if isinstance(each, ServerFacts))
    if address.kind != "server" and has_replicas and not min_replicas:
        lost = "a failover loses acknowledged changes that no replica has yet"
        cost = "a change is then a 500 while no replica confirms it"
        advice = "set it to 1, or to the number of replicas to lose none"
        found.append(_warning("min_replicas", f"REDIS_MIN_REPLICAS is 0: {lost}; {advice}: {cost}"))
    return [*sorted(found, key=lambda finding: finding.level), *_transport(address)]


def sentinel_findings(sentinels: Sequence[SentinelFacts]) -> list[Finding]:
    """Return the findings for the sentinels that `REDIS_URL` lists."""
    needed = f"writes need {len(sentinels) // 2 + 1} of {len(sentinels)} sentinels"
    found = []
    named: dict[str, list[str]] = defaultdict(list)
    for each in sentinels:
        if each.primary is None:
            consequence = f"unless REDIS_SENTINEL_QUORUM is any, {needed}"
            message = f"{each.server}: this sentinel names no primary: {each.reason}; {consequence}"
            found.append(Finding("warning", "sentinel_unseen", message, seen=False, servers=(each.server,)))
        else:
            named[each.primary].append(each.server)
    if len(named) > 1:
        opinions = "; ".join(f"{', '.join(servers)}: {primary}" for primary, servers in named.items())
        found.append(_warning("sentinels_disagree", f"the sentinels do not name the same primary: {opinions}"))
    known = max((each.known for each in sentinels), default=0)
    if known > len(sentinels):
        consequence = "most of these may miss a failover, and then writes are lost"
        message = f"REDIS_URL lists {len(sentinels)} of {known} sentinels: {consequence}; list all of them"
        found.append(_warning("sentinels_unlisted", message))
    return found


def _with_servers(finding: Finding, servers: Sequence[ServerFacts | UnreachableServer]) -> Finding:
    """Return the finding with its servers, also named in the message."""
    names = (f"replica {each.server}" if each.role == "replica" else each.server for each in servers)
    message = f"{', '.join(names)}: {finding.message}"
    return replace(finding, message=message, servers=tuple(each.server for each in servers))


def _warning(code: str, message: str) -> Finding:
    return Finding("warning", code, message)


def _unchecked(code: str, parameter: str, allow: str) -> Finding:
    message = f"{parameter} was not checked: the server did not return it; if its ACL forbids that, allow {allow}"
    return Finding("warning", code, message, seen=False)


def unusable(reason: str, address: Address) -> Finding:
    """Return the error for a store that cannot be used."""
    message = f"the store at {address.shown} (REDIS_URL) cannot be used: {reason}"
    return Finding("error", "store", message, seen=False)


def _unreachable(server: UnreachableServer, address: Address) -> Iterator[Finding]:
    if server.role == "primary":
        yield unusable(server.reason, address)
    else:
        message = f"the replica was not checked, and a failover could make it the primary: {server.reason}"
        yield Finding("warning", "replica_unseen", message, seen=False)


def _server(facts: ServerFacts, kind: Kind) -> Iterator[Finding]:
    policy = facts.maxmemory_policy
    if policy is None:
        yield _unchecked("eviction_unknown", "maxmemory-policy (must be noeviction)", "+config|get or +info")
    # The volatile-* policies evict only keys with an expiry. Settings have none.
    elif policy != "noeviction" and not policy.startswith("volatile-"):
        message = f"maxmemory-policy is {policy}: a full store evicts settings, and an evicted setting reads as false"
        yield Finding("error", "eviction", f"{message}; set it to noeviction")
    yield from _durability(facts)
    if facts.role == "primary" and facts.replicas is None:
        yield _unchecked("replicas_unknown", "the number of replicas (and min-replicas-to-write)", "+info")
    elif facts.role == "primary" and facts.replicas == 0:
        message = "no replica is connected: if the disk fails, all changes since the last backup are lost"
        yield _warning("no_replicas", message)
    yield from _failover(facts, kind)
    if not facts.allows_scan:
        message = "`oms-config tenants` cannot list the tenants, because the server rejects SCAN: allow +scan +dbsize"
        yield _warning("scan_forbidden", message)


def _failover(facts: ServerFacts, kind: Kind) -> Iterator[Finding]:
    if kind == "sentinels" and facts.min_replicas_to_write is False and (facts.role == "replica" or facts.replicas):
        lost = "a primary that is cut off from its replicas accepts changes that the failover loses"
        cost = "it then rejects changes while no replica is connected"
        yield _warning("min_replicas_to_write", f"min-replicas-to-write is 0: {lost}; set it to 1: {cost}")
    if kind == "cluster" and facts.cluster_require_full_coverage is None:
        parameter = "cluster-require-full-coverage (must be no, or one failed shard stops all tenants)"
        yield _unchecked("full_coverage_unknown", parameter, "+config|get")
    elif kind == "cluster" and facts.cluster_require_full_coverage:
        message = "cluster-require-full-coverage is yes: if one shard fails, all tenants get a 500"
        yield _warning("full_coverage", f"{message}; set it to no: only the tenants of that shard then get a 500")


def _durability(facts: ServerFacts) -> Iterator[Finding]:
    if facts.appendonly is None:
        yield _unchecked("append_only_unknown", "appendonly (what a restart loses)", "+config|get or +info")
    elif not facts.appendonly:
        lost = "a restart loses every change since the last snapshot"
        yield _warning("no_append_only_file", f"appendonly is off: {lost}; set appendonly yes and appendfsync always")
    elif facts.appendfsync is None:
        yield _unchecked("appendfsync_unknown", "appendfsync (what a crash loses)", "+config|get")
    elif facts.appendfsync != "always":
        lost = "second or two" if facts.appendfsync == "everysec" else "half minute"
        consequence = f"a crash of the machine loses the last {lost} of changes"
        message = f"appendfsync is {facts.appendfsync}: {consequence}; set it to always"
        yield _warning("appendfsync", message)


def _transport(address: Address) -> Iterator[Finding]:
    if all(_is_loopback(host) for host, _ in address.hosts):
        return
    risk = "can see the password, and read and change settings"
    if not address.tls:
        message = f"the connection to Redis is not encrypted: anyone on the network {risk}; use rediss:// or ?tls=true"
        yield _warning("no_tls", message)
    elif not address.tls_verify:
        message = f"the certificate is not verified (REDIS_TLS_VERIFY): anyone who redirects the connection {risk}"
        yield _warning("tls_unverified", message)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
