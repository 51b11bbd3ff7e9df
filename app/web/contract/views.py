"""From an operation to the view that Flask calls for it: arguments in, answer out."""

import functools
import inspect
import json
from collections.abc import AsyncIterator, Callable
from typing import Final

import flask
from connexion.operations import AbstractOperation
from starlette.types import Scope
from werkzeug.datastructures import Headers

from app.feed.feed import Subscriber
from app.model import Evaluation, Evaluations, History, Setting
from app.web.change_json import change_fields
from app.web.context import EventStream, Header, request_context
from app.web.contract.parameters import argument_name
from app.web.etags import entity_tag, if_match, is_not_modified
from app.web.ofrep import evaluation_fields
from app.web.sse import EVENT_STREAM_HEADERS, event_stream

_FROM_CONTEXT = frozenset({"principal", "request_id"})
_FROM_IF_MATCH = "expected"


# Where the bridge puts the ASGI scope into the WSGI environment.
SCOPE_KEY: Final = "asgi.scope"


def _encoded(content: object) -> bytes:
    return json.dumps(content).encode()


_SETTINGS = {enabled: _encoded({"enabled": enabled}) for enabled in (False, True)}
_JSON = ("Content-Type", "application/json")
_NO_STORE = ("Cache-Control", "no-store")  # it is for the token's owner alone, and soon not true


class View:
    """Calls one operation with the arguments that its signature names.

    `principal` and `request_id` come from the request's context, `expected` from its `If-Match`, parameters that the
    document declares from the path, the query or a header, every other name from the body, where the document has to
    require it. A name that nothing can give is a TypeError at start.
    """

    def __init__(self, operation: AbstractOperation) -> None:
        self._operation = operation.function
        wanted = inspect.signature(self._operation).parameters.keys()
        declared = {argument_name(parameter["name"]) for parameter in operation.parameters}
        self._from_context = tuple(wanted & _FROM_CONTEXT)
        self._is_conditional = _FROM_IF_MATCH in wanted
        self._from_parameters = tuple(wanted & declared)
        self._from_body = tuple(wanted - _FROM_CONTEXT - declared - {_FROM_IF_MATCH})
        unknown = set(self._from_body) - set(operation.body_schema().get("required", ()))
        if unknown:
            raise TypeError(f"{operation.operation_id}: nothing fills the arguments {sorted(unknown)}")

    async def __call__(self, **_path_parameters: str) -> flask.Response:
        """Called by Flask; what it has read from the path is in the request's context already."""
        scope: Scope = flask.request.environ[SCOPE_KEY]
        context = request_context(scope)
        arguments = {name: getattr(context, name) for name in self._from_context}
        if self._from_parameters:
            arguments |= {name: context.parameters[name] for name in self._from_parameters}
        if self._from_body:
            arguments |= {name: context.body[name] for name in self._from_body}
        if self._is_conditional:
            arguments[_FROM_IF_MATCH] = if_match(scope["headers"])
        return answer(await self._operation(**arguments), scope)


class StreamingResponse(flask.Response):
    """A response whose body is `chunks`, ended by `end`. Closing it calls `end`, unless the stream was detached."""

    def __init__(self, chunks: AsyncIterator[bytes], end: Callable[[], object], headers: Headers) -> None:
        super().__init__(iter(()), headers=headers)  # Werkzeug sets the length of a sequence
        self._chunks = chunks
        self._end: Callable[[], object] | None = end

    def detach(self, status: int, headers: list[Header]) -> EventStream:
        """Return the stream, which the caller must send or end. May be called once."""
        if self._end is None:
            raise RuntimeError("the stream was detached before")
        stream, self._end = EventStream(status, headers, self._chunks, self._end), None
        return stream

    def close(self) -> None:
        """End the stream, unless it was detached."""
        super().close()
        if self._end is not None:
            self._end()


@functools.singledispatch
def answer(result: object, _scope: Scope) -> flask.Response:
    """The answer that tells the client, whose request is in the scope, of an operation's result."""
    raise TypeError(f"no answer is defined for {type(result).__name__}")


@answer.register
def _(result: Setting, scope: Scope) -> flask.Response:
    tag = ("ETag", entity_tag(result.version))
    if scope["method"] in {"GET", "HEAD"} and is_not_modified(scope["headers"], result.version):
        return _not_modified(tag)
    return _json(_SETTINGS[result.enabled], tag)


@answer.register
def _(result: History, _scope: Scope) -> flask.Response:
    changes = [{**change_fields(change), "request_id": change.author.request_id} for change in result.changes]
    return _json(_encoded({"changes": changes}))


@answer.register
def _(result: Evaluation, _scope: Scope) -> flask.Response:
    return _json(_encoded(evaluation_fields(result)))


@answer.register
def _(result: Evaluations, scope: Scope) -> flask.Response:
    tag = ("ETag", entity_tag(result.version))
    if is_not_modified(scope["headers"], result.version):  # OFREP has it for POST
        return _not_modified(tag)
    return _json(_encoded({"flags": [evaluation_fields(flag) for flag in result.flags]}), tag)


@answer.register
def _(result: Subscriber, scope: Scope) -> flask.Response:
    expiry = request_context(scope).token_expiry
    if expiry is None:
        raise TypeError("an event stream needs a token that ends it")
    headers = Headers([_NO_STORE, *EVENT_STREAM_HEADERS.items()])
    return StreamingResponse(event_stream(result, expiry), result.end, headers)


def _not_modified(tag: tuple[str, str]) -> flask.Response:
    response = flask.Response(status=304, headers=Headers([_NO_STORE, tag]))
    del response.headers["Content-Type"]  # there is none: RFC 9110, section 15.4.5
    return response


def _json(content: bytes, *headers: tuple[str, str]) -> flask.Response:
    length = ("Content-Length", str(len(content)))
    return flask.Response([content], headers=Headers([_JSON, length, _NO_STORE, *headers]))
