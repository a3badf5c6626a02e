"""Reading the Secrets that tasks name. What is read goes into ``Credentials`` objects and nowhere else."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from modelswarm.api.conditions import TaskCondition, TaskReason, find
from modelswarm.api.labels import (
    AWS_SECRET,
    AWS_SECRET_KEYS,
    HUB_SECRET,
    HUB_SECRET_KEY,
    MODELSCOPE_SECRET_KEY,
    OSS_SECRET,
    OSS_SECRET_KEYS,
)
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import HubName
from modelswarm.api.p2ptask import P2PTask, Phase
from modelswarm.content.credentials import Credentials, RegistryAuth, parse_docker_config
from modelswarm.content.source import HubSource, Provider, Source, StoreSource
from modelswarm.controllers.world import World
from modelswarm.errors import ContentError, ContentReason, Forbidden, NotFound, TaskBlocked
from modelswarm.kube.kinds import SECRET

_ASKS_FOR_CREDENTIALS = frozenset(
    {ContentReason.ACCESS_DENIED, TaskReason.CREDENTIAL_NOT_FOUND, TaskReason.CREDENTIAL_NOT_READABLE}
)
DOCKER_KEYS = (".dockerconfigjson", ".dockercfg")


def secret_for(source: Source) -> str | None:
    """The Secret that llmaz users keep for this kind of source."""
    match source:
        case HubSource():
            return HUB_SECRET
        case StoreSource(provider=Provider.OSS):
            return OSS_SECRET
        case StoreSource():
            return AWS_SECRET
        case _:
            return None


def asks_for_credentials(task: P2PTask) -> bool:
    """Whether the task failed for want of the right credentials, so that other ones may help."""
    resolved = find(task.status.conditions, TaskCondition.RESOLVED)
    return task.status.phase is Phase.FAILED and resolved is not None and resolved.reason in _ASKS_FOR_CREDENTIALS


async def read_credentials(world: World, task: P2PTask, source: Source) -> Credentials | None:
    """What the task's Secret holds for this source; None where the task names no Secret.

    Raises ``TaskBlocked`` where the Secret is missing, may not be read, or lacks the key.
    """
    reference = task.spec.credentials_secret_ref
    if reference is None:
        return None
    data = await _read(world, reference.name, task.metadata.namespace)
    match source:
        case StoreSource(provider=provider):
            keys = OSS_SECRET_KEYS if provider is Provider.OSS else AWS_SECRET_KEYS
            key_id, key_secret = (_value(data, reference.name, key) for key in keys)
            return Credentials(access_key_id=key_id, access_key_secret=key_secret)
        case HubSource(hub=HubName.MODELSCOPE):
            # Not demanded: the Secret may be there for Hugging Face alone.
            token = data.get(MODELSCOPE_SECRET_KEY, b"").decode(errors="replace").strip()
            return Credentials(modelscope_token=token or None)
        case _:
            return Credentials(hub_token=_value(data, reference.name, HUB_SECRET_KEY))


@dataclass(frozen=True, slots=True)
class RegistryAuths:
    """What a task's pull secrets hold, and the first of them that could not be used.

    As for the kubelet, such a one is no failure by itself: the image may well be public.
    """

    by_registry: dict[str, RegistryAuth]
    problem: TaskBlocked | None = None


async def read_registry_auths(world: World, task: P2PTask) -> RegistryAuths:
    """All registries' credentials in the task's pull secrets; the first Secret that names a registry wins (kubelet)."""
    auths: dict[str, RegistryAuth] = {}
    problem: TaskBlocked | None = None
    names: Iterable[str] = () if task.spec.image is None else (ref.name for ref in task.spec.image.pull_secrets)
    for name in names:
        try:
            found = parse_docker_config(_docker_config(name, await _read(world, name, task.metadata.namespace)))
        except TaskBlocked as error:
            problem = problem or error
        except ContentError as error:
            problem = problem or TaskBlocked(TaskReason.CREDENTIAL_NOT_FOUND, f"Secret {name}: {error.message}")
        else:
            auths = {**found, **auths}
    return RegistryAuths(auths, problem)


def _docker_config(name: str, data: dict[str, bytes]) -> bytes:
    document = next((data[key] for key in DOCKER_KEYS if key in data), None)
    if document is None:
        raise TaskBlocked(
            TaskReason.CREDENTIAL_NOT_FOUND, f"Secret {name} is no pull secret: it has no {DOCKER_KEYS[0]}"
        )
    return document


async def _read(world: World, name: str, namespace: str) -> dict[str, bytes]:
    try:
        secret = await world.kube.get(SECRET, name, namespace)
    except NotFound:
        raise TaskBlocked(
            TaskReason.CREDENTIAL_NOT_FOUND,
            f"Secret {namespace}/{name} does not exist; create it, or remove the reference",
        ) from None
    except Forbidden:
        raise TaskBlocked(
            TaskReason.CREDENTIAL_NOT_READABLE, _how_to_grant(name, namespace, world.settings.namespace)
        ) from None
    return {key: _decode(value) for key, value in _data(secret).items()}


def _how_to_grant(name: str, namespace: str, operator: str) -> str:
    role = f"modelswarm-credentials-{name}"  # one for each Secret: the second of a namespace is another role
    return (
        f"the operator may not read Secret {namespace}/{name}; allow it with: "
        f"kubectl -n {namespace} create role {role} --verb=get --resource=secrets --resource-name={name} && "
        f"kubectl -n {namespace} create rolebinding {role} --role={role} "
        f"--serviceaccount={operator}:modelswarm-operator"
    )


def _data(secret: JsonObject) -> dict[str, str]:
    data = secret.get("data")
    return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}


def _decode(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except ValueError:
        return b""


def _value(data: dict[str, bytes], name: str, key: str) -> str:
    value = data.get(key, b"").decode(errors="replace").strip()
    if not value:
        raise TaskBlocked(TaskReason.CREDENTIAL_NOT_FOUND, f"Secret {name} has no key {key}, or it is empty")
    return value
