"""Flask on the event loop, in place of Connexion's FlaskApp, with nothing but function calls between the two.

Connexion's own bridge takes three thread hops a request. Here the very methods that `Flask.wsgi_app` and
`Flask.full_dispatch_request` call are called in the same order, and what a view returns is awaited. A view must
therefore not block. Flask's hooks, signals, error handlers and teardown work as they do under WSGI; hooks are plain
functions. Flask 3.2 gives these methods other arguments.
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
from app.web.contract.views import SCOPE_KEY, StreamingResponse, View

_CGI_NAMES = {b"content-length": "CONTENT_LENGTH", b"content-type": "CONTENT_TYPE"}


class BridgedFlask(flask.Flask):
    """Flask subclass that propagates exceptions and ignores the Host header."""

    default_config = ImmutableDict(
        flask.Flask.default_config
        | {"PROPAGATE_EXCEPTIONS": True, "TRAP_BAD_REQUEST_ERRORS": True, "TRAP_HTTP_EXCEPTIONS": True}
    )

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """What finds the rule for a request's path.

        Flask's own reads the host and encodes it, for rules that have one and to build addresses; it costs 7 to 12 µs.
        """
        if request is None:
            return None
        server = request.environ["SERVER_NAME"]
        return MapAdapter(self.url_map, server, "", "", request.scheme, request.path, request.method)


class BridgedApi(FlaskApi):
    """Binds each operation to its view once. Connexion's own wraps it anew at each request."""

    def make_operation(self, operation: AbstractOperation) -> View:
        """The view of one operation of the document."""
        return View(operation)


class FlaskBridge(SpecMiddleware):
    """ASGI application that runs a Flask application, and registers OpenAPI documents on it for Connexion."""

    def __init__(self, flask_app: flask.Flask) -> None:
        self.app = flask_app

    def add_api(self, specification: Specification, *, name: str | None = None, **options: Any) -> None:
        """Add the operations of a document. Connexion calls it once for each."""
        api = BridgedApi(specification, **options)
        self.app.register_blueprint(api.blueprint, name=name or api.blueprint.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        response, status, headers, body = await self._answer(scope)
        try:
            if isinstance(response, StreamingResponse) and scope["method"] != "HEAD":
                request_context(scope).event_stream = response.detach(status, headers)
            else:
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
        finally:
            response.close()

    async def _answer(self, scope: Scope) -> tuple[flask.Response, int, list[tuple[bytes, bytes]], bytes]:
        environ = environ_of(scope)
        response = await self._dispatch(environ)
        # As the view has made them: `get_wsgi_response` would go through them once more, for 6 to 10 µs.
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        return response, response.status_code, headers, b"".join(response.iter_encoded())

    async def _dispatch(self, environ: dict[str, Any]) -> flask.Response:
        """`Flask.wsgi_app`, less the call of the response."""
        context = self.app.request_context(environ)
        error: BaseException | None = None
        try:
            try:
                context.push()
                return await self._full_dispatch_request()
            except Exception as raised:
                error = raised
                return self.app.handle_exception(raised)
            except BaseException as raised:
                error = raised
                raise
        finally:
            context.pop(None if error is not None and self.app.should_ignore_error(error) else error)

    async def _full_dispatch_request(self) -> flask.Response:
        """`Flask.full_dispatch_request`, with the view awaited."""
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
    """The WSGI environment (PEP 3333) of a request, with the body as far as validation has read it.

    A body that nobody asked for is not read. Headers with an underscore are left out: in an environment they would
    pass for others. So is `Upgrade`: Werkzeug would look for web socket rules, and there are none.
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
