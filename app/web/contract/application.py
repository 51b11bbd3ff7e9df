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
from app.web.contract.json_body import JsonBodyValidator
from app.web.contract.parameters import ParameterParser
from app.web.contract.routing import ContractRouting, Lifespan
from app.web.contract.security import BearerTokenHandler, ContractSecurity, Permissions
from app.web.contract.validation import ContractValidation


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
    middlewares: list[Any] = [  # Connexion annotates them as applications
        functools.partial(ContractRouting, fallback=fallback, on_lifespan=on_lifespan),
        ContractSecurity,
        ContractValidation,
    ]
    application = connexion.ConnexionMiddleware(
        FlaskBridge(BridgedFlask(__name__, static_folder=None)),
        middlewares=middlewares,
        resolver=connexion.Resolver(operations.__getitem__),
        security_map={"bearer": functools.partial(BearerTokenHandler, tokens, permissions)},
        validator_map={
            "body": {"application/json": functools.partial(JsonBodyValidator, max_bytes=max_body_bytes)},
            "parameter": ParameterParser,
        },
    )
    for document in documents:
        application.add_api(document, name=document.stem)
    return application
