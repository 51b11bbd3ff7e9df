"""Builds the application from its parts. Wiring only: every decision is made in the parts."""

import asyncio
import contextlib
import functools
import gc
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth.jwks import JwksFetcher, JwksKeySource
from app.auth.keys import Key, KeySource, StaticKeySource
from app.auth.token_cache import TokenCache
from app.auth.tokens import TokenVerifier
from app.feed.feed import Feed
from app.metrics import Metrics
from app.operations import WRITES, operations
from app.preflight.inspection import explain_failure
from app.settings import Settings
from app.store import Store
from app.store.instrumented_store import InstrumentedStore
from app.store.traced_store import TracedStore
from app.store_factory import create_store
from app.tracing import Tracing, tracing_of_process
from app.web.context import RequestObserver, server_state
from app.web.contract.application import contract_app
from app.web.contract.security import Permissions
from app.web.endpoints.documents import published_documents
from app.web.endpoints.health import health_routes
from app.web.endpoints.prometheus import metrics_route
from app.web.endpoints.readiness import Readiness
from app.web.endpoints.swagger_ui import undocumented_paths
from app.web.middleware.access_log import log_request
from app.web.middleware.cors import Cors
from app.web.middleware.error_responses import ErrorResponses
from app.web.middleware.request_metrics import RequestMetrics
from app.web.middleware.request_observers import RequestObservers
from app.web.middleware.server_spans import ServerSpans
from app.web.middleware.streaming import OpenStream, Streaming

_APP = Path(__file__).resolve().parent
# The contract is a link to the file at the top of the repository. A wheel contains the file itself.
DOCUMENTS = (_APP / "openapi.yaml", _APP / "extensions.yaml", _APP / "ofrep.yaml")
CLIENT_OVERLAY = _APP / "client-overlay.yaml"


def create_app(settings: Settings, store: Store | None = None) -> ASGIApp:
    """Return the service as one ASGI application that uses `store`, by default the one that `settings` name.

    The ASGI server must send lifespan events: Connexion builds its parts at startup, and the shutdown event closes
    the feed, the verifier and the store.
    """
    store = store or create_store(settings)
    readiness = Readiness(store, functools.partial(explain_failure, settings))
    observers: list[RequestObserver] = [log_request]
    open_stream: OpenStream = contextlib.nullcontext
    metrics_routes: list[BaseRoute] = []
    metrics = None
    if settings.metrics_token is not None:
        metrics = Metrics(settings.metrics_directory)
        store, request_metrics = InstrumentedStore(store, metrics), RequestMetrics(metrics)
        observers.append(request_metrics.count_request)
        open_stream = request_metrics.open_stream
        metrics_routes.append(metrics_route(metrics, settings.metrics_token, readiness))
    # The feed reads for many requests, in tasks that outlive them. So its reads belong to no trace.
    feed = Feed(store, limit=1.5 * settings.redis_timeout)
    tracing = tracing_of_process()
    if tracing is not None:
        store = TracedStore(store, tracing)
    permissions = Permissions(WRITES, settings.jwt_read_scope, settings.jwt_write_scope, settings.tenant_host)
    verifier = TokenVerifier(
        _key_source(settings),
        tenant_claim=settings.jwt_tenant_claim,
        scope_claim=settings.jwt_scope_claim,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        leeway=settings.jwt_leeway,
        scopes=permissions.scopes,
    )
    connexion_app = contract_app(
        DOCUMENTS,
        operations(store, feed),
        tokens=TokenCache(verifier),
        permissions=permissions,
        max_body_bytes=settings.max_body_bytes,
        fallback=undocumented_paths(
            published_documents(DOCUMENTS, CLIENT_OVERLAY),
            settings.docs_url,
            settings.ui_note,
            [*health_routes(readiness), *metrics_routes],
        ),
        on_lifespan=functools.partial(_lifespan, feed, store, verifier, metrics, tracing),
    )
    streaming = Streaming(connexion_app, open_stream)
    responses: ASGIApp = ErrorResponses(streaming)
    if settings.cors_allow_origins:
        responses = Cors(responses, settings.cors_allow_origins)
    observed = RequestObservers(responses, observers)
    outermost = ServerSpans(observed, tracing) if tracing is not None else observed

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await outermost(scope, receive, send)
            return
        state = server_state(scope.get("state", {}))
        state.observe, state.end_streams = observed.observe, streaming.end_all
        await connexion_app(scope, receive, send)

    return application


def _key_source(settings: Settings) -> KeySource:
    """Return the source of the keys that verify tokens."""
    static = (settings.jwt_secret, settings.jwt_secret_previous, settings.jwt_public_key)
    if keys := tuple(Key(material, settings.algorithms) for material in static if material is not None):
        return StaticKeySource(keys)
    fetcher = JwksFetcher(discover=settings.jwt_jwks_url is None)
    return JwksKeySource(fetcher, settings.algorithms, settings.jwt_jwks_ttl, location=settings.jwt_jwks_url)


@contextlib.asynccontextmanager
async def _lifespan(
    feed: Feed, store: Store, verifier: TokenVerifier, metrics: Metrics | None, tracing: Tracing | None, _app: object
) -> AsyncIterator[None]:
    # Objects made at start live as long as the process. Unless they are frozen, each full garbage collection
    # examines them and stops all requests for 30 ms.
    gc.collect()
    gc.freeze()
    # Requests that end in time leave no garbage, but concurrent ones have more objects than Python's threshold (700 in
    # 3.11, 2,000 in 3.13). With 700 and 16 connections, collections take 4 % of the processor time of a GET.
    gc.set_threshold(10_000)
    keeper = asyncio.create_task(metrics.keep_files()) if metrics is not None else None
    yield
    if keeper is not None:
        keeper.cancel()
    await feed.close()
    await verifier.close()
    await store.close()
    if tracing is not None:
        tracing.flush()
