"""The token service that a registry with Bearer authentication sends its clients to, as the public registries do.

A client without a token gets 401 and the address of this service; it asks here with its password, or anonymously, for
the scopes it needs and repeats the request with the signed token it is given.
"""

import base64
import binascii
import json
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from dev.process import LOOPBACK

ISSUER = "modelswarm-test-token-service"
SERVICE = "modelswarm-test-registry"
LIFETIME = 300
"""Seconds that a token is good for. The public registries use this value too."""
_COORDINATE_BYTES = 32  # of a P-256 point, and of each half of an ES256 signature


class TokenServer:
    """The service on a loopback port, in a thread. ``users`` maps names to passwords; each may do everything.

    With ``anonymous_pull`` a client without a password gets a token for pulling, like from a public repository.
    ``issued`` counts the tokens handed out.
    """

    def __init__(self, users: Mapping[str, str], *, anonymous_pull: bool = False) -> None:
        self._users = dict(users)
        self._anonymous_pull = anonymous_pull
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._key_id = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.issued = 0

    def __enter__(self) -> Self:
        service: TokenServer = self

        class Handler(_TokenRequest):
            tokens = service

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        threading.Thread(target=self._server.serve_forever, name="dev-token-server", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the token service is not running")
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/token"

    def write_jwks(self, path: Path) -> Path:
        """Write the public key in the form the registry reads."""
        point = self._key.public_key().public_numbers()
        coordinates = {
            "x": _base64url(point.x.to_bytes(_COORDINATE_BYTES)),
            "y": _base64url(point.y.to_bytes(_COORDINATE_BYTES)),
        }
        key = {"kty": "EC", "crv": "P-256", "kid": self._key_id, "alg": "ES256", "use": "sig", **coordinates}
        path.write_text(json.dumps({"keys": [key]}))
        return path

    def authenticate(self, authorization: str | None) -> str | None:
        """The user that an Authorization header proves, "" for no header, None for a wrong one."""
        if authorization is None:
            return ""
        scheme, _, encoded = authorization.partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return user if scheme.lower() == "basic" and self._users.get(user) == password else None

    def issue(self, user: str, scopes: list[str]) -> str:
        """A token for what ``user`` may have of ``scopes``. Less than asked for is no error; the registry refuses."""
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            wanted = actions.split(",")
            allowed = wanted if user else [action for action in wanted if action == "pull" and self._anonymous_pull]
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 10, "exp": now + LIFETIME}
        with self._lock:
            self.issued += 1
        return self._sign({**claims, "jti": uuid.uuid4().hex, "access": access})

    def _sign(self, claims: Mapping[str, object]) -> str:
        header = {"typ": "JWT", "alg": "ES256", "kid": self._key_id}
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        # JWT wants the two numbers side by side, not the ASN.1 structure that the library makes.
        return f"{signed}.{_base64url(r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES))}"


class _TokenRequest(BaseHTTPRequestHandler):
    tokens: TokenServer

    def do_GET(self) -> None:
        user = self.tokens.authenticate(self.headers.get("Authorization"))
        if user is None:
            self._reply(401, {"details": "incorrect username or password"})
            return
        query = parse_qs(urlsplit(self.path).query)
        scopes = [scope for value in query.get("scope", []) for scope in value.split()]
        token = self.tokens.issue(user, scopes)
        self._reply(200, {"token": token, "access_token": token, "expires_in": LIFETIME})

    def do_POST(self) -> None:
        # Clients that try OAuth2 first go on with GET after this answer.
        self._reply(404, {"details": "only GET"})

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: requests are counted, not printed."""

    def _reply(self, status: int, content: Mapping[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
