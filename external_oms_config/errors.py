"""Exceptions of the client.

OmsConfigError
    ConfigurationError
        InvalidURL
    TokenUnavailable
    ConnectError
    TransportError
    UnexpectedResponse
    StatusError
        Rejected
        Conflict
    UnknownOutcome
    StaleCopy

Each text names the address of the service and the reason. It has no token and no password.
"""


class OmsConfigError(Exception):
    """Base class of the exceptions that the client raises.

    `request_id` finds the request in the log of the service. It is None if there was no request.
    """

    def __init__(self, text: str, request_id: str | None = None) -> None:
        super().__init__(text)
        self.request_id = request_id


class ConfigurationError(OmsConfigError):
    """The certificates or the proxy that the environment names cannot be used."""


class InvalidURL(ConfigurationError):
    """The address is not `http://host:port` or `https://host`. It is not quoted, because it may contain a password."""


class TokenUnavailable(OmsConfigError):
    """The token function failed, or returned something that is no token. No request was sent."""


class ConnectError(OmsConfigError):
    """The service cannot be reached. No request was sent."""


class TransportError(OmsConfigError):
    """The connection ended, or the time limit passed, before the response was complete."""


class UnexpectedResponse(OmsConfigError):
    """The response is not one of the service. A proxy may have replaced or changed it."""


class StatusError(OmsConfigError):
    """The service returned `status` instead of 200."""

    def __init__(self, text: str, request_id: str | None, status: int) -> None:
        super().__init__(text, request_id)
        self.status = status


class Rejected(StatusError):
    """The token is rejected (401), or does not allow the request (403)."""


class Conflict(StatusError):
    """Another client changed the setting (409). Nothing was stored. `version` is the current one, None if unknown."""

    def __init__(self, text: str, request_id: str | None, status: int, version: int | None) -> None:
        super().__init__(text, request_id, status)
        self.version = version


class UnknownOutcome(OmsConfigError):
    """The change may or may not have been stored. `__cause__` is the error of the request."""


class StaleCopy(OmsConfigError):
    """The local copy has no value, or one that is too old. `__cause__` is the last error, or None."""
