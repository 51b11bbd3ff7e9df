"""Runs Flask on the event loop, in place of Connexion's FlaskApp.

Connexion's FlaskApp switches threads three times per request. This bridge calls the same methods as `Flask.wsgi_app`
and `Flask.full_dispatch_request`, in the same order, and awaits the result of the view. A view must therefore not
block. Flask's hooks, signals, error handlers and teardown work as under WSGI, but hooks must be plain functions. Flask
3.2 changes the parameters of these methods.
"""

import inspect
import io
import sys
from typing import Any

import flask
from connexion.apps.flask import FlaskApi
from connexion.middleware import SpecMiddleware
from connexion.operations import AbstractOperation
from connexion.spec import Specification
from starlette.types import Receive, Scope, Send
from werkzeug.datastructures import ImmutableDict
from werkzeug.routing import MapAdapter

from app.web.context import request_context
from app.web.contract.views import SCOPE_KEY, View

_CGI_NAMES = {b"content-length": "CONTENT_LENGTH", b"content-type": "CONTENT_TYPE"}


class BridgedFlask(flask.Flask):
    """Flask subclass that propagates exceptions and ignores the Host header."""

    default_config = ImmutableDict(
        flask.Flask.default_config | {"PROPAGATE_EXCEPTIONS": True, "TRAP_HTTP_EXCEPTIONS": True}
    )

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """Return the adapter that matches a request's path to a rule, without the Host header.

        Flask's method reads and encodes the host, which no rule needs. That takes 7 to 12 µs.
        """
        if request is None:
            return None
        server = request.environ["SERVER_NAME"]
        return MapAdapter(self.url_map, server, "", "", request.scheme, request.path, request.method)


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
        SCOPE_KEY: scope,
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 0),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("",))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(request_context(scope).body_bytes),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        if name == b"upgrade" or b"_" in name:
            continue
        key = _CGI_NAMES.get(name) or f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}"
        text = value.decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ
