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
from modelswarm.controllers.drift import Ownership, ownership
from modelswarm.controllers.queue import Key
from modelswarm.controllers.secrets import read_credentials, read_registry_auths
from modelswarm.controllers.world import World
from modelswarm.errors import (
    AccessDenied,
    Conflict,
    ContentError,
    Forbidden,
    Invalid,
    InvalidReference,
    KubeError,
    SourceUnavailable,
    TaskBlocked,
)
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


AT_ONCE = 16
"""Pinnings that run at the same time, so that they leave connections to everybody else."""
PinError = ContentError | TaskBlocked


@dataclass(slots=True)
class _Entry:
    version: tuple[str, int]
    """The task's uid and generation: a task that was made anew under the same name starts at generation 1 too."""
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
        self._slots = asyncio.Semaphore(AT_ONCE)

    def look(self, task: P2PTask) -> PinState:
        """Start what is due, and say how it stands. A changed spec starts anew."""
        key, version = Key(task.metadata.namespace, task.metadata.name), (task.metadata.uid, task.metadata.generation)
        loop = asyncio.get_running_loop()
        entry = self._entries.get(key)
        if entry is not None and entry.version != version:
            self.forget(key)
            entry = None
        if entry is None or (entry.job is None and entry.outcome is None and loop.time() >= entry.not_before):
            entry = _Entry(version, None, loop.time())
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
            async with self._slots:
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
    _cache: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    """By the task's uid too: the digest says nothing of where the bytes come from."""

    async def pin(self, task: P2PTask) -> Pin:
        """Pin, or restore what a pinned task's manifest said.

        Raises ``ContentError``, ``TaskBlocked``, ``KubeError``.
        """
        if task.spec.image is not None:
            return await self._pin_image(task)
        written = await self._read_shards(task)
        if written is not None:
            manifest, shards = written
            return _pin_of(task, manifest, shards=shards, public=await self._is_public(task, manifest))
        manifest = await self._resolve_model(task)
        before = task.status.resolved
        if before is not None and before.digest != manifest.digest:
            raise Moved(
                f"the manifest was lost and the origin has changed since it was pinned ({before.digest} then); "
                "delete the task to pin what is there now"
            )
        public = await self._is_public(task, manifest)
        shards = await self._write_shards(task, manifest)
        return _pin_of(task, manifest, shards=shards, public=public)

    async def manifest(self, task: P2PTask) -> Manifest:
        """The pinned manifest, from its ConfigMaps. Raises ``InvalidReference`` where it is not complete."""
        key = (task.metadata.uid, task.status.resolved.digest if task.status.resolved is not None else "")
        if key not in self._cache:
            written = await self._read_shards(task)
            if written is None:
                raise InvalidReference("the manifest is not there yet")
            if len(self._cache) > 64:
                self._cache.clear()
            self._cache[key] = written[0]
        return self._cache[key]

    async def check_image(self, task: P2PTask) -> str:
        """The digest that the task's tag points at now. Raises ``ContentError``, ``TaskBlocked``, ``KubeError``."""
        image = task.spec.image
        assert image is not None
        auths = await read_registry_auths(self.world, task)
        return await self.resolver.resolve_digest(image.reference, auths.by_registry)

    async def _pin_image(self, task: P2PTask) -> Pin:
        image = task.spec.image
        assert image is not None
        auths = await read_registry_auths(self.world, task)
        try:
            manifest = await self.resolver.resolve_image(image.reference, image.platforms, auths.by_registry)
        except AccessDenied:
            if auths.problem is not None:
                raise auths.problem from None
            raise
        return Pin(
            Resolved(
                revision=manifest.revision,
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

    async def _is_public(self, task: P2PTask, manifest: Manifest) -> bool | None:
        """Whether the pinned files can be read without credentials; None for object stores, and where nobody knows.

        What was read without a token is public. A hub that does not answer the question (429, 5xx) leaves it open, and
        that counts as "no" for the life of the task: the next engine only is slower, whereas a pin that failed for
        this question would make a token worse than none. A new task asks again.
        """
        if task.status.resolved is not None:
            return task.status.resolved.public
        assert task.spec.model is not None
        source = parse_source(task.spec.model.source)
        if not isinstance(source, HubSource):
            return None
        credentials = await read_credentials(self.world, task, source)
        if credentials is None or (credentials.hub_token or credentials.modelscope_token) is None:
            return True
        return await self.resolver.is_public(manifest)

    async def _read_shards(self, task: P2PTask) -> tuple[Manifest, int] | None:
        """The manifest that was written for this very task, and in how many shards; an incomplete one is removed."""
        namespace, name = task.metadata.namespace, task.metadata.name
        ours: list[JsonObject] = []
        for stub in self.world.store.list(CONFIGMAP, index=("task", f"{namespace}/{name}")):
            config_map = await self.world.kube.get(CONFIGMAP, key_of(stub).name, namespace)
            if ownership(config_map, task) is Ownership.OURS:
                ours.append(config_map)
        if not ours:
            return None
        try:
            return manifests.decode([_shard(config_map) for config_map in ours]), len(ours)
        except InvalidReference:
            for config_map in ours:
                await self.world.delete(CONFIGMAP, key_of(config_map).name, namespace, uid=metadata(config_map)["uid"])
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
            except (Forbidden, Invalid) as error:
                raise TaskBlocked(
                    TaskReason.MANIFEST_REFUSED, f"the API server refuses ConfigMap {name}: {error.message}"
                ) from None
        return len(shards)

    async def _adopt_or_explain(self, task: P2PTask, name: str) -> None:
        """A shard of that name exists: ours (a lost answer), an earlier task's of that name, or somebody else's."""
        existing = await self.world.kube.get(CONFIGMAP, name, task.metadata.namespace)
        match ownership(existing, task):
            case Ownership.FOREIGN:
                raise TaskBlocked(
                    TaskReason.NAME_CLASH,
                    f"ConfigMap {task.metadata.namespace}/{name} exists and does not belong to this task; remove it",
                )
            case Ownership.STALE:
                # The garbage collector would take it too, but not before half a minute where our CRDs are new to it.
                uid = str(metadata(existing)["uid"])
                await self.world.delete(CONFIGMAP, name, task.metadata.namespace, uid=uid)
            case Ownership.OURS:
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


def _shard(config_map: JsonObject) -> bytes:
    data = config_map.get("binaryData")
    return manifests.from_binary_data({str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {})


def manifest_name(task: P2PTask) -> str:
    return f"{task.metadata.name}-manifest"


def _pin_of(task: P2PTask, manifest: Manifest, *, shards: int, public: bool | None) -> Pin:
    return Pin(
        Resolved(
            revision=manifest.revision,
            digest=manifest.digest,
            digest_source=digest_source(manifest),
            files=len(manifest.files),
            bytes=manifest.bytes,
            public=public,
        ),
        ManifestReference(name=manifest_name(task), shards=shards),
    )
