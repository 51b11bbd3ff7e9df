"""What is served beside the operations: Swagger UI on a page of our own, the documents as they are, links."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import swagger_ui_bundle
import yaml
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router, request_response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.routes import named

PAGE = Path(__file__).parent / "ui"
PAGE_PATH = "/v0/ui/"

_URL_CHARACTERS = "/?:@!$&'()*+,;=%"  # that stand for themselves in a path and a query, or are encoded: RFC 3986
_ALLOWED = ("GET", "HEAD")
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",  # left to guess, a browser goes on with an old page after a release
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}


def pages(
    documents: Mapping[str, bytes], docs_url: str, note: str | None = None, others: Sequence[BaseRoute] = ()
) -> ASGIApp:
    """The application for all paths that no document describes; raises HTTPException 404 where there is nothing.

    The `documents`, by their paths, are served byte for byte, and shown by Swagger UI in this order, with `note` as
    plain text. The contract's relative links, `/docs/…`, lead to the same path and query at `docs_url`. `others` stand
    beside them.
    """
    shown = [{"name": yaml.safe_load(content)["info"]["title"], "url": path} for path, content in documents.items()]

    async def to_page(_request: Request) -> Response:
        return RedirectResponse(PAGE_PATH)

    async def to_docs(request: Request) -> Response:
        # As it was sent: decoded, a path may have a question mark, and lacks what tells one slash from another.
        path, query = request.scope["raw_path"], request.scope["query_string"]
        return RedirectResponse(docs_url + quote(path + (b"?" + query if query else b""), _URL_CHARACTERS))

    async def to_document(request: Request) -> Response:
        return Response(documents[request.url.path], media_type="application/yaml")

    async def to_index(_request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def to_configuration(_request: Request) -> Response:
        return JSONResponse({"urls": shown, "note": note})

    return Router(
        named(
            [
                Route("/", to_page),
                Route(PAGE_PATH.rstrip("/"), to_page),
                Route(PAGE_PATH, Guarded(request_response(to_index))),
                Route(PAGE_PATH + "page.json", Guarded(request_response(to_configuration))),
                Mount(PAGE_PATH + "bundle", Guarded(StaticFiles(directory=str(swagger_ui_bundle.swagger_ui_path)))),
                Mount(PAGE_PATH, Guarded(StaticFiles(directory=PAGE))),
                *(Route(path, to_document) for path in documents),
                Route("/docs/{path:path}", to_docs),
                *others,
            ]
        ),
        redirect_slashes=False,
    )


class Guarded:
    """Files under the page's policy, for reading, and whole: Starlette answers a bad `Range` in words of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        if scope["method"] not in _ALLOWED:
            allow = ", ".join(_ALLOWED)
            raise HTTPException(405, f"Expected one of the methods {allow}.", {"Allow": allow})

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_PAGE_HEADERS)
            await send(message)

        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await self._app({**scope, "headers": headers}, receive, send_guarded)
