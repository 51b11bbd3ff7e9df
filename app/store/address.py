"""Where the store is: `REDIS_URL`, read."""

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
    """What kind of store it is, and at which places: a server, sentinels that name it, or some nodes of a cluster.

    Either there are `places` or, for a server alone, the `path` of a Unix socket.
    """

    kind: Kind = "server"
    places: tuple[HostPort, ...] = ()
    path: str | None = None
    service: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that `text` is. Raises ValueError where it is none.

        It is one of `redis://`, `rediss://`, `unix://`, `redis+sentinel://host:port,host:port/service/database` and
        `redis+cluster://host:port,host:port`. The last two take `?tls=true`, all take `user:password@`.
        """
        url = urlsplit(text)
        credentials, _, hosts = url.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        user, secret = unquote(username) or None, unquote(password) or None
        if url.scheme == "unix":
            if not url.path or hosts or url.query or url.fragment:
                raise ValueError
            return cls(path=unquote(url.path), username=user, password=secret)
        # A password with a slash in it would end the hosts, and be shown.
        if url.scheme not in _SCHEMES or url.fragment or "@" in url.path:
            raise ValueError
        kind, tls = _SCHEMES[url.scheme]
        places = tuple(_place(host, _PORTS[kind]) for host in hosts.split(","))
        if kind == "server" and (len(places) > 1 or url.query):
            raise ValueError
        service, database = _path(kind, url.path.strip("/"))
        return cls(
            kind=kind,
            places=places,
            service=service,
            database=database,
            username=user,
            password=secret,
            tls=tls or _tls(url.query),
        )

    @property
    def shown(self) -> str:
        """The address for people to read, without user and password."""
        if self.path is not None:
            return f"unix://{self.path}"
        scheme = {
            "server": "rediss" if self.tls else "redis",
            "sentinels": "redis+sentinel",
            "cluster": "redis+cluster",
        }
        hosts = ",".join(map(format_host_port, self.places))
        path = f"{self.service}/{self.database}" if self.service else str(self.database)
        return f"{scheme[self.kind]}://{hosts}" + ("" if self.kind == "cluster" else f"/{path}")


def format_host_port(place: HostPort) -> str:
    """The place as it stands in an address: host:port."""
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _place(text: str, usual_port: int) -> HostPort:
    url = urlsplit(f"//{text}")  # knows IPv6, and raises ValueError for a port that is none
    port = usual_port if url.port is None else url.port
    if not url.hostname or port == 0:
        raise ValueError
    return url.hostname, port


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """The service and the database that a path names."""
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
