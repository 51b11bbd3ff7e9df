"""The views that Flask calls: they collect an operation's arguments, call it and build the response."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import flask
from connexion.operations import AbstractOperation
from starlette.types import Scope
from werkzeug.datastructures import Headers

from app.feed.subscriber import Subscriber
from app.model import Author, Evaluation, Evaluations, History, Setting
from app.web.change_json import change_fields
from app.web.change_reason import change_reason
from app.web.context import EventStream, RequestContext, request_context
from app.web.contract.parameters import argument_name
from app.web.etags import entity_tag, expected_versions, is_not_modified
from app.web.middleware.trace_context import trace_of
from app.web.ofrep import bulk_evaluation_fields, evaluation_fields
from app.web.sse import EVENT_STREAM_HEADERS, event_stream

# The key in the WSGI environment under which the bridge puts the ASGI scope.
SCOPE_KEY: Final = "asgi.scope"


def _encoded(content: object) -> bytes:
    return json.dumps(content).encode()


_SETTINGS = {enabled: _encoded({"enabled": enabled}) for enabled in (False, True)}
_JSON = ("Content-Type", "application/json")
# A response is for one tenant only, and may be out of date soon. A proxy that compresses it would change or remove its
# ETag, or delay events.
_NO_STORE = ("Cache-Control", "no-store, no-transform")


def _author(context: RequestContext, scope: Scope) -> Author:
    subject = None if context.principal is None else context.principal.subject
    return Author(subject, context.request_id, change_reason(scope["headers"]), trace_of(scope).get("trace_id"))


_FROM_REQUEST: Mapping[str, Callable[[RequestContext, Scope], object]] = {
    "principal": lambda context, _: context.principal,
    "author": _author,
    "expected": lambda _, scope: expected_versions(scope["headers"]),
}


class View:
    """Calls one operation with the arguments that its signature names.

    `principal` and `author` come from the request's context, `expected` from the conditional headers. An argument with
    the name of a declared parameter gets its value. Every other argument comes from the body, whose schema must require
    it. Raises TypeError at start for an argument without a source.
    """

    def __init__(self, operation: AbstractOperation) -> None:
        self.operation_id: str = operation.operation_id
        self._operation = operation.function
        arguments = inspect.signature(self._operation).parameters.keys()
        declared = {argument_name(parameter["name"]) for parameter in operation.parameters}
        self._from_request = tuple((name, _FROM_REQUEST[name]) for name in arguments & _FROM_REQUEST.keys())
        self._from_parameters = tuple(arguments & declared)
        self._from_body = tuple(arguments - _FROM_REQUEST.keys() - declared)
        unknown = set(self._from_body) - set(operation.body_schema().get("required", ()))
        if unknown:
            raise TypeError(f"{operation.operation_id}: no parameter or required property for {sorted(unknown)}")

    async def __call__(self, **_path_parameters: str) -> flask.Response:
        """Handle one request. Path parameters are in the request's context already, so those from Flask are ignored."""
        scope: Scope = flask.request.environ[SCOPE_KEY]
        context = request_context(scope)
        # Loops, because Python 3.11 calls a function for each comprehension.
        arguments: dict[str, Any] = {}
        for name, read in self._from_request:
            arguments[name] = read(context, scope)
        for name in self._from_parameters:
            arguments[name] = context.parameters[name]
        for name in self._from_body:
            arguments[name] = context.body[name]
        return response_for(await self._operation(**arguments), scope)


@functools.singledispatch
def response_for(result: object, _scope: Scope) -> flask.Response:
    """Return the response to the request in the scope for the result of its operation."""
    raise TypeError(f"no response is registered for {type(result).__name__}")


@response_for.register
def _(result: Setting, scope: Scope) -> flask.Response:
    tag = ("ETag", entity_tag(result.version))
    if scope["method"] in {"GET", "HEAD"} and is_not_modified(scope["headers"], result.version):
        return _not_modified(tag)
    return _json(_SETTINGS[result.enabled], tag)


@response_for.register
def _(result: History, _scope: Scope) -> flask.Response:
    changes = [{**change_fields(change), "request_id": change.author.request_id} for change in result.changes]
    return _json(_encoded({"tenant": result.tenant, "changes": changes}))


@response_for.register
def _(result: Evaluation, _scope: Scope) -> flask.Response:
    return _json(_encoded(evaluation_fields(result)))


@response_for.register
def _(result: Evaluations, scope: Scope) -> flask.Response:
    tag = ("ETag", entity_tag(result.version))
    if is_not_modified(scope["headers"], result.version):  # also for POST, as OFREP defines
        return _not_modified(tag)
    return _json(_encoded(bulk_evaluation_fields(result)), tag)


@response_for.register
def _(result: Subscriber, scope: Scope) -> flask.Response:
    context = request_context(scope)
    if context.token_expiry is None:
        raise TypeError("an event stream requires a token, whose expiry ends it")
    context.event_stream = EventStream(event_stream(result, context.token_expiry), result.end)
    # An iterator, because Werkzeug sets Content-Length for a list.
    return flask.Response(iter(()), headers=Headers([_NO_STORE, *EVENT_STREAM_HEADERS.items()]))


def _not_modified(tag: tuple[str, str]) -> flask.Response:
    response = flask.Response(status=304, headers=Headers([_NO_STORE, tag]))
    del response.headers["Content-Type"]  # a 304 has no content: RFC 9110, section 15.4.5
    return response


def _json(content: bytes, *headers: tuple[str, str]) -> flask.Response:
    length = ("Content-Length", str(len(content)))
    return flask.Response([content], headers=Headers([_JSON, length, _NO_STORE, *headers]))
