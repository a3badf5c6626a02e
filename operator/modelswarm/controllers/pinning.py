"""Pinning: a task's branch becomes a commit, its tag a digest, and the list of files an immutable manifest, once.

The work runs beside the reconciles (an origin may take long, and a worker that waits for it would hold up other
tasks). What it found is a ``Pin``; a successor after a crash adopts the manifest that was written, so that the pin
does not move even if the branch did.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from modelswarm.api.conditions import TaskReason
from modelswarm.api.labels import MANAGED_BY, MANAGER, TASK
from modelswarm.api.meta import JsonObject, Resource
from modelswarm.api.p2ptask import ManifestReference, P2PTask, Resolved
from modelswarm.content import manifest as manifests
from modelswarm.content.manifest import Manifest
from modelswarm.content.resolve import Resolver, digest_source
from modelswarm.content.source import HubSource, parse_source
from modelswarm.controllers.drift import Ownership, controller_of, ownership
from modelswarm.controllers.queue import Key
from modelswarm.controllers.secrets import read_credentials, read_registry_auths
from modelswarm.controllers.world import World
from modelswarm.errors import Conflict, ContentError, InvalidReference, KubeError, SourceUnavailable, TaskBlocked
from modelswarm.kube.kinds import CONFIGMAP
from modelswarm.kube.objects import key_of, metadata

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pin:
    """What a task was pinned to."""

    resolved: Resolved
    manifest: ManifestReference | None


class Moved(SourceUnavailable):
    """The origin no longer has, under the pinned revision, what was pinned (only object stores can do that)."""


PinError = ContentError | TaskBlocked


@dataclass(slots=True)
class _Entry:
    generation: int
    job: "asyncio.Task[None] | None"
    started: float
    outcome: Pin | PinError | None = None
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class PinState:
    """Where a task's pinning stands: still ``running`` (for ``seconds``), or with an ``outcome``; or waiting."""

    running: bool = False
    seconds: float = 0.0
    outcome: Pin | PinError | None = None
    retry_in: float = 0.0


