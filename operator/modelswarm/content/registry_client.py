"""A registry asked by the distribution protocol: log-in, manifests and small blobs, every byte checked.

Credentials go to the registry, and to the token service that it names, over HTTPS only (HTTP where the endpoint was
set to ``http://``); redirects to other hosts (blob stores) are followed without them.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import httpx

from modelswarm.content.credentials import RegistryAuth
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.fetch import Reply, fetch, text
from modelswarm.content.image import ImageReference, is_digest
from modelswarm.errors import AccessDenied, ContentError, RevisionNotFound, SourceNotFound, SourceUnavailable

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = ", ".join((OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST))
MAX_DOCUMENT = 8 << 20
"""Bytes of a manifest or config; registries refuse manifests above 4 MiB."""

_CHALLENGE = re.compile(r"(?:^|[\s,])(?P<scheme>[A-Za-z][A-Za-z0-9-]*)\s+(?=[A-Za-z_]+\s*=)")
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document of the registry, and the digest of exactly its bytes."""

    media_type: str
    digest: str
    size: int
    content: dict[str, object]


def parse_challenges(header: str) -> dict[str, dict[str, str]]:
    """``WWW-Authenticate`` (RFC 9110) as scheme in lower case → parameters; of several of one scheme the first."""
    found: dict[str, dict[str, str]] = {}
    starts = list(_CHALLENGE.finditer(_outside_quotes(header)))
    for index, start in enumerate(starts):
        end = starts[index + 1].start() if index + 1 < len(starts) else len(header)
        parameters = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
            for name, quoted, bare in _PARAMETER.findall(header[start.end() : end])
        }
        found.setdefault(start["scheme"].lower(), parameters)
    return found


def _outside_quotes(header: str) -> str:
    """The header with everything inside quotes blanked, at equal length: values may look like schemes."""
    return re.sub(r'"(?:[^"\\]|\\.)*"', lambda match: '"' + "_" * (len(match[0]) - 2) + '"', header)


