"""What is served beside the operations: Swagger UI on a page of our own, the documents as they are, links."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import swagger_ui_bundle
import yaml
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.web.etags import entity_tag, is_not_modified
from app.web.route_names import named

PAGE = Path(__file__).parent / "ui"
PAGE_PATH = "/v0/ui/"

_URL_CHARACTERS = "/?:@!$&'()*+,;=%"  # that stand for themselves in a path and a query, or are encoded: RFC 3986
_ALLOWED = ("GET", "HEAD")
# In characters, of a file below the page. The time that the file system takes for a path grows faster than its length.
_MAX_PATH = 512
_PROTECTION = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",  # for browsers that do not have frame-ancestors
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

    async def to_docs(scope: Scope, receive: Receive, send: Send) -> None:
        # As it was sent: decoded, a path may have a question mark, and lacks what tells one slash from another.
        path, query = scope["raw_path"], scope["query_string"]
        target = docs_url + quote(path + (b"?" + query if query else b""), _URL_CHARACTERS)
        await RedirectResponse(target)(scope, receive, send)

    page_files = Files(directory=PAGE, html=True)
    bundle = Files(directory=str(swagger_ui_bundle.swagger_ui_path))
    configuration = json.dumps({"urls": shown, "note": note}).encode()
    endpoints: dict[str, ASGIApp] = {
        "/": RedirectResponse(PAGE_PATH),
        PAGE_PATH.rstrip("/"): RedirectResponse(PAGE_PATH),
        PAGE_PATH + "page.json": _fixed(configuration, "application/json"),
        "/docs/{path:path}": to_docs,
        **{path: _fixed(content, "application/yaml") for path, content in documents.items()},
    }
    return Router(
        named(
            [
                *(Route(path, PageHeaders(endpoint)) for path, endpoint in endpoints.items()),
                Mount(PAGE_PATH + "bundle", PageHeaders(bundle)),
                Mount(PAGE_PATH, PageHeaders(page_files)),
                *others,
            ]
        ),
        redirect_slashes=False,
    )


def _fixed(content: bytes, media_type: str) -> ASGIApp:
    """Return the endpoint of content that stays the same until the next release, with its digest as `ETag`."""
    digest = hashlib.sha256(content).hexdigest()[:32]
    headers = {"ETag": entity_tag(digest)}
    whole = Response(content, media_type=media_type, headers=headers)
    not_modified = Response(status_code=304, headers=headers)

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        response = not_modified if is_not_modified(scope["headers"], digest) else whole
        await response(scope, receive, send)

    return respond


class Files(StaticFiles):
    """The files of a directory; 404 for paths that are longer than any of theirs."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request. Raises HTTPException 404 if there is no such file."""
        if len(scope["path"]) > _MAX_PATH:
            raise HTTPException(404)
        await super().__call__(scope, receive, send)


class PageHeaders:
    """Adds the page's protective headers to responses and errors, and serves files whole, for reading only.

    Starlette answers a bad `Range` with a body that is not the contract's, so no range is served or offered. A response
    with a validator gets `Cache-Control: no-cache`: if a browser has to guess, it keeps an old page after a release.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_PROTECTION)
                del headers["Accept-Ranges"]
                if "ETag" in headers:
                    headers["Cache-Control"] = "no-cache"
            await send(message)

        if scope["method"] not in _ALLOWED:
            allow = ", ".join(_ALLOWED)
            raise HTTPException(405, f"Expected one of the methods {allow}.", {"Allow": allow, **_PROTECTION})
        kept = [(name, value) for name, value in scope["headers"] if name != b"range"]
        try:
            await self._app({**scope, "headers": kept}, receive, send_guarded)
        except HTTPException as error:
            raise HTTPException(error.status_code, error.detail, {**(error.headers or {}), **_PROTECTION}) from error
