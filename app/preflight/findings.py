"""What a store would lose, judged before a release goes out."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from app.store.address import Address
from app.store.inspection import ServerFacts, UnreachableServer

# The commands are all in Redis 4. Nobody mends anything older than 6.2, and no test sees it.
OLDEST_VERSION: Final = (6, 2)

Level = Literal["error", "warning"]

_PERMISSIONS: Final = {"INFO": "+info", "CONFIG GET": "+config|get"}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the store would lose, or that could not be looked at: then it is not `seen`.

    An error is what must not be released. `servers` are those that it is about, host:port; none where there is but one.
    """

    level: Level
    code: str
    message: str
    seen: bool = True
    servers: Sequence[str] = ()


def findings(
    servers: Sequence[ServerFacts | UnreachableServer], address: Address, *, tls_verify: bool
) -> list[Finding]:
    """What is to be said of the store at `address`, what weighs most first; what several servers share, once."""
    seen = [each for each in servers if isinstance(each, ServerFacts)]
    rules = (_eviction, _durability, _replicas, _version)
    said: list[tuple[Finding, ServerFacts | UnreachableServer]] = [
        (finding, facts) for rule in rules for facts in seen for finding in rule(facts)
    ]
    said += [(_unseen(each), each) for each in servers if isinstance(each, UnreachableServer)]
    shared: dict[Finding, list[ServerFacts | UnreachableServer]] = {}
    for finding, server in sorted(said, key=lambda pair: pair[0].level):  # errors come first
        shared.setdefault(finding, []).append(server)
    if len(servers) == 1 and address.kind == "server":
        of_servers = list(shared)
    else:
        of_servers = [_about(finding, those) for finding, those in shared.items()]
    return [*of_servers, *_transport(address, tls_verify=tls_verify)]


def _about(finding: Finding, servers: Sequence[ServerFacts | UnreachableServer]) -> Finding:
    """The finding, which names those that it is about."""
    names = (f"replica {each.server}" if each.role == "replica" else each.server for each in servers)
    message = f"{', '.join(names)}: {finding.message}"
    return replace(finding, message=message, servers=tuple(each.server for each in servers))


def _not_looked_at(code: str, what: str, facts: ServerFacts, *commands: str) -> Finding:
    """The finding that none of `commands`, each of which would tell `what`, was answered."""
    forbidden = [command for command in commands if command in facts.forbidden]
    if forbidden:
        permissions = " or ".join(_PERMISSIONS[command] for command in forbidden)
        why = f"the store's user may not run {' or '.join(forbidden)} (ACL); allow {permissions}"
    else:
        why = f"the server does not tell it ({', '.join(commands)})"
    return Finding("warning", code, f"{what} was not looked at: {why}", seen=False)


def _unseen(server: UnreachableServer) -> Finding:
    if server.role == "primary":
        return Finding("error", "store", f"the store cannot be used: {server.obstacle}", seen=False)
    message = f"what a fail-over to it would lose was not looked at: {server.obstacle}"
    return Finding("warning", "replica_unseen", message, seen=False)


def _eviction(facts: ServerFacts) -> Iterator[Finding]:
    policy = facts.maxmemory_policy
    if policy is None:
        what = "whether settings can be evicted (maxmemory-policy has to be noeviction)"
        yield _not_looked_at("eviction_unknown", what, facts, "CONFIG GET", "INFO")
    # The volatile ones evict keys with an expiry, and no setting has one: full, the store refuses writes all the same.
    elif policy != "noeviction" and not policy.startswith("volatile-"):
        yield Finding(
            "error",
            "eviction",
            f"maxmemory-policy is {policy}: a full store evicts settings, and an evicted switch reads as false; set it "
            "to noeviction",
        )


def _durability(facts: ServerFacts) -> Iterator[Finding]:
    if facts.appendonly is None:
        what = "what a restart loses (appendonly)"
        yield _not_looked_at("append_only_unknown", what, facts, "CONFIG GET", "INFO")
    elif not facts.appendonly:
        yield Finding(
            "warning",
            "no_append_only_file",
            "appendonly is off: a restart loses every change since the last snapshot; set appendonly yes and "
            "appendfsync always",
        )
    elif facts.appendfsync is None:
        what = "what a crash of the machine loses (appendfsync)"
        yield _not_looked_at("appendfsync_unknown", what, facts, "CONFIG GET")
    elif facts.appendfsync != "always":
        lost = "the last second or two of changes" if facts.appendfsync == "everysec" else "changes of half a minute"
        yield Finding(
            "warning",
            "appendfsync",
            f"appendfsync is {facts.appendfsync}: a crash of the machine loses {lost}; set it to always",
        )


def _replicas(facts: ServerFacts) -> Iterator[Finding]:
    if facts.role == "replica":
        return
    if facts.replicas is None:
        what = "whether there is a replica, and what it would lose,"
        yield _not_looked_at("replicas_unknown", what, facts, "INFO")
    elif facts.replicas == 0:
        yield Finding(
            "warning",
            "no_replicas",
            "no replica is connected: with the machine's disk, everything since the last backup is lost",
        )


def _version(facts: ServerFacts) -> Iterator[Finding]:
    oldest = ".".join(map(str, OLDEST_VERSION))
    numbers = re.match(r"(\d{1,9})\.(\d{1,9})", facts.version or "")
    if numbers is None:
        yield _not_looked_at("version_unknown", f"the version (Redis {oldest} or newer)", facts, "INFO")
    elif (int(numbers[1]), int(numbers[2])) < OLDEST_VERSION:
        yield Finding(
            "warning",
            "old_version",
            f"Redis {facts.version} is older than {oldest}: nobody mends its faults, and no test sees it",
        )


def _transport(address: Address, *, tls_verify: bool) -> Iterator[Finding]:
    if all(_is_this_machine(host) for host, _ in address.places):
        return
    if not address.tls:
        yield Finding(
            "warning",
            "no_tls",
            "the way to the store is not encrypted: who is on the network sees the password, and reads and changes "
            "settings; use rediss://, or ?tls=true",
        )
    elif not tls_verify:
        yield Finding(
            "warning",
            "tls_unverified",
            "the store's certificate is not verified (REDIS_TLS_VERIFY): who can redirect the connection sees the "
            "password, and reads and changes settings",
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
