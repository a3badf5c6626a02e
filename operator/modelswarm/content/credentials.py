"""What proves who is asking: hub tokens, access keys, and the pull secrets of image registries.

Nothing here prints a value: ``repr`` and ``str`` say which ones are there.
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from modelswarm.content.image import DOCKER_HUB, ImageReference, parse_reference
from modelswarm.errors import AccessDenied

_SALT = os.urandom(16)
_DOCKER_HUB_KEY = "index.docker.io"
"""The host under which ``docker login`` files credentials for Docker Hub."""


class _Secretive:
    """Shows which fields are set and never what they are; ``fingerprint`` compares without keeping the values."""

    __slots__ = ()

    def _values(self) -> list[tuple[str, str | None]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]

    def __repr__(self) -> str:
        present = ", ".join(f"{name}=***" for name, value in self._values() if value)
        return f"{type(self).__name__}({present})"

    @property
    def fingerprint(self) -> str:
        """Hex digits, equal for equal credentials within this process only (salted, so worthless elsewhere)."""
        return hashlib.blake2b(json.dumps(self._values()).encode(), key=_SALT, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, repr=False)
class Credentials(_Secretive):
    """For hubs and object stores; each is sent to its own kind of origin only.

    ``hub_token`` is for Hugging Face (and a mirror set as its endpoint), ``modelscope_token`` for ModelScope: a token
    of one is nobody's business at the other. The access keys are for S3 and OSS.
    """

    hub_token: str | None = None
    access_key_id: str | None = None
    access_key_secret: str | None = None
    modelscope_token: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class RegistryAuth(_Secretive):
    """One entry of a pull secret. With ``identity_token`` (an OAuth2 refresh token) the password is not used."""

    username: str
    password: str
    identity_token: str | None = None


def parse_docker_config(data: bytes) -> dict[str, RegistryAuth]:
    """The entries of a ``kubernetes.io/dockerconfigjson`` or ``kubernetes.io/dockercfg`` Secret, as they are filed.

    Keys are kept as written; ``auth_for`` interprets them. Entries without credentials (left there by ``credsStore``
    and ``credHelpers``, which name programs on somebody's laptop) are skipped.

    Raises ``AccessDenied`` when the document cannot be read; the message shows no part of it.
    """
    try:
        document = json.loads(data)
    except ValueError:
        # Not chained: the decoder's error carries the document.
        raise AccessDenied("the pull secret is not JSON; make it with kubectl create secret docker-registry") from None
    if not isinstance(document, dict):
        raise AccessDenied("the pull secret is not a JSON object of registries")
    entries = document.get("auths", document if "credsStore" not in document and "credHelpers" not in document else {})
    if not isinstance(entries, dict):
        raise AccessDenied("the pull secret's auths is not a JSON object of registries")
    found: dict[str, RegistryAuth] = {}
    for registry, entry in entries.items():
        if not isinstance(entry, dict):
            raise AccessDenied(f"the pull secret's entry for {registry} is not a JSON object")
        auth = _parse_entry(registry, entry)
        if auth is not None:
            found[registry] = auth
    return found


def _parse_entry(registry: str, entry: Mapping[str, object]) -> RegistryAuth | None:
    values = {name: entry.get(name) or "" for name in ("username", "password", "auth", "identitytoken")}
    if not all(isinstance(value, str) for value in values.values()):
        raise AccessDenied(f"the pull secret's entry for {registry} has a field that is not text")
    texts = {name: str(value) for name, value in values.items()}
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        # As the kubelet: ``auth`` wins over the plain fields, with or without padding.
        encoded = texts["auth"].strip()
        try:
            decoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
        except (binascii.Error, ValueError):
            raise AccessDenied(f"the pull secret's auth for {registry} is not base64 of USER:PASSWORD") from None
        username, separator, password = decoded.partition(":")
        if not separator:
            raise AccessDenied(f"the pull secret's auth for {registry} is not base64 of USER:PASSWORD")
        password = password.rstrip("\0")
    if not username and not password and not texts["identitytoken"]:
        return None
    return RegistryAuth(username, password, texts["identitytoken"] or None)


def auth_for(reference: ImageReference | str, auths: Mapping[str, RegistryAuth]) -> RegistryAuth | None:
    """The entry that the kubelet would try first for this image, or None.

    The kubelet's rules (``pkg/credentialprovider/keyring.go``): a key is ``HOST[:PORT][/PATH]``, with or without a
    scheme, ``/v1/`` or ``/v2/`` in front of the path ignored; parts of the host between dots may be globs; ports must
    be equal; the path must be a prefix; the last key in alphabetical order goes first, so that a longer path beats a
    shorter one. Docker Hub also goes by ``index.docker.io``.
    """
    image = parse_reference(reference) if isinstance(reference, str) else reference
    keyed = sorted(((_normalise_key(key), auth) for key, auth in auths.items()), key=lambda item: item[0], reverse=True)
    for key, auth in keyed:
        if _matches(key, image.registry, image.repository):
            return auth
    if image.registry == DOCKER_HUB:
        for key, auth in keyed:
            if _matches(key, _DOCKER_HUB_KEY, image.repository):
                return auth
    return None


def _normalise_key(key: str) -> str:
    parsed = urlsplit(key if "://" in key else f"https://{key}")
    path = parsed.path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return parsed.netloc + path.rstrip("/")


def _matches(key: str, registry: str, repository: str) -> bool:
    host, _, path = key.partition("/")
    wanted_host, _, wanted_port = registry.partition(":")
    key_host, _, key_port = host.partition(":")
    globs, parts = key_host.split("."), wanted_host.split(".")
    return (
        bool(key_host)
        and key_port == wanted_port
        and len(globs) == len(parts)
        and all(fnmatchcase(part, glob) for part, glob in zip(parts, globs, strict=True))
        and f"/{repository}".startswith(f"/{path}")
    )
