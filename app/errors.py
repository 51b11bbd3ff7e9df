"""What can go wrong, one kind for each thing that a caller tells apart. What it means over HTTP is decided in `web`."""

import enum
import os
import socket
import ssl
from collections.abc import Iterator


class RejectionReason(enum.StrEnum):
    """Why a token opens nothing, for those who count: one word each."""

    MISSING = "missing"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    SIGNATURE = "signature"
    KEY = "unknown_key"
    KEY_UNAVAILABLE = "key_unavailable"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    AUDIENCE = "audience"
    ISSUER = "issuer"
    CLAIM = "claim"
    SCOPE = "scope"
    HOST = "host"


class ServiceError(Exception):
    """The base of all that the service raises on purpose. Its text is for the caller, unless a kind says otherwise."""


class BadRequest(ServiceError):
    """The request is not what the contract describes. The text names the place and what was expected."""


class InvalidBody(BadRequest):
    """The body is JSON, and not of the form that the document describes."""


class FlagNotFound(ServiceError):
    """There is no flag of the name that was asked for."""


class Unauthorized(ServiceError):
    """There is no token, or one that does not verify. The text says why, and nothing of the token."""

    def __init__(self, text: str, reason: RejectionReason = RejectionReason.MALFORMED) -> None:
        super().__init__(text)
        self.reason = reason


class MissingToken(Unauthorized):
    """The request carries no bearer token at all."""

    def __init__(self, text: str) -> None:
        super().__init__(text, RejectionReason.MISSING)


class Forbidden(ServiceError):
    """The token is good, but it may not do this."""

    def __init__(self, text: str, reason: RejectionReason) -> None:
        super().__init__(text)
        self.reason = reason


class InsufficientScope(Forbidden):
    """The token lacks the scope that the operation requires."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token lacks the scope {scope}.", RejectionReason.SCOPE)
        self.scope = scope


class ConcurrentUpdate(ServiceError):
    """Another writer changed this tenant's setting meanwhile. Nothing was stored; `version` stands now."""

    def __init__(self, version: int) -> None:
        super().__init__("Concurrent update detected on external_oms configuration setting.")
        self.version = version


class Unavailable(ServiceError):
    """Something that the service depends on gave no answer that can be relied on. The text is for the log alone."""


class StoreError(Unavailable):
    """The store failed. The text names no secret."""


class OutcomeUnknown(StoreError):
    """Nobody can say whether the change was stored."""


class KeyUnavailable(Unavailable):
    """The key that a token asks for cannot be had from its issuer now: nobody can say whether the token is good."""

    reason = RejectionReason.KEY_UNAVAILABLE


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, its cause, the cause of that, and so on. Of a group, only the first error counts."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = first or cause.__cause__ or cause.__context__


def system_reason(error: BaseException) -> str | None:
    """Return the text of the system, TLS or resolver error that caused `error`, without an address."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            # asyncio adds the address to system errors. TLS and the resolver have error numbers of their own.
            has_own_numbers = isinstance(cause, ssl.SSLError | socket.gaierror)
            return str(cause.strerror) if has_own_numbers else os.strerror(cause.errno)
    return None
