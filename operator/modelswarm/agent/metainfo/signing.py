"""Proof that a request, or an answer, comes from somebody who knows the agents' Secret.

A request is signed over method, host, path, time, a random number and its body; an answer over the request's number,
the status and the body, so that nobody who merely listens at a peer's address can answer in its place. Nothing is
encrypted. Of several Secrets the first signs, and all are accepted: that is how one is rotated.
"""

import hashlib
import hmac
import logging
import re
import secrets as random_numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelswarm.errors import PeerRefused, SettingsError

HEADER = "X-Modelswarm-Signature"
WINDOW = 300.0
"""Seconds by which the clocks of two nodes may differ, and for which a request is good."""
MIN_SECRET = 16
MAX_SECRETS = 8
MAX_REMEMBERED = 1 << 18
"""Requests whose random numbers are remembered, twice."""
RELOAD = 10.0

_FORM = re.compile(r"v1 ([0-9]{1,12}) ([0-9a-f]{32}) ([0-9a-f]{64})", re.ASCII)
_ANSWER_FORM = re.compile(r"v1 ([0-9a-f]{64})", re.ASCII)
_PURPOSE = b"modelswarm metainfo v1"

log = logging.getLogger(__name__)


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """One Secret per line, the one that signs first. Raises SettingsError if there is none, or one is too short."""
    found = tuple(line.strip().encode() for line in text.splitlines() if line.strip())[:MAX_SECRETS]
    if not found or min(map(len, found)) < MIN_SECRET:
        raise SettingsError(f"the agents' Secret must have at least {MIN_SECRET} characters (one Secret per line)")
    return found


class SecretFile:
    """The Secrets in a file, read again when it changed: Kubernetes exchanges the file of a mounted Secret."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._secrets = self._read()

    def __call__(self) -> tuple[bytes, ...]:
        now = self._clock()
        if now - self._looked_at >= RELOAD:
            self._looked_at = now
            try:
                found = self._read()
            except SettingsError as error:
                log.error("P2P: the old Secret stays in use: %s", error)
            else:
                if found != self._secrets:
                    log.info("P2P: the agents' Secret has changed")
                self._secrets = found
        return self._secrets

    def _read(self) -> tuple[bytes, ...]:
        try:
            return parse_secrets(self._path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"the agents' Secret cannot be read from {self._path}: {type(error).__name__}"
            ) from None


def no_secrets() -> tuple[bytes, ...]:
    """For agents without a Secret: nothing is signed and everybody is believed."""
    return ()


@dataclass(frozen=True, slots=True)
class Request:
    """What of a request is signed. ``target`` is path and query as they are sent, ``host`` the Host header."""

    method: str
    host: str
    target: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a good request: its random number, and the Secret it was signed with, which signs the answer too."""

    nonce: str
    secret: bytes | None


class Signer:
    """Signs and checks. ``wall``: seconds since 1970."""

    def __init__(self, secrets: Callable[[], Sequence[bytes]], wall: Callable[[], float]) -> None:
        self._secrets = secrets
        self._wall = wall
        self._seen: set[bytes] = set()
        self._seen_before: set[bytes] = set()
        self._turned_at = wall()

    @property
    def is_on(self) -> bool:
        return bool(self._secrets())

    def sign(self, request: Request) -> tuple[dict[str, str], str]:
        """Headers for the request, and the random number in them, with which the answer is checked."""
        nonce = random_numbers.token_hex(16)
        secrets = self._secrets()
        if not secrets:
            return {}, nonce
        stamp = str(int(self._wall()))
        return {HEADER: f"v1 {stamp} {nonce} {_request_mac(secrets[0], request, stamp, nonce)}"}, nonce

    def check(self, request: Request, header: str | None) -> Caller:
        """Raises PeerRefused, unless there is no Secret."""
        secrets = self._secrets()
        if not secrets:
            return Caller("", None)
        found = _FORM.fullmatch(header or "")
        if found is None:
            raise PeerRefused("the request is not signed")
        stamp, nonce, mac = found.groups()
        matching = [
            secret for secret in secrets if hmac.compare_digest(mac, _request_mac(secret, request, stamp, nonce))
        ]
        if not matching:
            raise PeerRefused("the request is signed with another Secret")
        if abs(self._wall() - int(stamp)) > WINDOW:
            raise PeerRefused("the request is too old, or the clocks of the two nodes differ by minutes")
        if request.method != "GET":
            self._remember(bytes.fromhex(nonce))
        return Caller(nonce, matching[0])

    def sign_answer(self, caller: Caller, status: int, body: bytes) -> dict[str, str]:
        if caller.secret is None:
            return {}
        return {HEADER: f"v1 {_answer_mac(caller.secret, caller.nonce, status, body)}"}

    def check_answer(self, nonce: str, status: int, body: bytes, header: str | None) -> None:
        """Raises PeerRefused if somebody else answered."""
        secrets = self._secrets()
        if not secrets:
            return
        found = _ANSWER_FORM.fullmatch(header or "")
        if found is None or not any(
            hmac.compare_digest(found[1], _answer_mac(secret, nonce, status, body)) for secret in secrets
        ):
            raise PeerRefused("the answer is not signed with our Secret")

    def _remember(self, nonce: bytes) -> None:
        """Raises PeerRefused for a request that was here before."""
        if nonce in self._seen or nonce in self._seen_before:
            raise PeerRefused("the request has been here before")
        now = self._wall()
        # A request is good for twice the window at most: from a clock that is ahead to one that is behind.
        if abs(now - self._turned_at) > 2 * WINDOW or len(self._seen) >= MAX_REMEMBERED:
            self._seen_before, self._seen, self._turned_at = self._seen, set(), now
        self._seen.add(nonce)


def _request_mac(secret: bytes, request: Request, stamp: str, nonce: str) -> str:
    text = "\n".join(
        ("request", request.method, request.host.lower(), request.target, stamp, nonce, _digest(request.body))
    )
    return _mac(secret, text)


def _answer_mac(secret: bytes, nonce: str, status: int, body: bytes) -> str:
    return _mac(secret, "\n".join(("answer", nonce, str(status), _digest(body))))


def _mac(secret: bytes, text: str) -> str:
    return hmac.new(secret, _PURPOSE + b"\0" + text.encode(), hashlib.sha256).hexdigest()


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
