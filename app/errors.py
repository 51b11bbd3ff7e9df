"""Exceptions of the service, one class for each case that callers handle differently.

ServiceError
    BadRequest
        InvalidBody
    FlagNotFound
    RejectedToken
        Unauthorized
        Forbidden
            InsufficientScope
    ConcurrentUpdate
    Unavailable
        StoreError
            OutcomeUnknown
        KeyUnavailable
Mistake

They have no HTTP statuses: `app.web.middleware.error_responses` chooses the response.
"""

import enum
import os
import socket
import ssl
from collections.abc import Iterator


class RejectionReason(enum.StrEnum):
    """Reasons for rejecting a token. The values are metric labels and appear in the request log."""

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


class Mistake(ValueError):
    """A mistake in a value from an operator or an identity provider. The text names it and contains no secret."""


class ServiceError(Exception):
    """Base class of the exceptions that the service raises. The client receives the text, except for Unavailable."""


class BadRequest(ServiceError):
    """The request violates the contract. The text names the place and what was expected."""


class InvalidBody(BadRequest):
    """The body is JSON but does not match the schema of its OpenAPI document."""


class FlagNotFound(ServiceError):
    """There is no feature flag with the requested key."""


class RejectedToken(ServiceError):
    """The request's token is missing or rejected. The text gives the reason and quotes nothing from the token.

    `detail` is the text for the log. It may also name settings, and the fault of an issuer's keys.
    """

    def __init__(self, text: str, reason: RejectionReason, detail: str | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.detail = detail or text


class Unauthorized(RejectedToken):
    """There is no token, or it fails verification."""


class Forbidden(RejectedToken):
    """The token is valid but does not permit the request."""


class InsufficientScope(Forbidden):
    """The token lacks the scope that the operation requires."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"The token lacks the scope {scope}.", RejectionReason.SCOPE)
        self.scope = scope


class ConcurrentUpdate(ServiceError):
    """A conflict: another writer changed the setting, or its version is not an expected one. Nothing was stored.

    `version` is the current version.
    """

    def __init__(self, version: int) -> None:
        super().__init__("Concurrent update detected on external_oms configuration setting.")
        self.version = version


class Unavailable(ServiceError):
    """A dependency failed or gave no reliable reply. The text is for the log only."""


class StoreError(Unavailable):
    """The store failed. Nothing was stored, except for OutcomeUnknown. The text contains no secret."""


class OutcomeUnknown(StoreError):
    """An unknown outcome: the change may have been stored."""


class KeyUnavailable(Unavailable):
    """The key of a token is not available from its issuer now, so the token can be neither accepted nor rejected."""

    reason = RejectionReason.KEY_UNAVAILABLE


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and then each cause in its chain. In an exception group, follow only the first exception."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = first or cause.__cause__ or cause.__context__


def system_reason(error: BaseException) -> str | None:
    """Return the text of the system, TLS or DNS error that caused `error`, without an address, or None."""
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            # asyncio adds the address to the text of system errors. TLS and DNS errors use other error numbers.
            has_own_numbers = isinstance(cause, ssl.SSLError | socket.gaierror)
            return str(cause.strerror) if has_own_numbers else os.strerror(cause.errno)
    return None
