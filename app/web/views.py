"""From an operation to the view that Flask calls for it: arguments in, answer out."""

import functools
import inspect
import json
from collections.abc import Awaitable

import flask
from connexion.context import context
from connexion.operations import AbstractOperation

from app.model import Setting

_FROM_CONTEXT = frozenset({"principal", "request_id"})


class View:
    """Calls one operation with the arguments that its signature names.

    `principal` and `request_id` come from the request's context, every other name from the body, where the document
    has to require it. A name that neither can give is a TypeError at start.
    """

    def __init__(self, operation: AbstractOperation) -> None:
        self._operation = operation.function
        wanted = inspect.signature(self._operation).parameters.keys()
        self._from_context = tuple(wanted & _FROM_CONTEXT)
        self._from_body = tuple(wanted - _FROM_CONTEXT)
        unknown = set(self._from_body) - set(operation.body_schema().get("required", ()))
        if unknown:
            raise TypeError(f"{operation.operation_id}: nothing fills the arguments {sorted(unknown)}")

    def __call__(self) -> Awaitable[flask.Response]:
        """A coroutine for the bridge to await; were this a coroutine function, Flask would look for a thread."""
        return self._answer()

    async def _answer(self) -> flask.Response:
        arguments = {name: context[name] for name in self._from_context}
        arguments |= {name: context["body"][name] for name in self._from_body}
        return answer(await self._operation(**arguments))


@functools.singledispatch
def answer(result: object) -> flask.Response:
    """The answer that tells a client of an operation's result."""
    raise TypeError(f"no answer is defined for {type(result).__name__}")


@answer.register
def _(result: Setting) -> flask.Response:
    return flask.Response(json.dumps({"enabled": result.enabled}), content_type="application/json")