class PinJobs:
    """One job per task, never two. ``wake`` is called with the key when there is something to see."""

    def __init__(self, pin: Callable[[P2PTask], Awaitable[Pin]], wake: Callable[[Key], None]) -> None:
        self._pin = pin
        self._wake = wake
        self._entries: dict[Key, _Entry] = {}

    def look(self, task: P2PTask) -> PinState:
        """Start what is due, and say how it stands. A changed spec starts anew."""
        key = Key(task.metadata.namespace, task.metadata.name)
        loop = asyncio.get_running_loop()
        entry = self._entries.get(key)
        if entry is not None and entry.generation != task.metadata.generation:
            self.forget(key)
            entry = None
        if entry is None or (entry.job is None and entry.outcome is None and loop.time() >= entry.not_before):
            entry = _Entry(task.metadata.generation, None, loop.time())
            entry.job = loop.create_task(self._run(key, task, entry), name=f"pin {key.namespace}/{key.name}")
            self._entries[key] = entry
        if entry.outcome is not None:
            return PinState(outcome=entry.outcome)
        if entry.job is None:
            return PinState(retry_in=max(0.0, entry.not_before - loop.time()))
        return PinState(running=True, seconds=loop.time() - entry.started)

    def settle(self, key: Key, retry_in: float | None) -> None:
        """The outcome is in the status now: forget it, and (after a failure) do not start again before ``retry_in``."""
        entry = self._entries.get(key)
        if entry is None or entry.outcome is None:
            return
        if retry_in is None:
            del self._entries[key]
        else:
            entry.outcome = None
            entry.not_before = asyncio.get_running_loop().time() + retry_in

    def forget(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.job is not None:
            entry.job.cancel()

    async def stop(self) -> None:
        jobs = [entry.job for entry in self._entries.values() if entry.job is not None]
        for key in list(self._entries):
            self.forget(key)
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _run(self, key: Key, task: P2PTask, entry: _Entry) -> None:
        try:
            entry.outcome = await self._pin(task)
        except (ContentError, TaskBlocked) as error:
            entry.outcome = error
        except KubeError as error:
            logger.warning("pinning %s/%s met the API server: %s", key.namespace, key.name, error)
            entry.not_before = asyncio.get_running_loop().time() + 1.0
        except Exception:
            logger.exception("pinning %s/%s failed", key.namespace, key.name)
            entry.outcome = SourceUnavailable("an internal error; the operator's log has the details")
        entry.job = None
        self._wake(key)


@dataclass(slots=True)
class Pinner:
    """Does the pinning itself: credentials, origin, manifest ConfigMaps."""

    world: World
    resolver: Resolver
    _cache: dict[str, Manifest] = field(default_factory=dict)

    async def pin(self, task: P2PTask) -> Pin:
        """Pin, or restore what a pinned task's manifest said.

        Raises ``ContentError``, ``TaskBlocked``, ``KubeError``.
        """
        if task.spec.image is not None:
            return await self._pin_image(task)
        written = await self._read_shards(task)
        if written is not None:
            return _pin_of(task, written, shards=len(manifests.encode(written)))
        manifest = await self._resolve_model(task)
        before = task.status.resolved
        if before is not None and before.digest != manifest.digest:
            raise Moved(
                f"the manifest was lost and the origin has changed since it was pinned ({before.digest} then); "
                "delete the task to pin what is there now"
            )
        shards = await self._write_shards(task, manifest)
        return _pin_of(task, manifest, shards=shards)

    async def manifest(self, task: P2PTask) -> Manifest:
        """The pinned manifest, from its ConfigMaps. Raises ``InvalidReference`` where it is not complete."""
        digest = task.status.resolved.digest if task.status.resolved is not None else ""
        if digest not in self._cache:
            manifest = await self._read_shards(task)
            if manifest is None:
                raise InvalidReference("the manifest is not there yet")
            if len(self._cache) > 64:
                self._cache.clear()
            self._cache[digest] = manifest
        return self._cache[digest]

    async def check_image(self, task: P2PTask) -> str:
        """The digest that the task's tag points at now. Raises ``ContentError``, ``TaskBlocked``, ``KubeError``."""
        image = task.spec.image
        assert image is not None
        auths = await read_registry_auths(self.world, task)
        return str((await self.resolver.resolve_image(image.reference, image.platforms, auths)).revision)

    async def _pin_image(self, task: P2PTask) -> Pin:
        image = task.spec.image
        assert image is not None
        auths = await read_registry_auths(self.world, task)
        manifest = await self.resolver.resolve_image(image.reference, image.platforms, auths)
        return Pin(
            Resolved(
                digest=str(manifest.revision),
                digest_source="Registry",
                files=len(manifest.files),
                bytes=manifest.bytes,
            ),
            None,
        )

    async def _resolve_model(self, task: P2PTask) -> Manifest:
        model = task.spec.model
        assert model is not None
        source = parse_source(model.source)
        credentials = await read_credentials(self.world, task, source)
        pinned = task.status.resolved
        if isinstance(source, HubSource) and pinned is not None and pinned.revision is not None:
            source = HubSource(
                source.hub,
                source.model_id,
                pinned.revision,
                source.filename,
                source.allow_patterns,
                source.ignore_patterns,
            )
        return await self.resolver.resolve_model(source, credentials)

    async def _read_shards(self, task: P2PTask) -> Manifest | None:
        """The manifest that was written for this very task, if it is complete; a broken one is removed."""
        namespace, name = task.metadata.namespace, task.metadata.name
        known = self.world.store.list(CONFIGMAP, index=("task", f"{namespace}/{name}"))
        shards: list[bytes] = []
        for stub in known:
            config_map = await self.world.kube.get(CONFIGMAP, key_of(stub).name, namespace)
            owner = controller_of(config_map)
            data = config_map.get("binaryData")
            if owner is not None and owner.uid == task.metadata.uid and isinstance(data, dict):
                shards.append(manifests.from_binary_data({str(key): str(value) for key, value in data.items()}))
        if not shards:
            return None
        try:
            return manifests.decode(shards)
        except InvalidReference:
            for stub in known:
                await self.world.delete(CONFIGMAP, key_of(stub).name, namespace, uid=metadata(stub)["uid"])
            raise Conflict("a manifest that was only partly written was removed; pinning again", status=409) from None

    async def _write_shards(self, task: P2PTask, manifest: Manifest) -> int:
        shards = manifests.encode(manifest)
        for index, shard in enumerate(shards):
            name = manifests.shard_name(manifest_name(task), index)
            labels: JsonObject = {TASK: task.metadata.name, MANAGED_BY: MANAGER}
            try:
                await self.world.create(shard_object(name, task.metadata.namespace, labels, shard, task))
            except Conflict:
                await self._adopt_or_explain(task, name)
        return len(shards)

    async def _adopt_or_explain(self, task: P2PTask, name: str) -> None:
        """A shard of that name exists though the store does not know it: ours (a lost answer), or somebody else's."""
        existing = await self.world.kube.get(CONFIGMAP, name, task.metadata.namespace)
        if ownership(existing, task) is Ownership.FOREIGN:
            raise TaskBlocked(
                TaskReason.NAME_CLASH,
                f"ConfigMap {task.metadata.namespace}/{name} exists and does not belong to this task; remove it",
            )
        self.world.store.put(CONFIGMAP, existing)
        raise Conflict(f"ConfigMap {name} was there already; looking again", status=409)


def shard_object(name: str, namespace: str, labels: JsonObject, shard: bytes, owner: Resource) -> JsonObject:
    """An immutable ConfigMap with one shard of a manifest."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [owner.owner_reference()],
        },
        "immutable": True,
        "binaryData": dict(manifests.to_binary_data(shard)),
    }


def manifest_name(task: P2PTask) -> str:
    return f"{task.metadata.name}-manifest"


def _pin_of(task: P2PTask, manifest: Manifest, *, shards: int) -> Pin:
    return Pin(
        Resolved(
            revision=manifest.revision,
            digest=manifest.digest,
            digest_source=digest_source(manifest),
            files=len(manifest.files),
            bytes=manifest.bytes,
        ),
        ManifestReference(name=manifest_name(task), shards=shards),
    )
