"""Parsers for the text of one variable. Each parser returns a value or raises ValueError."""

import re
from collections.abc import Callable

from app.auth.keys import (
    PUBLIC_KEY_ALGORITHMS,
    SECRET_ALGORITHMS,
    UnsupportedKey,
    canonical,
    is_trusted_address,
    public_key,
)
from app.auth.tokens import TENANT_PLACEHOLDER
from app.errors import Mistake

Parser = Callable[[str], str]

_DISCOVERY_PATH = "/.well-known/openid-configuration"
UNTRUSTED_HTTP = "http:// is for loopback addresses only"

MIN_SECRET_BYTES = 32  # the size of HS256's hash (RFC 7518, section 3.2)


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from `lowest` to `highest`."""

    def parse(value: str) -> int:
        if not (re.fullmatch("[0-9]{1,9}", value) and lowest <= (number := int(value)) <= highest):
            raise ValueError
        return number

    return parse


def seconds(lowest: float, highest: float) -> Callable[[str], float]:
    """Return a parser of seconds from `lowest` to `highest`."""

    def parse(value: str) -> float:
        number = float(value)
        if not lowest <= number <= highest:  # also if it is not a number
            raise ValueError
        return number

    return parse


def text(pattern: str) -> Parser:
    """Return a parser of texts that match `pattern` completely."""

    def parse(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return parse


def one_of(*words: str) -> Parser:
    """Return a parser of `words` in upper or lower case. It returns the word as it is in `words`."""

    def parse(value: str) -> str:
        for word in words:
            if word.lower() == value.lower():
                return word
        raise ValueError

    return parse


def require_plain(value: str) -> None:
    """Raise Mistake for what files and `docker run --env-file` keep.

    That is white space, quotation marks, and escaped line ends around a value, and names of variables in it.
    """
    if value != value.strip() or not (value[0] + value[-1]).isprintable():  # also a byte order mark
        raise Mistake(
            "it begins or ends with white space or an invisible character, such as a line end; printf %s writes none"
        )
    if value[0] in "\"'" and value[0] == value[-1]:
        raise Mistake("it is in quotation marks, which are a part of the value; remove them")
    if value.endswith(("\\n", "\\r")):
        raise Mistake("it ends with a backslash and a letter, which are no line end; remove them")
    if re.search(r"\$\{\w+\}", value) or re.fullmatch(r"\$\(\w+\)", value):
        raise Mistake("it contains the name of a variable in ${} or $(), which nothing has replaced")


_PLAIN = "[!-z|~]"  # printable ASCII without spaces and braces

# RFC 6749, section 3.3: a scope has no space, no quotation mark and no backslash.
scope = text(r"[!#-\[\]-~]+")
# A registered claim (RFC 7519) already has another meaning. `sub` may name the tenant.
claim = text(r"(?!(exp|nbf|iat|iss|aud|jti)\Z)[!-~]+")
metrics_token = text(f"{_PLAIN}{{16,}}")
note = text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,500}")
_issuer = text(rf"{_PLAIN}*({re.escape(TENANT_PLACEHOLDER)}{_PLAIN}*)?")
# Without lone surrogates, which stand for bytes of the environment that are not UTF-8.
utf8 = text("[^\ud800-\udfff]+")
_host_pattern = text(r"[a-z0-9.-]*\{tenant\}[a-z0-9.-]*")
_web_url = text(r"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:[1-9][0-9]{0,4})?(/[^\s?#\x00-\x1f]*)?")
_origin = text(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?")


def boolean(value: str) -> bool:
    """Parse `true` or `false`."""
    return one_of("true", "false")(value) == "true"


def log_level(value: str) -> str:
    """Parse a level of `logging`, also the short form WARN."""
    levels = one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "WARN")
    return "WARNING" if levels(value) == "WARN" else levels(value)


def secret(value: str) -> str:
    """Accept a secret of at least MIN_SECRET_BYTES bytes."""
    if len(value.encode()) < MIN_SECRET_BYTES:
        raise ValueError
    if _is_key_of_a_pair(value):
        raise Mistake("it is a key of a key pair: anyone who has the public key could sign tokens; use JWT_PUBLIC_KEY")
    return value


def _is_key_of_a_pair(value: str) -> bool:
    """Return True for a key in PEM, its base64, a JWK, or a key of SSH."""
    if "-----BEGIN " in value or value.startswith(("ssh-", "ecdsa-sha2-")) or re.match(r'\{.*"kty"', value, re.DOTALL):
        return True
    try:
        public_key(value)
    except UnsupportedKey:
        return True
    except Mistake:
        return False
    return True


def issuer(value: str) -> str:
    """Accept the issuer of tokens, with at most one placeholder {tenant}."""
    if _DISCOVERY_PATH in value:
        raise Mistake(f"it is the address of the discovery document: leave out {_DISCOVERY_PATH}")
    return _issuer(value)


def trusted_url(value: str) -> str:
    """Accept the URL of a key set: https, or http on loopback."""
    if not is_trusted_address(value):
        raise Mistake(UNTRUSTED_HTTP) if value.startswith("http://") else ValueError
    return text(f"{_PLAIN}+")(value)


def web_url(value: str) -> str:
    """Accept a URL for redirects. Return it without a trailing slash."""
    return _web_url(value).rstrip("/")


def algorithms(value: str) -> tuple[str, ...]:
    """Parse a comma-separated list of signature algorithms."""
    parse = one_of(*SECRET_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS, "Ed25519")
    return tuple(str(canonical(parse(name.strip()))) for name in value.split(","))


def tenant_host(value: str) -> str:
    """Parse a host with the placeholder {tenant}. Return it in lower case, without a dot at the end."""
    if ":" in value or "/" in value:
        raise Mistake("it has a scheme, a port or a path; a host has none")
    if value.lower().count(TENANT_PLACEHOLDER) != 1:
        raise Mistake(f"{TENANT_PLACEHOLDER} must be in it exactly once")
    return _host_pattern(value.lower()).removesuffix(".")


def origins(value: str) -> tuple[str, ...]:
    """Parse `*`, or a comma-separated list of origins.

    Return origins as browsers send them: in lower case and without the default port.
    """
    if value == "*":
        return (value,)
    parsed = (_origin(each.strip().lower()) for each in value.split(","))
    return tuple(each.removesuffix(":443" if each.startswith("https:") else ":80") for each in parsed)
