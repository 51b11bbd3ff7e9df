"""What a store would lose, judged before a release goes out."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.store.address import Address
from app.store.inspection import Facts

# The commands are all in Redis 4. Nobody mends anything older than 6.2, and no test sees it.
OLDEST_VERSION: Final = (6, 2)

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the store would lose, or that nobody can tell. An error is what must not be released."""

    level: Level
    code: str
    message: str


def findings(servers: Sequence[Facts], address: Address, *, tls_verify: bool) -> list[Finding]:
    """What is to be said of the store at `address`, what weighs most first; what several servers share, once."""
    rules = (_eviction, _durability, _replicas, _version)
    of_servers = [finding for rule in rules for facts in servers for finding in rule(facts)]
    return [*dict.fromkeys(of_servers), *_transport(address, tls_verify=tls_verify)]


def _eviction(facts: Facts) -> Iterator[Finding]:
    policy = facts.maxmemory_policy
    if policy is None:
        yield Finding(
            "warning",
            "eviction_unknown",
            "whether settings can be evicted cannot be told: the store hides its maxmemory-policy; it has to be "
            "noeviction",
        )
    # The volatile ones evict keys with an expiry, and no setting has one: full, the store refuses writes all the same.
    elif policy != "noeviction" and not policy.startswith("volatile-"):
        yield Finding(
            "error",
            "eviction",
            f"maxmemory-policy is {policy}: a full store evicts settings, and an evicted switch reads as false; set it "
            "to noeviction",
        )


def _durability(facts: Facts) -> Iterator[Finding]:
    if facts.appendonly is None:
        yield Finding(
            "warning",
            "append_only_unknown",
            "what a restart loses cannot be told: the store hides whether appendonly is on",
        )
    elif not facts.appendonly:
        yield Finding(
            "warning",
            "no_append_only_file",
            "appendonly is off: a restart loses every change since the last snapshot; set appendonly yes and "
            "appendfsync always",
        )
    elif facts.appendfsync is None:
        yield Finding(
            "warning",
            "appendfsync_unknown",
            "whether a crash of the machine loses changes cannot be told: the store hides its appendfsync",
        )
    elif facts.appendfsync != "always":
        lost = "the last second or two of changes" if facts.appendfsync == "everysec" else "changes of half a minute"
        yield Finding(
            "warning",
            "appendfsync",
            f"appendfsync is {facts.appendfsync}: a crash of the machine loses {lost}; set it to always",
        )


def _replicas(facts: Facts) -> Iterator[Finding]:
    if facts.replicas is None:
        yield Finding("warning", "replicas_unknown", "whether there is a replica cannot be told: the store hides it")
    elif facts.replicas == 0:
        yield Finding(
            "warning",
            "no_replicas",
            "no replica is connected: with the machine's disk, everything since the last backup is lost",
        )


def _version(facts: Facts) -> Iterator[Finding]:
    oldest = ".".join(map(str, OLDEST_VERSION))
    numbers = re.match(r"(\d+)\.(\d+)", facts.version or "")
    if numbers is None:
        yield Finding("warning", "version_unknown", f"the version cannot be told; it has to be Redis {oldest} or newer")
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
