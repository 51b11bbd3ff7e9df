"""A small OpenID provider on real sockets. It has one realm per tenant and can be made to misbehave."""

import gzip
import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.waiting import PATIENCE

Behaviour = Literal[
    "good", "hang", "drip", "html", "huge", "30 MB", "unpacks", "redirect", "error", "lie", "plain", "empty", "deep",
    "no keys", "far", "101 keys", "garbage", "own type",
]  # fmt: skip
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

UNPACKS_TO_50_MB = gzip.compress(b"[" + b" " * 50_000_000)
RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(3)]


def jwk(key: PrivateKey, **fields: Any) -> dict[str, Any]:
    """Return the public key as a JWK. A field of None is left out."""
    kinds: dict[type, Any] = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    (algorithm,) = [kinds[kind] for kind in kinds if isinstance(key, kind)]
    members = algorithm.to_jwk(key.public_key(), as_dict=True) | {"use": "sig"} | fields
    return {name: value for name, value in members.items() if value is not None}


def pem(key: Any) -> str:
    """Return the public key as PEM."""
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class Provider:
    """An identity provider with issuers at `/realms/<name>`. `requests` lists the path of each request."""

    def __init__(self, authority: trustme.CA | None = None) -> None:
        self.sets: dict[str, list[dict[str, Any]]] = {}
        self.behaviours: dict[str, Behaviour] = {}
        self.requests: list[str] = []
        self._stopped = threading.Event()
        self._server = Server(("127.0.0.1", 0), self._handler())
        scheme = "http"
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.base = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def template(self) -> str:
        return self.issuer("{tenant}")

    def issuer(self, realm: str) -> str:
        return f"{self.base}/realms/{realm}"

    def address(self, realm: str) -> str:
        """Return the URL of the realm's JWK Set."""
        return f"{self.issuer(realm)}/keys"

    def publish(self, realm: str, *keys: dict[str, Any]) -> None:
        """Replace the keys of the realm."""
        self.sets[realm] = list(keys)

    def token(self, realm: str, /, key: PrivateKey = RSA_KEYS[0], algorithm: str = "RS256", **claims: Any) -> str:
        """Return a token of the realm for the audience "oms". `kid` is for the header. A claim of None is left out."""
        kid = claims.pop("kid", "first")
        own = {"iss": self.issuer(realm), "aud": "oms", "sub": "tester", "exp": int(time.time()) + 3600}
        merged = {name: value for name, value in (own | claims).items() if value is not None}
        return jwt.encode(merged, key, algorithm, headers={"kid": kid} if kid else None)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests.append(self.path)
                provider._answer(self)

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        realm = handler.path.removeprefix("/realms/").split("/")[0]
        behaviour = self.behaviours.get(realm, "good")
        send = _sender(handler)
        if behaviour == "hang":
            self._stopped.wait(PATIENCE)
        elif behaviour == "drip":
            self._drip(handler)
        elif behaviour == "good" and realm not in self.sets:
            send(404, b"{}")
        elif behaviour in MISBEHAVIOURS:
            MISBEHAVIOURS[behaviour](send)
        elif behaviour == "redirect" and not handler.path.endswith("/again"):
            send(302, b"", ("Location", f"{handler.path}/again"))
        elif behaviour == "own type" and "application/jwk-set+json" not in (handler.headers["Accept"] or ""):
            send(406, b"{}")
        elif behaviour == "no keys" and handler.path.endswith("/keys"):
            send(404, b"{}")
        else:
            document = json.dumps(self._document(realm, behaviour, handler.path.removesuffix("/again"))).encode()
            send(200, document + b" " * (300_000 if behaviour == "huge" else 0))

    def _document(self, realm: str, behaviour: Behaviour, path: str) -> Any:
        if path.endswith("/keys"):
            return {"keys": self.sets[realm] + [{}] * (100 if behaviour == "101 keys" else 0)}
        issuer = self.issuer("another" if behaviour == "lie" else realm)
        address = "http://192.0.2.1/keys" if behaviour == "plain" else self.address(realm)
        if behaviour == "far":
            address += "/." * 1100 + "/keys"
        return {"issuer": issuer, "jwks_uri": address}

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not self._stopped.wait(0.1):
                handler.wfile.write(b" ")
        except OSError:
            return


Send = Callable[..., None]

MISBEHAVIOURS: dict[Behaviour, Callable[[Send], None]] = {
    "30 MB": lambda send: send(200, b"[" + b" " * 30_000_000),
    "html": lambda send: send(200, b"<html>Welcome</html>"),
    "unpacks": lambda send: send(200, UNPACKS_TO_50_MB, ("Content-Encoding", "gzip")),
    "error": lambda send: send(503, b"{}"),
    "empty": lambda send: send(200, b""),
    "garbage": lambda send: send(200, b"", ("no name " * 10_000, "x")),
    "deep": lambda send: send(200, b"[" * 200_000),
}


def _sender(handler: BaseHTTPRequestHandler) -> Send:
    def send(status: int, content: bytes, *headers: tuple[str, str]) -> None:
        try:
            handler.send_response(status)
            for name, value in headers:
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:
            return  # the client has closed the connection

    return send
