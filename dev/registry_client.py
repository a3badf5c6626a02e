"""The client side of the registry HTTP API, as far as tests need it: authentication and upload."""

import re
from base64 import b64encode
from collections.abc import Generator

import httpx

from dev.oci_image import Blob

_CHALLENGE_FIELD = re.compile(r'(\w+)="([^"]*)"')


class RegistryAuth(httpx.Auth):
    """Answers whatever the registry asks for: nothing, a password, or a token from its token service.

    Without a user name it asks for tokens anonymously, as clients of public repositories do. The last token is tried
    first; one with too small a scope earns a new challenge, which names the missing scope.
    """

    requires_response_body = True

    def __init__(self, username: str | None = None, password: str = "") -> None:
        account = f"{username}:{password}".encode()
        self._password_header = None if username is None else f"Basic {b64encode(account).decode()}"
        self._header: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._header is not None:
            request.headers["Authorization"] = self._header
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED:
            return
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        if scheme.lower() == "basic" and self._password_header:
            self._header = self._password_header
        elif scheme.lower() == "bearer":
            fields = dict(_CHALLENGE_FIELD.findall(rest))
            question = httpx.Request("GET", fields.pop("realm"), params=fields)
            if self._password_header:
                question.headers["Authorization"] = self._password_header
            answer = yield question
            if answer.is_error:
                return
            self._header = f"Bearer {answer.json()['token']}"
        else:
            return
        request.headers["Authorization"] = self._header
        yield request


def push_blob(client: httpx.Client, repository: str, blob: Blob) -> None:
    """Upload a blob in one piece, or do nothing when the repository has it."""
    if client.head(f"/v2/{repository}/blobs/{blob.digest}").is_success:
        return
    begun = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
    target = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": blob.digest})
    headers = {"Content-Type": "application/octet-stream"}
    client.put(target, content=blob.content, headers=headers).raise_for_status()


def push_manifest(client: httpx.Client, repository: str, reference: str, manifest: Blob) -> None:
    """Upload a manifest or an index under a tag or a digest. Everything that it refers to has to be there already."""
    url = f"/v2/{repository}/manifests/{reference}"
    client.put(url, content=manifest.content, headers={"Content-Type": manifest.media_type}).raise_for_status()
