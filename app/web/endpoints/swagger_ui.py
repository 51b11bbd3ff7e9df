"""Serves Swagger UI on the service's own page, the OpenAPI documents, and redirects."""

import hashlib
import json
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import swagger_ui_bundle
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.endpoints.documents import Document
from app.web.etags import entity_tag, is_not_modified

PAGE = Path(__file__).parent / "ui"
PAGE_PATH = "/v0/ui/"

_URL_CHARACTERS = "/?:@!$&'()*+,;=%"  # not percent-encoded in a path and a query: RFC 3986
_ALLOW = "GET, HEAD, OPTIONS"
# Longest path of a file, in characters. File systems take more than linear time to resolve a path.
_MAX_PATH = 512
_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",  # for browsers without frame-ancestors
}


def undocumented_paths(
    documents: Sequence[Document], docs_url: str, note: str | None = None, more_routes: Sequence[BaseRoute] = ()
) -> ASGIApp:
    """Return the application for all paths that no document describes. It raises HTTPException 404 for unknown paths.

    `documents` are served at their paths. Swagger UI lists their titles in this order, and shows `note` as plain text.
    `/docs/…`, the contract's relative links, redirect to the same path and query at `docs_url`. `more_routes` are
    served in addition.
    """
    urls = [{"name": each.title, "url": f"../..{each.path}"} for each in documents]  # relative to the page

    async def redirect_to_docs(scope: Scope, receive: Receive, send: Send) -> None:
        # The raw path, because decoding would confuse `%3F` with the query and `%2F` with a slash.
        path, query = scope["raw_path"], scope["query_string"]
        target = docs_url + quote(path + (b"?" + query if query else b""), _URL_CHARACTERS)
        await RedirectResponse(target)(scope, receive, send)

    page_files = Files(directory=PAGE, html=True)
    bundle = Files(directory=str(swagger_ui_bundle.swagger_ui_path))
    configuration = json.dumps({"urls": urls, "note": note}).encode()
    endpoints: dict[str, ASGIApp] = {
        # Relative addresses, because a proxy may serve the service below a path.
        "/": RedirectResponse(PAGE_PATH.lstrip("/")),
        PAGE_PATH.rstrip("/"): RedirectResponse("ui/"),
        PAGE_PATH + "page.json": _constant(configuration, "application/json"),
        "/docs/{path:path}": redirect_to_docs,
        **{each.path: _constant(each.content, "application/yaml") for each in documents},
    }
    routes = [
        *(Route(path, PageHeaders(endpoint)) for path, endpoint in endpoints.items()),
        Mount(PAGE_PATH + "bundle", PageHeaders(bundle)),
        Mount(PAGE_PATH, PageHeaders(page_files)),
        *more_routes,
    ]
    return ReadOnly(Router(routes, redirect_slashes=False))


class ReadOnly:
    """Responds to OPTIONS for all paths of `router`, and for the whole server (`*`), as load balancers ask it.

    `router` raises HTTPException 405 for methods other than GET and HEAD. `Allow` of the error is made complete.
    """

    def __init__(self, router: ASGIApp) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["path"] == "*" and scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={"Allow": f"{_ALLOW}, POST"})(scope, receive, send)
            return
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            headers = {**(error.headers or {}), "Allow": _ALLOW}
            if scope["method"] != "OPTIONS":
                raise HTTPException(405, f"Expected one of the methods {_ALLOW}.", headers) from error
            await Response(status_code=204, headers=headers)(scope, receive, send)


def _constant(content: bytes, media_type: str) -> ASGIApp:
    """Return the endpoint for content that is constant during a release, with its digest as `ETag`."""
    digest = hashlib.sha256(content).hexdigest()[:32]
    headers = {"ETag": entity_tag(digest)}
    whole = Response(content, media_type=media_type, headers=headers)
    not_modified = Response(status_code=304, headers=headers)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        response = not_modified if is_not_modified(scope["headers"], digest) else whole
        await response(scope, receive, send)

    return respond


class Files(StaticFiles):
    """The files of a directory. Paths that are longer than `_MAX_PATH` are a 404."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises HTTPException 404 if there is no such file."""
        if len(scope["path"]) > _MAX_PATH:
            raise HTTPException(404)
        await super().__call__(scope, receive, send)


class PageHeaders:
    """Adds the security headers to responses and errors, and allows only GET and HEAD of whole files.

    `Range` is ignored, because Starlette responds to a malformed one with a body that is not the contract's. A response
    with an `ETag` gets `Cache-Control: no-cache`, so that browsers do not keep an old page after a release.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises HTTPException 405 for other methods, and those of the wrapped application."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_SECURITY)
                del headers["Accept-Ranges"]
                if "ETag" in headers:
                    headers["Cache-Control"] = "no-cache"
            await send(message)

        if scope["method"] not in {"GET", "HEAD"}:
            raise HTTPException(405, headers=_SECURITY)
        without_range = [(name, value) for name, value in scope["headers"] if name != b"range"]
        try:
            await self._app({**scope, "headers": without_range}, receive, send_with_headers)
        except HTTPException as error:
            raise HTTPException(error.status_code, error.detail, {**(error.headers or {}), **_SECURITY}) from error
