"""Connexion's bearer handler, with the service's own verifier behind it."""

from collections.abc import Callable
from typing import Any

from connexion.lifecycle import ConnexionRequest
from connexion.security import BearerSecurityHandler

from app.auth import TokenVerifier
from app.errors import MissingToken, Unauthorized


class Bearer(BearerSecurityHandler):
    """Puts the token's principal into the request's context. Goes into the `security_map` as "bearer"."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    def get_fn(
        self, security_scheme: dict[str, Any], required_scopes: list[str]
    ) -> Callable[[ConnexionRequest], dict[str, Any]]:
        """The check of one operation. Connexion's own would look for it in the contract and in the environment."""
        return self._check

    def _check(self, request: ConnexionRequest) -> dict[str, Any]:
        principal = self._verifier.verify(_bearer_token(request.scope["headers"]))
        request.context["principal"] = principal
        return {"sub": principal.subject}  # Connexion asks the answer for its "sub"


def _bearer_token(headers: list[tuple[bytes, bytes]]) -> str:
    """The token of the one `Authorization: Bearer …` header: RFC 6750, section 2.1."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) > 1:
        raise Unauthorized("There is more than one Authorization header.")
    scheme, _, token = given[0].decode("latin-1").partition(" ") if given else ("", "", "")
    if scheme.lower() != "bearer":
        raise MissingToken("A bearer token is required.")
    return token.strip(" ")
