"""The wiring: who needs whom. Nothing is decided here."""

import contextlib
import functools
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import connexion
from connexion.middleware.context import ContextMiddleware
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.security import SecurityMiddleware
from starlette.types import ASGIApp

from app.auth import TokenVerifier
from app.operations import OPERATIONS
from app.settings import Settings
from app.store import Connections, RedisStore, Store
from app.web.bridge import EventLoopFlask
from app.web.failures import Failures
from app.web.json_body import JsonBody
from app.web.pages import pages
from app.web.request_id import RequestIds
from app.web.request_log import RequestLog
from app.web.routing import Routing
from app.web.security import Bearer
from app.web.validation import Validation

CONTRACT = Path(__file__).resolve().parent.parent / "openapi.yaml"


def create_app(settings: Settings, store: Store | None = None) -> ASGIApp:
    """The whole service as one ASGI application, on `store` or on the one that `settings` name.

    It has to be run with lifespan events: at the first of them Connexion builds its parts, at the last the store is
    closed.
    """
    store = store or RedisStore(Connections.to(settings.redis_url), settings.redis_timeout)
    contract = CONTRACT.read_bytes()
    verifier = TokenVerifier(
        secret=settings.jwt_secret,
        tenant_claim=settings.jwt_tenant_claim,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        leeway=settings.jwt_leeway,
    )
    operations = {name: functools.partial(operation, store) for name, operation in OPERATIONS.items()}
    flask_app = connexion.FlaskApp(
        __name__,
        lifespan=_closing(store),
        middlewares=[
            functools.partial(Routing, others=pages(contract, settings.docs_url)),
            SecurityMiddleware,
            Validation,
            LifespanMiddleware,
            ContextMiddleware,
        ],
        resolver=connexion.Resolver(operations.__getitem__),
        security_map={"bearer": functools.partial(Bearer, verifier)},
        server_args={"static_folder": None},
        validator_map={"body": {"application/json": functools.partial(JsonBody, max_bytes=settings.max_body_bytes)}},
    )
    flask_app.middleware.app = EventLoopFlask(flask_app.app)
    flask_app.add_api(CONTRACT)
    return RequestIds(RequestLog(Failures(flask_app)))


def _closing(store: Store) -> Callable[[object], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        # What was made at start lives as long as the process: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        yield
        await store.close()

    return lifespan
