"""The address of the store: parses `REDIS_URL`."""

from dataclasses import dataclass, field
from typing import Final, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

Kind = Literal["server", "sentinels", "cluster"]
HostPort = tuple[str, int]

_PORTS: Final[dict[Kind, int]] = {"server": 6379, "sentinels": 26379, "cluster": 6379}
_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "redis+sentinel": ("sentinels", False),
    "redis+cluster": ("cluster", False),
}


@dataclass(frozen=True, kw_only=True)
class Address:
    """The kind of the store and its hosts: one server, the sentinels of a primary, or some nodes of a cluster.

    A single server has either one host in `hosts` or the `path` of a Unix socket. `tls_verify` checks the certificates
    of all servers. The last three fields are not part of `REDIS_URL`.
    """

    kind: Kind = "server"
    hosts: tuple[HostPort, ...] = ()
    path: str | None = None
    service: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_verify: bool = True
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an address. Raises ValueError if it is malformed.

        The schemes are `redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,host:port/service/database` and
        `redis+cluster://host:port,host:port`. The last two accept `?tls=true`. All accept `user:password@`.
        """
        url = urlsplit(text)
        credentials, _, hosts = url.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        user, secret = unquote(username) or None, unquote(password) or None
        if url.scheme == "unix":
            if not url.path or hosts or url.query or url.fragment:
                raise ValueError
            return cls(path=unquote(url.path), username=user, password=secret)
        # A slash in the password would end the hosts, and `shown` would print the rest of the password as the path.
        if url.scheme not in _SCHEMES or url.fragment or "@" in url.path:
            raise ValueError
        kind, tls = _SCHEMES[url.scheme]
        host_ports = tuple(_host_port(host, _PORTS[kind]) for host in hosts.split(","))
        if kind == "server" and (len(host_ports) > 1 or url.query):
            raise ValueError
        service, database = _path(kind, url.path.strip("/"))
        return cls(
            kind=kind,
            hosts=host_ports,
            service=service,
            database=database,
            username=user,
            password=secret,
            tls=tls or _tls(url.query),
        )

    @property
    def shown(self) -> str:
        """The address as text, without user and password."""
        if self.path is not None:
            return f"unix://{self.path}"
        scheme = {
            "server": "rediss" if self.tls else "redis",
            "sentinels": "redis+sentinel",
            "cluster": "redis+cluster",
        }
        hosts = ",".join(map(format_host_port, self.hosts))
        path = f"{self.service}/{self.database}" if self.service else str(self.database)
        return f"{scheme[self.kind]}://{hosts}" + ("" if self.kind == "cluster" else f"/{path}")


def format_host_port(host_port: HostPort) -> str:
    """Return `host:port`, with an IPv6 host in brackets, as in a URL."""
    host, port = host_port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_port(text: str, default_port: int) -> HostPort:
    url = urlsplit(f"//{text}")  # handles IPv6; raises ValueError for an invalid port
    port = default_port if url.port is None else url.port
    if not url.hostname or port == 0:
        raise ValueError
    return url.hostname, port


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """Return the service and the database in the path. Raises ValueError if the kind of store does not allow them."""
    service, _, database = path.partition("/") if kind == "sentinels" else ("", "", path)
    if (kind == "sentinels" and not service) or (kind == "cluster" and database):
        raise ValueError
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError
    return unquote(service), int(database or 0)


def _tls(query: str) -> bool:
    pairs = parse_qsl(query, keep_blank_values=True)
    if pairs not in ([], [("tls", "true")], [("tls", "false")]):
        raise ValueError
    return pairs == [("tls", "true")]
