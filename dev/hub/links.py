"""Links to large files on the CDN: signed, short-lived, good without a token."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from dev.hub.answers import Answer, Call, Kind
from dev.hub.repository import Blob

_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>Access denied</Message></Error>'
)


@dataclass(frozen=True, slots=True)
class _Target:
    name: str
    blob: Blob


class Links:
    """Issues links and answers the requests made with them.

    `seconds` is how long a link is good; `now` is the clock, in seconds since the epoch. The path is made of
    the repository and the object's hash, so an object has one path however often it is linked, and only
    the query tells links apart.
    """

    def __init__(self, *, seconds: float, now: Callable[[], float]) -> None:
        self.origin = ""
        self._seconds = seconds
        self._now = now
        self._secret = secrets.token_bytes(16)
        self._targets: dict[str, _Target] = {}
        self._lock = threading.Lock()

    def issue(self, repository: str, path: str, blob: Blob) -> str:
        """An absolute link to `blob`."""
        folder = hashlib.sha256(repository.encode()).hexdigest()
        object_path = f"/repos/{folder[:2]}/{folder[2:4]}/{folder}/{blob.sha256}"
        expires = int(self._now() + self._seconds)
        filename = path.rpartition("/")[2]
        name = f"{repository}/{path}"
        signature = self._sign(object_path, expires, name)
        with self._lock:
            self._targets[signature] = _Target(name, blob)
        query = urlencode(
            {
                "response-content-disposition": f"inline; filename*=UTF-8''{quote(filename)}; filename=\"{filename}\";",
                "response-content-type": "application/octet-stream",
                "Expires": expires,
                "Signature": signature,
                "Key-Pair-Id": "STANDIN",
            }
        )
        return f"{self.origin}{object_path}?{query}"

    def revoke(self) -> None:
        """Make every link issued so far useless, as when they expire in the middle of a download."""
        with self._lock:
            self._secret = secrets.token_bytes(16)
            self._targets.clear()

    def answer(self, call: Call) -> Answer:
        """What the CDN says: the object, or 403 for a link that was never issued, was altered or is too old."""
        with self._lock:
            target = self._targets.get(call.query.get("Signature", ""))
        expires = call.query.get("Expires", "")
        path = "/" + "/".join(call.segments)
        good = (
            target is not None
            and expires.isdigit()
            and int(expires) > self._now()
            and call.query["Signature"] == self._sign(path, int(expires), target.name)
        )
        if target is None or not good:
            return Answer(Kind.CDN, 403, _DENIED, "application/xml", name=path)
        return Answer(
            Kind.CDN,
            body=target.blob,
            content_type=call.query.get("response-content-type", "application/octet-stream"),
            headers={"Content-Disposition": call.query.get("response-content-disposition", "inline")},
            name=target.name,
            # A store names objects by a checksum of its own, in the same 64 digits as a sha256 but not it:
            # a client that takes the CDN's ETag for the file's hash is wrong, and shows it here.
            etag=hashlib.sha256(b"stored:" + target.blob.sha256.encode()).hexdigest(),
        )

    def _sign(self, path: str, expires: int, name: str) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}\n{name}".encode(), "sha256").hexdigest()