class RegistryClient:
    """Reads one repository. Logs in when the registry asks for it, and keeps what it was given."""

    def __init__(
        self, image: ImageReference, auth: RegistryAuth | None, endpoints: Endpoints, http: httpx.AsyncClient
    ) -> None:
        self._image = image
        self._auth = auth
        self._http = http
        self._base = endpoints.registry(image.registry)
        self._authorization: str | None = None

    async def head_digest(self, version: str) -> str:
        """The digest of a manifest without reading it (Docker Hub does not count this as a pull).

        Raises as ``manifest`` does.
        """
        reply = await self._ask("HEAD", f"manifests/{version}")
        digest = reply.headers.get("docker-content-digest", "")
        return digest if is_digest(digest) else (await self.manifest(version)).digest

    async def manifest(self, version: str) -> Document:
        """The manifest or index at a tag or digest.

        Raises ``SourceNotFound``, ``RevisionNotFound``, ``AccessDenied``, ``RateLimited``, ``SourceUnavailable``.
        """
        return await self._document(f"manifests/{version}", version)

    async def blob(self, digest: str) -> Document:
        """A small JSON blob (an image's config)."""
        return await self._document(f"blobs/{digest}", digest)

    async def _document(self, path: str, version: str) -> Document:
        reply = await self._ask("GET", path)
        claimed = version if is_digest(version) else reply.headers.get("docker-content-digest", "")
        algorithm = claimed.partition(":")[0] if is_digest(claimed) else "sha256"
        actual = f"{algorithm}:{hashlib.new(algorithm, reply.body).hexdigest()}"
        if claimed and claimed != actual:
            raise SourceUnavailable(
                f"{self._image.registry} answered other bytes than those of {claimed} for {self._image.repository}"
            )
        document = reply.json()
        if not isinstance(document, dict):
            raise SourceUnavailable(f"{self._image.registry} answered a manifest that is not a JSON object")
        media_type = text(document, "mediaType") or reply.headers.get("content-type", "").partition(";")[0].strip()
        return Document(media_type, actual, len(reply.body), document)

    async def _ask(self, method: str, path: str) -> Reply:
        url = f"{self._base}/v2/{self._image.repository}/{path}"
        reply = await self._send(method, url)
        if reply.status == 401 and self._authorization is None:
            await self._log_in(reply)
            reply = await self._send(method, url)
        if not reply.is_success:
            raise self._refused(reply, path)
        return reply

    async def _send(self, method: str, url: str) -> Reply:
        headers = {"Accept": ACCEPT}
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        return await fetch(self._http, method, url, headers=headers, max_bytes=MAX_DOCUMENT)

    async def _log_in(self, reply: Reply) -> None:
        challenges = parse_challenges(", ".join(reply.headers.get_list("www-authenticate")))
        if "bearer" in challenges:
            self._authorization = f"Bearer {await self._token(challenges['bearer'])}"
        elif "basic" in challenges:
            if self._auth is None:
                raise AccessDenied(
                    f"{self._image.registry} wants a password for {self._image.repository}; "
                    "add a pull secret for it to the default ServiceAccount of the namespace"
                )
            pair = f"{self._auth.username}:{self._auth.password}".encode()
            self._authorization = f"Basic {base64.b64encode(pair).decode()}"
        else:
            raise AccessDenied(f"{self._image.registry} wants a log-in of a kind that is not supported")

    async def _token(self, challenge: dict[str, str]) -> str:
        """A token for pulling, by password, by refresh token, or for nobody in particular.

        https://distribution.github.io/distribution/spec/auth/token and .../oauth
        """
        realm = challenge.get("realm", "")
        parsed = urlsplit(realm)
        allowed = ("https", "http") if self._base.startswith("http://") else ("https",)
        if parsed.scheme not in allowed or not parsed.hostname:
            raise AccessDenied(f"{self._image.registry} sends log-ins to {realm!r}, which is not an https URL")
        question = {"scope": challenge.get("scope") or f"repository:{self._image.repository}:pull"}
        if service := challenge.get("service"):
            question["service"] = service
        if self._auth is not None and self._auth.identity_token:
            question |= {
                "grant_type": "refresh_token",
                "refresh_token": self._auth.identity_token,
                "client_id": "modelswarm",
            }
            reply = await fetch(self._http, "POST", realm, data=question, follow_redirects=False)
        else:
            auth = (self._auth.username, self._auth.password) if self._auth else None
            url = f"{realm}{'&' if parsed.query else '?'}{urlencode(question)}"
            reply = await fetch(self._http, "GET", url, auth=auth, follow_redirects=False)
        if not reply.is_success:
            raise self._login_refused(reply)
        answer = reply.json_object()
        token = text(answer, "token") or text(answer, "access_token")
        if token is None:
            raise SourceUnavailable(f"the token service of {self._image.registry} answered without a token")
        return token

    def _login_refused(self, reply: Reply) -> ContentError:
        if reply.status not in (400, 401, 403):
            return SourceUnavailable(f"the token service of {self._image.registry} answers with HTTP {reply.status}")
        if self._auth is None:
            return AccessDenied(self._no_access())
        return AccessDenied(
            f"{self._image.registry} refuses the credentials in the pull secret; they are invalid or expired"
        )

    def _no_access(self) -> str:
        name = f"{self._image.registry}/{self._image.repository}"
        if self._auth is None:
            return (
                f"{name} does not exist, or it is private and there is no pull secret for it; "
                "add one to the default ServiceAccount of the namespace"
            )
        return f"{name} does not exist, or the credentials in the pull secret may not pull it"

    def _refused(self, reply: Reply, path: str) -> ContentError:
        name = f"{self._image.registry}/{self._image.repository}"
        if reply.status in (401, 403):
            return AccessDenied(self._no_access())
        if reply.status == 404:
            if "NAME_UNKNOWN" in _error_codes(reply):
                return SourceNotFound(f"{name} does not exist; check the image's name")
            if path.startswith("blobs/"):
                return SourceUnavailable(f"{name} lacks a part of the image; push it again")
            return RevisionNotFound(f"{name} has no {path.rpartition('/')[2]}; check the image's name and tag")
        return SourceUnavailable(f"{self._image.registry} answers with HTTP {reply.status} for {name}")


def _error_codes(reply: Reply) -> set[str]:
    try:
        document = json.loads(reply.body)
        return {str(error["code"]) for error in document["errors"]}
    except (ValueError, KeyError, TypeError):
        return set()
