"""The address of the store: parses `REDIS_URL`."""

from dataclasses import dataclass, field
from typing import Final, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from app.errors import Mistake

Kind = Literal["server", "sentinels", "cluster"]
HostPort = tuple[str, int]
# How many sentinels must confirm the primary before a write: more than half, or none (one has named it).
Quorum = Literal["majority", "any"]

_PORTS: Final[dict[Kind, int]] = {"server": 6379, "sentinels": 26379, "cluster": 6379}
_SCHEMES: Final[dict[str, tuple[Kind, bool]]] = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "redis+sentinel": ("sentinels", False),
    "rediss+sentinel": ("sentinels", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
# Options in the addresses of other clients, and what replaces them.
_OPTIONS: Final = {
    "db": "write the database as the path, such as /1",
    "ssl_cert_reqs": "set REDIS_TLS_VERIFY",
    "ssl_ca_certs": "set SSL_CERT_FILE",
    "socket_timeout": "set REDIS_TIMEOUT",
    "ssl": "write rediss:// or ?tls=true",
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
        """Parse an address. Raises Mistake if it is malformed.

        The schemes are `redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,host:port/service/database` and
        `redis+cluster://host:port,host:port`, all also with `valkey`. All accept `user:password@`, and all but `unix`
        accept `?tls=true`.
        """
        scheme, separator, rest = text.partition("://")
        scheme = scheme.lower().replace("valkey", "redis", 1)
        if not separator or scheme not in {*_SCHEMES, "unix"}:
            raise Mistake("its scheme is none of these")
        if not text.isprintable():
            raise Mistake("it contains a line end or another control character, possibly at the end of the password")
        # The last @ ends the login, as for other clients. A path of a Unix socket may contain one too.
        login, _, place = ("", "", rest) if rest.startswith("/") else rest.rpartition("@")
        user, secret = _login(login)
        place, fragment, _ = place.partition("#")
        place, _, query = place.partition("?")
        hosts, _, path = place.partition("/")
        if fragment:
            raise Mistake("# is not allowed after the host")
        if scheme == "unix":
            if not path or hosts or query:
                raise Mistake("a Unix socket has a path that begins with /, and no host or option")
            return cls(path=unquote(f"/{path}"), username=user, password=secret)
        kind, tls = _SCHEMES[scheme]
        host_ports = tuple(_host_port(host, _PORTS[kind]) for host in hosts.split(","))
        if kind == "server" and len(host_ports) > 1:
            raise Mistake("several hosts need redis+sentinel:// or redis+cluster://")
        service, database = _path(kind, path.strip("/"))
        return cls(
            kind=kind,
            hosts=host_ports,
            service=service,
            database=database,
            username=user,
            password=secret,
            tls=_tls(query, default=tls),
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


def _login(text: str) -> tuple[str | None, str | None]:
    """Return the user and the password in front of the hosts."""
    # Other clients, such as redis-cli, would read the rest of the password as the address.
    if any(each in text for each in "/?#"):
        raise Mistake("in a user or password, write / as %2F, ? as %3F and # as %23")
    username, colon, password = text.partition(":")
    if username and not colon:
        raise Mistake("the login has no colon: write user:password@, or :password@ without a user")
    return unquote(username) or None, unquote(password) or None


def _host_port(text: str, default_port: int) -> HostPort:
    try:
        url = urlsplit(f"//{text}")  # handles IPv6; raises ValueError for an invalid host or port
        host, port = url.hostname, default_port if url.port is None else url.port
    except ValueError as error:
        raise Mistake("a host or port is invalid, or @ is missing after the password") from error
    if not host or port == 0:
        raise Mistake("a host is missing, or its port is 0")
    return host, port


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """Return the service and the database in the path. Raises Mistake if the kind of store does not allow them."""
    service, _, database = path.partition("/") if kind == "sentinels" else ("", "", path)
    if kind == "sentinels" and not service:
        raise Mistake("the name of the service is missing after the hosts")
    if database and not (database.isascii() and database.isdigit()):
        raise Mistake("the path must end with the number of a database")
    if kind == "cluster" and int(database or 0):
        raise Mistake("a cluster has only the database 0")
    return unquote(service), int(database or 0)


def _tls(query: str, *, default: bool) -> bool:
    """Return the value of the only option. Raises Mistake for any other."""
    options = parse_qsl(query, keep_blank_values=True)
    if not options:
        return default
    name, value = options[0]
    if name in _OPTIONS:
        raise Mistake(f"instead of the option {name}, {_OPTIONS[name]}")
    if len(options) > 1 or name != "tls" or value not in {"true", "false"} or (default and value == "false"):
        raise Mistake("the only option is tls=true or tls=false, and rediss means tls=true")
    return value == "true"
