"""Runs Flask on the event loop, in place of Connexion's FlaskApp.

Connexion's FlaskApp switches threads three times per request. This bridge calls the same methods as `Flask.wsgi_app`
and `Flask.full_dispatch_request`, in the same order, and awaits the result of the view. A view must therefore not
block. Flask's hooks, signals, error handlers and teardown work as under WSGI, but hooks must be plain functions. Flask
3.2 changes the parameters of these methods.
"""

import functools
import inspect
import io
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import flask
from connexion.apps.flask import FlaskApi
from connexion.middleware import SpecMiddleware
from connexion.operations import AbstractOperation
from connexion.spec import Specification
from starlette.types import Receive, Scope, Send
from werkzeug.datastructures import ImmutableDict
from werkzeug.routing import Rule

from app.web.context import request_context
from app.web.contract.views import SCOPE_KEY, View

_CGI_NAMES: Final = {b"content-length": "CONTENT_LENGTH", b"content-type": "CONTENT_TYPE"}
# What is the same in the WSGI environment of every request.
_ENVIRON: Final[Mapping[str, Any]] = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.input_terminated": True,
    "wsgi.multithread": False,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


class BridgedFlask(flask.Flask):
    """Flask subclass that propagates exceptions, and leaves routing to Connexion."""

    default_config = ImmutableDict(
        flask.Flask.default_config | {"PROPAGATE_EXCEPTIONS": True, "TRAP_HTTP_EXCEPTIONS": True}
    )

    def create_url_adapter(self, request: flask.Request | None) -> None:
        """Set the rule of the operation. Without an adapter, Flask does not search for it by path and method."""
        if request is not None:
            operation_id = request_context(request.environ[SCOPE_KEY]).operation_id
            request.url_rule, request.view_args = self._rules[operation_id], {}

    @functools.cached_property
    def _rules(self) -> Mapping[str, Rule]:
        """The rule of each operationId."""
        views = ((rule, self.view_functions[rule.endpoint]) for rule in self.url_map.iter_rules())
        return {view.operation_id: rule for rule, view in views if isinstance(view, View)}

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`: the bridge awaits views, and hooks are plain functions."""
        return func


class BridgedApi(FlaskApi):
    """Connexion's API class, with one View per operation. Connexion would wrap the function at each request."""

    def make_operation(self, operation: AbstractOperation) -> View:
        """Return the view of one operation of the document."""
        return View(operation)


class FlaskBridge(SpecMiddleware):
    """ASGI application that runs a Flask application. Connexion registers the OpenAPI documents on it."""

    def __init__(self, flask_app: flask.Flask) -> None:
        self.app = flask_app

    def add_api(self, specification: Specification, *, name: str | None = None, **options: Any) -> None:
        """Add the operations of a document. Connexion calls it once per document."""
        api = BridgedApi(specification, **options)
        self.app.register_blueprint(api.blueprint, name=name or api.blueprint.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        response = await self._dispatch(environ_of(scope))
        try:
            # The headers from the view are complete. `get_wsgi_response` would process them again, for 6 to 10 µs.
            headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
            stream = request_context(scope).event_stream
            if stream is not None and scope["method"] != "HEAD":
                stream.status, stream.headers = response.status_code, headers
            else:
                body = b"".join(response.iter_encoded())
                await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
                await send({"type": "http.response.body", "body": body})
        finally:
            response.close()

    async def _dispatch(self, environ: dict[str, Any]) -> flask.Response:
        """Do what `Flask.wsgi_app` does, except calling the response."""
        with self.app.request_context(environ):
            try:
                return await self._full_dispatch_request()
            except Exception as error:
                return self.app.handle_exception(error)  # raises it again: PROPAGATE_EXCEPTIONS

    async def _full_dispatch_request(self) -> flask.Response:
        """Do what `Flask.full_dispatch_request` does, and await the view."""
        try:
            flask.request_started.send(self.app, _async_wrapper=self.app.ensure_sync)
            result: Any = self.app.preprocess_request()
            if result is None:
                result = self.app.dispatch_request()
                if inspect.isawaitable(result):
                    result = await result
        except Exception as raised:
            result = self.app.handle_user_exception(raised)
        return self.app.finalize_request(result)


def environ_of(scope: Scope) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of a request. Its body is the one that validation has read, or empty.

    Headers with an underscore are left out, because they would get the names of other headers. `Upgrade` is left out,
    because Werkzeug would only match web socket rules, and there are none.
    """
    host, port = scope.get("server") or ("localhost", None)
    environ: dict[str, Any] = {
        **_ENVIRON,
        SCOPE_KEY: scope,
        "REQUEST_METHOD": scope["method"],
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 0),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("",))[0],
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(request_context(scope).body_bytes),
        "wsgi.errors": sys.stderr,
    }
    for name, value in scope["headers"]:
        if name == b"upgrade" or b"_" in name:
            continue
        key = _CGI_NAMES.get(name) or f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ
