"""What a wanted content needs from the cluster before its first byte: the list of files, and credentials."""

import base64
from enum import StrEnum

from modelswarm.agent.wanted import Claim, ManifestRef, SecretRef, Wanted
from modelswarm.api.labels import AWS_SECRET_KEYS, HUB_SECRET_KEY, OSS_SECRET_KEYS
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import HubName
from modelswarm.content.credentials import Credentials
from modelswarm.content.manifest import Manifest, decode, from_binary_data, shard_name
from modelswarm.content.source import HubSource, Provider, StoreSource
from modelswarm.errors import AgentError, Forbidden, InvalidReference, NotFound
from modelswarm.kube.kinds import CONFIGMAP, SECRET
from modelswarm.kube.port import KubePort

MODELSCOPE_KEY = "MODELSCOPE_API_TOKEN"
SERVICE_ACCOUNT = "ome-model-agent"


class ProvisionReason(StrEnum):
    """Why a content cannot be begun; used verbatim in the NodeCache."""

    MANIFEST_NOT_FOUND = "ManifestNotFound"
    MANIFEST_NOT_READABLE = "ManifestNotReadable"
    MANIFEST_INVALID = "ManifestInvalid"
    CREDENTIAL_NOT_FOUND = "CredentialNotFound"
    CREDENTIAL_NOT_READABLE = "CredentialNotReadable"


class Provisions:
    """Reads them when they are needed, and keeps nothing. ``namespace`` is the agent's own."""

    def __init__(self, kube: KubePort, *, namespace: str, service_account: str = SERVICE_ACCOUNT) -> None:
        self._kube = kube
        self._namespace = namespace
        self._service_account = service_account

    async def manifest(self, wanted: Wanted) -> Manifest | None:
        """The list of files of a pinned content, from whichever of its tasks can give it; None for a BaseModel, whose
        coordinator makes the list.

        Raises ``AgentError``, and ``KubeError`` where it is worth another try.
        """
        problem: AgentError | None = None
        references = [claim.manifest for claim in wanted.claims if claim.manifest is not None]
        for reference in references:
            try:
                return await self._read_manifest(reference, wanted.content)
            except AgentError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        if wanted.content is not None:
            raise AgentError(ProvisionReason.MANIFEST_NOT_FOUND, "no task has a list of files for it yet")
        return None

    async def _read_manifest(self, reference: ManifestRef, content: str | None) -> Manifest:
        names = [shard_name(reference.name, index) for index in range(reference.shards)]
        try:
            shards = [
                from_binary_data(_data(await self._kube.get(CONFIGMAP, name, reference.namespace), "binaryData"))
                for name in names
            ]
            manifest = decode(shards)
        except NotFound:
            raise AgentError(
                ProvisionReason.MANIFEST_NOT_FOUND,
                f"ConfigMap {reference.namespace}/{reference.name}, the list of files, does not exist",
            ) from None
        except Forbidden:
            raise AgentError(
                ProvisionReason.MANIFEST_NOT_READABLE,
                f"the agent may not read ConfigMap {reference.namespace}/{reference.name}; allow it with: "
                + self._grant("file-lists", "configmaps", reference.namespace),
            ) from None
        except InvalidReference as error:
            raise AgentError(ProvisionReason.MANIFEST_INVALID, error.message) from None
        if manifest.digest != content:
            raise AgentError(
                ProvisionReason.MANIFEST_INVALID,
                f"ConfigMap {reference.namespace}/{reference.name} lists another content than the task's status says",
            )
        return manifest

    async def credentials(self, wanted: Wanted) -> Credentials | None:
        """What the origin asks for, from the first Secret of its claims that can be read; None where none is named.

        Raises ``AgentError`` if no Secret could be used and every claim names one, and ``KubeError``.
        """
        problem: AgentError | None = None
        for claim in wanted.claims:
            if claim.secret is None:
                continue
            try:
                return await self._read_credentials(claim, claim.secret, wanted.source)
            except AgentError as error:
                problem = problem or error
        if problem is not None and all(claim.secret is not None for claim in wanted.claims):
            raise problem
        return None

    async def _read_credentials(
        self, claim: Claim, reference: SecretRef, source: HubSource | StoreSource
    ) -> Credentials:
        try:
            secret = await self._kube.get(SECRET, reference.name, reference.namespace)
        except NotFound:
            raise AgentError(
                ProvisionReason.CREDENTIAL_NOT_FOUND,
                f"Secret {reference.namespace}/{reference.name} does not exist; create it, or remove the reference",
            ) from None
        except Forbidden:
            raise AgentError(
                ProvisionReason.CREDENTIAL_NOT_READABLE,
                f"the agent may not read Secret {reference.namespace}/{reference.name}; allow it with: "
                + self._grant(
                    f"credentials-{reference.name}",
                    f"secrets --resource-name={reference.name}",
                    reference.namespace,
                ),
            ) from None
        data = _data(secret, "data")

        def value(key: str) -> str:
            return _value(data, reference, key)

        match source:
            case StoreSource(provider=Provider.OSS):
                return Credentials(access_key_id=value(OSS_SECRET_KEYS[0]), access_key_secret=value(OSS_SECRET_KEYS[1]))
            case StoreSource():
                return Credentials(access_key_id=value(AWS_SECRET_KEYS[0]), access_key_secret=value(AWS_SECRET_KEYS[1]))
            case HubSource(hub=HubName.MODELSCOPE):
                # Not demanded: the Secret may be there for Hugging Face alone.
                return Credentials(modelscope_token=_decode(data.get(MODELSCOPE_KEY, "")) or None)
        return Credentials(hub_token=value(reference.key or HUB_SECRET_KEY))

    def _grant(self, what: str, resource: str, namespace: str) -> str:
        """Two commands. ``what`` names the role, so that the next Secret of the namespace gets one of its own."""
        role = f"{self._service_account}-{what}"
        return (
            f"kubectl -n {namespace} create role {role} --verb=get --resource={resource} && "
            f"kubectl -n {namespace} create rolebinding {role} --role={role} "
            f"--serviceaccount={self._namespace}:{self._service_account}"
        )


def _data(obj: JsonObject, field: str) -> dict[str, str]:
    data = obj.get(field)
    return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}


def _value(data: dict[str, str], reference: SecretRef, key: str) -> str:
    value = _decode(data.get(key, ""))
    if not value:
        raise AgentError(
            ProvisionReason.CREDENTIAL_NOT_FOUND,
            f"Secret {reference.namespace}/{reference.name} has no key {key}, or it is empty",
        )
    return value


def _decode(value: str) -> str:
    try:
        return base64.b64decode(value).decode(errors="replace").strip()
    except ValueError:
        return ""
