"""How the text of a variable is read: each function returns what it means, or raises ValueError."""

import math
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from app.auth.jwks import is_trusted_address
from app.auth.keys import PUBLIC_KEY_ALGORITHMS, SECRET_ALGORITHMS, public_key
from app.auth.tokens import TENANT_PLACEHOLDER


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def read(value: str) -> int:
        if not (value.isascii() and value.isdigit() and lowest <= int(value[:19]) <= highest):
            raise ValueError
        return int(value)

    return read


def seconds(lowest: float, highest: float) -> Callable[[str], float]:
    """A number of seconds within bounds."""

    def read(value: str) -> float:
        number = float(value)
        if not (math.isfinite(number) and lowest <= number <= highest):
            raise ValueError
        return number

    return read


def one_of(*choices: str) -> Callable[[str], str]:
    """One of a few words."""

    def read(value: str) -> str:
        if value not in choices:
            raise ValueError
        return value

    return read


def boolean(value: str) -> bool:
    """True or false, as they are written."""
    return one_of("true", "false")(value) == "true"


MAX_NOTE_CHARACTERS = 500
MIN_TOKEN_CHARACTERS = 16
MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: as long as the hash of HS256, or longer


def secret(value: str) -> str:
    """A secret that is long enough."""
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise ValueError
    return value


def note(value: str) -> str:
    """Text that is shown to people, in one line."""
    if len(value) > MAX_NOTE_CHARACTERS or not value.isprintable():
        raise ValueError
    return value


def token(value: str) -> str:
    """A token that is long enough and can stand in a header."""
    if len(value) < MIN_TOKEN_CHARACTERS or not _is_plain(value):
        raise ValueError
    return value


def web_url(value: str) -> str:
    """An address that can be redirected to, without a slash at its end."""
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or not url.hostname or url.port == 0 or url.query or url.fragment:
        raise ValueError
    if not value.isprintable() or " " in value:
        raise ValueError
    return value.rstrip("/")


def pem(value: str) -> str:
    """A public key, as the text that it is."""
    public_key(value)
    return value


def trusted_url(value: str) -> str:
    """An address whose answers can be trusted."""
    if not is_trusted_address(value) or not _is_plain(value):
        raise ValueError
    return value


def issuer(value: str) -> str:
    """What a token's `iss` must be, with a place for the tenant or without."""
    if value.count(TENANT_PLACEHOLDER) > 1 or not _is_plain(value.replace(TENANT_PLACEHOLDER, "")):
        raise ValueError
    return value


def _is_plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and not set(value) & set(" {}")


def algorithms(value: str) -> tuple[str, ...]:
    """Algorithms that a token may be signed with."""
    names = tuple(name.strip() for name in value.split(","))
    if not set(names) <= {*SECRET_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS}:
        raise ValueError
    return names


def claim(value: str) -> str:
    """The name of a claim that has no meaning of its own."""
    if not value.isprintable() or " " in value or value in {"exp", "nbf", "iat", "iss", "aud", "jti"}:
        raise ValueError
    return value


def scope(value: str) -> str:
    """One scope."""
    # RFC 6749, section 3.3: a word has no space, no quotation mark and no backslash.
    if not (value.isascii() and value.isprintable()) or set(value) & set(' "\\'):
        raise ValueError
    return value


def tenant_host(value: str) -> str:
    """A host with a place for the tenant."""
    value = value.lower()
    if not re.fullmatch(r"[a-z0-9.-]*\{tenant\}[a-z0-9.-]*", value):
        raise ValueError
    return value


def origins(value: str) -> tuple[str, ...]:
    """All origins (`*`), or some."""
    if value == "*":
        return (value,)
    return tuple(_origin(each.strip().lower()) for each in value.split(","))


def _origin(value: str) -> str:
    """As a browser writes it, which leaves the usual port out."""
    if not re.fullmatch(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?", value):
        raise ValueError
    url = urlsplit(value)  # `port` raises ValueError where it is none
    usual = {"http": 80, "https": 443}[url.scheme]
    if url.port == 0:
        raise ValueError
    return value.removesuffix(f":{usual}") if url.port == usual else value
