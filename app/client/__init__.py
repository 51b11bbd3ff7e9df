"""A client of the service for Python programs.

    from app.client import Client

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
"""

from app.client.async_client import AsyncClient
from app.client.client import Client
from app.client.errors import (
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
from app.client.records import ChangeRecord, Disconnected, Event, Heartbeat, HistoryPage, Setting
from app.client.setting_copy import SettingCopy

__all__ = [
    "AsyncClient",
    "ChangeRecord",
    "Client",
    "ConfigurationError",
    "Conflict",
    "ConnectError",
    "Disconnected",
    "Event",
    "Heartbeat",
    "HistoryPage",
    "InvalidURL",
    "OmsConfigError",
    "Rejected",
    "Setting",
    "SettingCopy",
    "StaleCopy",
    "StatusError",
    "TokenUnavailable",
    "TransportError",
    "UnexpectedResponse",
    "UnknownOutcome",
]
