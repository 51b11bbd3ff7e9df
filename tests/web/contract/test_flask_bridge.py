"""The bridge compared with plain Flask: the same application makes the same calls in both."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import flask
import pytest
from werkzeug.test import Client as WerkzeugClient

from app.web.context import request_context
from app.web.contract.flask_bridge import FlaskBridge, environ_of
from tests.conftest import Run

Calls = list[tuple[Any, ...]]
View = Callable[[], Any]


class UnhandledError(Exception):
    pass


class Closing(flask.Response):
    """A response that records its close."""

    calls: Calls

    def close(self) -> None:
        super().close()
        self.calls.append(("closed",))


def run_plain_flask(request: str) -> tuple[Calls, Any]:
    """Return the calls and the answer, or the error, of plain Flask."""
    calls: Calls = []
    app = make_app(calls, sync_view(calls))
    client = WerkzeugClient(app)
    try:
        response = client.get(request)
    except Exception as error:
        return calls, repr(error)
    answer = (response.status_code, response.get_data(), response.headers.to_wsgi_list())
    response.close()
    return calls, answer


def run_bridge(run: Run, request: str) -> tuple[Calls, Any]:
    """Return the calls and the answer, or the error, of the bridge."""
    calls: Calls = []
    app = make_app(calls, awaited_view(calls))
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path, _, query = request.partition("?")
    try:
        run(FlaskBridge(app)(scope_of(path, query), None, send))  # type: ignore[arg-type]
    except Exception as error:
        return calls, repr(error)
    headers = [(name.decode().title(), value.decode()) for name, value in sent[0]["headers"]]
    return calls, (sent[0]["status"], sent[1]["body"], headers)


def scope_of(path: str, query: str = "", **more: Any) -> dict[str, Any]:
    return {
        "type": "http", "method": "GET", "path": path, "query_string": query.encode(), "http_version": "1.1",
        "headers": [(b"host", b"localhost")], "server": ("localhost", 80), **more,
    }  # fmt: skip


def sync_view(calls: Calls) -> View:
    def view() -> Any:
        return respond(calls)

    return view


def awaited_view(calls: Calls) -> View:
    def view() -> Awaitable[Any]:
        async def answer() -> Any:
            await asyncio.sleep(0)
            return respond(calls)

        return answer()

    return view


def respond(calls: Calls) -> Any:
    calls.append(("view", flask.request.path, flask.g.get("before")))
    match flask.request.args.get("do"):
        case "raise":
            raise UnhandledError("unhandled")
        case "handled":
            raise KeyError("handled")
        case "abort":
            flask.abort(418)
        case "after":
            flask.g.break_after = True
        case "tuple":
            return {"made": "by Flask"}, 201, {"X-Own": "yes"}
        case "none":
            return None
    response = Closing("good")
    response.calls = calls
    return response


def make_app(calls: Calls, view: View) -> flask.Flask:
    """Make an application that records every call that Flask makes."""
    app = flask.Flask("recorded", static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.add_url_rule("/view", "view", view)
    add_hooks(app, calls)
    connect_signals(app, calls)
    return app


def add_hooks(app: flask.Flask, calls: Calls) -> None:

    @app.before_request
    def before() -> Any:
        calls.append(("before",))
        flask.g.before = "set"
        return "short cut" if flask.request.args.get("do") == "short" else None

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        calls.append(("after", response.status_code))
        if flask.g.get("break_after"):
            raise UnhandledError("after")
        return response

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        calls.append(("teardown", repr(error)))

    @app.teardown_appcontext
    def teardown_context(error: BaseException | None) -> None:
        calls.append(("teardown context", repr(error)))

    @app.errorhandler(KeyError)
    def handled(error: KeyError) -> Any:
        calls.append(("handler", repr(error)))
        return "handled", 409


def connect_signals(app: flask.Flask, calls: Calls) -> None:
    def recorder(name: str) -> Callable[..., None]:
        def receiver(_sender: object, **arguments: Any) -> None:
            calls.append((name, repr(arguments.get("exception"))))

        return receiver

    receivers = {
        flask.request_started: recorder("started"),
        flask.request_finished: recorder("finished"),
        flask.got_request_exception: recorder("exception"),
        flask.request_tearing_down: recorder("tearing down"),
        flask.appcontext_pushed: recorder("pushed"),
        flask.appcontext_popped: recorder("popped"),
    }
    for signal, receiver in receivers.items():
        signal.connect(receiver, app, weak=False)


@pytest.mark.parametrize("do", ["", "raise", "handled", "abort", "after", "tuple", "none", "short"])
def test_each_outcome_matches_plain_flask(run: Run, do: str) -> None:
    calls, answered = run_plain_flask(f"/view?do={do}")
    assert run_bridge(run, f"/view?do={do}") == (calls, answered)
    assert ("started", "None") in calls


def test_unknown_path_matches_plain_flask(run: Run) -> None:
    assert run_bridge(run, "/other") == run_plain_flask("/other")


def test_a_response_is_closed_when_it_cannot_be_sent(run: Run) -> None:
    calls: Calls = []

    async def broken(_message: object) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        run(FlaskBridge(make_app(calls, awaited_view(calls)))(scope_of("/view"), None, broken))  # type: ignore[arg-type]
    assert calls[-1] == ("closed",)


def test_a_cancelled_request_is_torn_down_with_its_cancellation(run: Run) -> None:
    calls: Calls = []

    async def cancel() -> None:
        bridge = FlaskBridge(make_app(calls, lambda: asyncio.Event().wait()))
        task = asyncio.create_task(bridge(scope_of("/view"), None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancel())
    assert ("teardown", "CancelledError()") in calls


def test_concurrent_requests_have_separate_contexts(run: Run) -> None:
    seen = []

    async def answer() -> str:
        flask.g.own = flask.request.args["n"]
        await asyncio.sleep(0)
        seen.append((flask.g.own, flask.request.args["n"]))
        return "good"

    def view() -> Awaitable[str]:
        return answer()

    async def both() -> None:
        bridge = FlaskBridge(make_app([], view))

        async def send(_message: object) -> None:
            pass

        await asyncio.gather(*(bridge(scope_of("/view", f"n={n}"), None, send) for n in range(10)))  # type: ignore[arg-type]

    run(both())
    assert seen == [(str(n), str(n)) for n in range(10)]


BODY = b'{"enabled": true}'


@pytest.mark.parametrize("framing", [(b"content-length", b"17"), (b"transfer-encoding", b"chunked")])
def test_flask_sees_the_body_that_validation_has_read(framing: tuple[bytes, bytes]) -> None:
    scope = scope_of("/view")
    request_context(scope).body_bytes = BODY
    scope["headers"] += [framing, (b"content-type", b"application/json")]
    with flask.Flask("body").request_context(environ_of(scope)):
        assert flask.request.get_data() == BODY
        assert flask.request.get_json() == {"enabled": True}


def test_environ_matches_that_of_a_wsgi_server() -> None:
    headers = [
        (b"host", b"api.example:8000"),
        (b"x-own", b"a"),
        (b"x-own", b"b"),
        (b"x_own", b"evil"),
        (b"upgrade", b"websocket"),
    ]
    environ = environ_of(
        scope_of("/a ä", "x=%20", headers=headers, method="POST", scheme="https", client=("192.0.2.1", 5))
    )
    expected = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/a Ã¤", "QUERY_STRING": "x=%20",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "https",
        "HTTP_HOST": "api.example:8000", "HTTP_X_OWN": "a,b",
    }  # fmt: skip
    assert expected.items() <= environ.items()
    assert "HTTP_UPGRADE" not in environ
    assert environ["asgi.scope"]["method"] == "POST"  # the view reads the request's context from there
