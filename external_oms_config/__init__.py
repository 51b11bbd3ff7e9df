"""A client of the External OMS Config API for Python programs. It imports nothing of the service.

    from external_oms_config import Client

    with Client("https://oms.example", token=get_token) as client:
        copy = client.keep_copy()
        ...
        if copy.get().enabled: ...

Its modules, from the outside in:

    client        Client: blocking methods
    async_client  AsyncClient: the same methods for asyncio
    setting_copy  SettingCopy: a local copy that follows each change
    requests      sends requests: tokens, time limits, failures
    reply         one response: limits, checks, JSON
    records       Setting, ChangeRecord and the messages of an event stream
    proxy         chooses the proxy for the service's address
    errors        the exceptions
    version       the version of this release, by a link to the service's
"""

from external_oms_config.async_client import AsyncClient, Decision
from external_oms_config.client import Client
from external_oms_config.errors import (
    ConfigurationError,
    Conflict,
    ConnectError,
    InvalidURL,
    OmsConfigError,
    Rejected,
    StaleCopy,
    StatusError,
    TokenUnavailable,
    TransportError,
    UnexpectedResponse,
    UnknownOutcome,
)
from external_oms_config.records import ChangeRecord, Disconnected, Event, Heartbeat, HistoryPage, Message, Setting
from external_oms_config.requests import Token
from external_oms_config.setting_copy import SettingCopy

__all__ = [
    "AsyncClient",
    "ChangeRecord",
    "Client",
    "ConfigurationError",
    "Conflict",
    "ConnectError",
    "Decision",
    "Disconnected",
    "Event",
    "Heartbeat",
    "HistoryPage",
    "InvalidURL",
    "Message",
    "OmsConfigError",
    "Rejected",
    "Setting",
    "SettingCopy",
    "StaleCopy",
    "StatusError",
    "Token",
    "TokenUnavailable",
    "TransportError",
    "UnexpectedResponse",
    "UnknownOutcome",
]
