"""Builds the Connexion application for OpenAPI documents."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import connexion
from starlette.types import ASGIApp

from app.auth.token_cache import TokenCache
from app.operations import Operation
from app.web.contract.flask_bridge import BridgedFlask, FlaskBridge
from app.web.contract.routing import ContractRouting, Lifespan
from app.web.contract.security import BearerSecurity, Permissions
from app.web.contract.validation import OperationValidation


def contract_app(  # noqa: PLR0913 - wiring only
    documents: Iterable[Path],
    operations: Mapping[str, Operation],
    *,
    tokens: TokenCache,
    permissions: Permissions,
    max_body_bytes: int,
    fallback: ASGIApp,
    on_lifespan: Lifespan,
) -> ASGIApp:
    """Return an application that serves `documents` with `operations` by operationId, and other paths with `fallback`.

    It must receive lifespan events: Connexion builds its parts at startup.
    """
    validated = functools.partial(
        OperationValidation, security=BearerSecurity(tokens, permissions), max_body_bytes=max_body_bytes
    )
    # Connexion annotates middleware as applications.
    routing: Any = functools.partial(ContractRouting, validated=validated, fallback=fallback, on_lifespan=on_lifespan)
    application = connexion.ConnexionMiddleware(
        FlaskBridge(BridgedFlask(__name__, static_folder=None)),
        middlewares=[routing],
        resolver=connexion.Resolver(operations.__getitem__),
    )
    for document in documents:
        application.add_api(document, name=document.stem)
    return application
