"""The bridge against plain Flask: the same application, run both ways, has to tell the same story."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import flask
import pytest
from werkzeug.test import Client as WerkzeugClient

from app.web.context import request_context
from app.web.contract.flask_bridge import FlaskBridge, environ_of
from tests.conftest import Run

Story = list[tuple[Any, ...]]
View = Callable[[], Any]


class Oops(Exception):
    pass


class Closing(flask.Response):
    """A response that tells when it is closed."""

    story: Story

    def close(self) -> None:
        super().close()
        self.story.append(("closed",))


def plain(request: str) -> tuple[Story, Any]:
    story: Story = []
    app = make_app(story, sync_view(story))
    client = WerkzeugClient(app)
    try:
        response = client.get(request)
    except Exception as error:
        return story, repr(error)
    answer = (response.status_code, response.get_data(), response.headers.to_wsgi_list())
    response.close()
    return story, answer


def bridged(run: Run, request: str) -> tuple[Story, Any]:
    story: Story = []
    app = make_app(story, awaited_view(story))
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path, _, query = request.partition("?")
    try:
        run(FlaskBridge(app)(scope_of(path, query), None, send))  # type: ignore[arg-type]
    except Exception as error:
        return story, repr(error)
    headers = [(name.decode().title(), value.decode()) for name, value in sent[0]["headers"]]
    return story, (sent[0]["status"], sent[1]["body"], headers)


def scope_of(path: str, query: str = "", **more: Any) -> dict[str, Any]:
    return {
        "type": "http", "method": "GET", "path": path, "query_string": query.encode(), "http_version": "1.1",
        "headers": [(b"host", b"localhost")], "server": ("localhost", 80), **more,
    }  # fmt: skip


def sync_view(story: Story) -> View:
    def view() -> Any:
        return behave(story)

    return view


def awaited_view(story: Story) -> View:
    def view() -> Awaitable[Any]:
        async def answer() -> Any:
            await asyncio.sleep(0)
            return behave(story)

        return answer()

    return view


def behave(story: Story) -> Any:
    story.append(("view", flask.request.path, flask.g.get("before")))
    match flask.request.args.get("do"):
        case "raise":
            raise Oops("unhandled")
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
    response.story = story
    return response


def make_app(story: Story, view: View) -> flask.Flask:
    """An application in which everything that Flask calls tells of it."""
    app = flask.Flask("told", static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.add_url_rule("/view", "view", view)
    add_hooks(app, story)
    connect_signals(app, story)
    return app


def add_hooks(app: flask.Flask, story: Story) -> None:

    @app.before_request
    def before() -> Any:
        story.append(("before",))
        flask.g.before = "set"
        return "short cut" if flask.request.args.get("do") == "short" else None

    @app.after_request
    def after(response: flask.Response) -> flask.Response:
        story.append(("after", response.status_code))
        if flask.g.get("break_after"):
            raise Oops("after")
        return response

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        story.append(("teardown", repr(error)))

    @app.teardown_appcontext
    def teardown_context(error: BaseException | None) -> None:
        story.append(("teardown context", repr(error)))

    @app.errorhandler(KeyError)
    def handled(error: KeyError) -> Any:
        story.append(("handler", repr(error)))
        return "handled", 409


def connect_signals(app: flask.Flask, story: Story) -> None:
    def tell(name: str) -> Callable[..., None]:
        def receiver(_sender: object, **arguments: Any) -> None:
            story.append((name, repr(arguments.get("exception"))))

        return receiver

    receivers = {
        flask.request_started: tell("started"),
        flask.request_finished: tell("finished"),
        flask.got_request_exception: tell("exception"),
        flask.request_tearing_down: tell("tearing down"),
        flask.appcontext_pushed: tell("pushed"),
        flask.appcontext_popped: tell("popped"),
    }
    for signal, receiver in receivers.items():
        signal.connect(receiver, app, weak=False)


@pytest.mark.parametrize("do", ["", "raise", "handled", "abort", "after", "tuple", "none", "short"])
def test_each_path_through_flask_is_the_same(run: Run, do: str) -> None:
    told, answered = plain(f"/view?do={do}")
    assert bridged(run, f"/view?do={do}") == (told, answered)
    assert ("started", "None") in told


def test_a_path_that_flask_does_not_know_is_the_same(run: Run) -> None:
    assert bridged(run, "/other") == plain("/other")


def test_an_error_that_flask_is_told_to_ignore_is_kept_from_the_teardown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flask.Flask, "should_ignore_error", lambda _app, _error: True)
    told, answered = plain("/view?do=raise")
    assert bridged(run, "/view?do=raise") == (told, answered)
    assert ("teardown", "None") in told


def test_a_response_is_closed_when_it_cannot_be_sent(run: Run) -> None:
    story: Story = []

    async def broken(_message: object) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        run(FlaskBridge(make_app(story, awaited_view(story)))(scope_of("/view"), None, broken))  # type: ignore[arg-type]
    assert story[-1] == ("closed",)


def test_a_cancelled_request_is_torn_down_with_its_cancellation(run: Run) -> None:
    story: Story = []

    async def cancel() -> None:
        bridge = FlaskBridge(make_app(story, lambda: asyncio.Event().wait()))
        task = asyncio.create_task(bridge(scope_of("/view"), None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(cancel())
    assert ("teardown", "CancelledError()") in story


def test_two_requests_at_once_have_contexts_of_their_own(run: Run) -> None:
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


def test_the_environment_is_what_a_wsgi_server_would_make() -> None:
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
    assert environ["asgi.scope"]["method"] == "POST"  # the view finds the request's context there
