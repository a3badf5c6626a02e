"""A task, an engine and a fake manager, with time that passes only when told to."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from modelswarm.api.labels import FINALIZER
from modelswarm.api.p2ptask import DragonflyStatus, P2PTask
from modelswarm.backends.dragonfly.client import ManagerClient
from modelswarm.backends.dragonfly.engine import Dragonfly
from modelswarm.backends.dragonfly.images import Images
from modelswarm.backends.dragonfly.seeds import Seeds
from modelswarm.backends.dragonfly.settings import DragonflySettings
from modelswarm.backends.dragonfly.wire import Unanswered
from modelswarm.backends.engine import EngineState, Observation
from modelswarm.content.credentials import Credentials, RegistryAuth
from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.errors import EngineError, PlatformNotFound
from tests.unit.backends.fake_manager import TOKEN, URL, FakeManager

START = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
COMMIT = "7ae557604adf67be50417f59c2c2f167def9a775"
DIGEST = "sha256:" + "d" * 64
MODEL: dict[str, Any] = {"model": {"source": {"modelHub": {"modelID": "org/name"}}}}
IMAGE: dict[str, Any] = {"image": {"reference": "docker.io/vllm/vllm-openai:v0.7.3", "platforms": ["linux/amd64"]}}
IMAGE_MANIFEST_URL = f"https://index.docker.io/v2/vllm/vllm-openai/manifests/{DIGEST}"
BLOBS = [f"sha256:{c * 64}" for c in "abc"]


def model_manifest(*sizes: int) -> Manifest:
    files = tuple(ManifestFile(f"file-{n:02}.bin", size, "sha256:" + f"{n:064x}") for n, size in enumerate(sizes))
    return Manifest(Origin(OriginKind.HUGGINGFACE, "org/name"), COMMIT, files)


def url_of(number: int) -> str:
    return file_url(Origin(OriginKind.HUGGINGFACE, "org/name"), COMMIT, f"file-{number:02}.bin", Endpoints())


def blob_url(digest: str) -> str:
    return f"https://index.docker.io/v2/vllm/vllm-openai/blobs/{digest}"


def image_manifest() -> Manifest:
    files = [ManifestFile(f"blobs/{digest.replace(':', '/')}", 10, digest) for digest in BLOBS]
    files.append(ManifestFile(f"manifests/{DIGEST.replace(':', '/')}", 5, DIGEST))
    return Manifest(Origin(OriginKind.IMAGE, "docker.io/vllm/vllm-openai"), DIGEST, tuple(files))


@dataclass
class FakeWire:
    """Schedulers and seed peers that have what the fake manager's jobs have brought so far."""

    manager: FakeManager
    addresses: tuple[str, ...] = ("10.0.0.3:4000",)
    silent: bool = False
    lists: int = 0
    questions: int = 0

    async def seeds(self, scheduler: str) -> Sequence[str]:
        self.lists += 1
        if self.silent:
            raise Unanswered("planted")
        return self.addresses

    async def holds(self, seed: str, task_id: str) -> bool:
        self.questions += 1
        if self.silent:
            raise Unanswered("planted")
        return self.manager.has(task_id)


@dataclass
class Scene:
    """``step`` is one reconcile: ensure, write the status (as JSON, and read it again), keep the finalizer."""

    manifest: Manifest = field(default_factory=lambda: model_manifest(100, 200, 300))
    spec: dict[str, Any] = field(default_factory=lambda: dict(MODEL))
    settings: DragonflySettings = field(default_factory=lambda: DragonflySettings(URL))
    credentials: Credentials | None = None
    auths: dict[str, RegistryAuth] = field(default_factory=dict)
    registry: dict[str, str] = field(default_factory=dict)
    """Headers of a registry's answer to ``/v2/``."""
    images: dict[str, Manifest] = field(default_factory=lambda: {"linux/amd64": image_manifest()})
    node_platforms: tuple[str, ...] = ()
    tokens: list[str] = field(default_factory=lambda: [TOKEN])
    """What reading the Secret gives, one after the other; the last one for ever."""
    now: datetime = START

    def __post_init__(self) -> None:
        self.manager = FakeManager(lambda: self.now)
        self.wire = FakeWire(self.manager)
        self.token_reads = 0
        self.passes = 0
        resolved = {"revision": COMMIT, "digest": DIGEST, "digestSource": "Hub", "files": 3, "bytes": 600}
        metadata = {"name": "task", "namespace": "ns", "uid": "task-uid", "generation": 1, "creationTimestamp": START}
        self.task = P2PTask.model_validate({"metadata": metadata, "spec": self.spec, "status": {"resolved": resolved}})
        self.process()

    def process(self) -> None:
        """A new operator process: nothing in memory."""
        client = ManagerClient(self.manager.client(), URL, self._token, rest_seconds=0)
        registry = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda request: httpx.Response(401, headers=self.registry))
        )
        images = Images(registry, Endpoints(), self.settings, self._resolve, self._auths, self._platforms)
        seeds = Seeds(self.settings.schedulers, self.wire, clock=lambda: self.now.timestamp())
        self.engine = Dragonfly(
            client, self.settings, Endpoints(), images, seeds, clock=lambda: self.now, rng=random.Random(1)
        )

    async def ensure(self) -> Observation:
        self.passes += 1
        return await self.engine.ensure(self.task, self._manifest, self.credentials)

    async def step(self) -> Observation:
        try:
            observation = await self.ensure()
        except EngineError as error:
            return Observation(EngineState.UNREACHABLE, error.reason, error.message)
        self.write(observation)
        return observation

    def write(self, observation: Observation) -> None:
        metadata = self.task.metadata.model_copy(update={"finalizers": (FINALIZER,) if observation.holds else ()})
        status = self.task.status
        if observation.state is not EngineState.UNREACHABLE and observation.dragonfly is not None:
            dragonfly = DragonflyStatus.model_validate(observation.dragonfly.to_json())
            status = status.model_copy(update={"dragonfly": dragonfly})
        self.task = self.task.model_copy(update={"metadata": metadata, "status": status})

    async def run(self, *, seconds: float = 3600, until: EngineState = EngineState.READY) -> Observation:
        """Reconcile as the controller would, until the state or the end of the time."""
        end = self.now + timedelta(seconds=seconds)
        while True:
            observation = await self.step()
            done = self.status.complete if until is EngineState.READY else observation.poll_after is None
            if observation.state is until and done:
                return observation
            if self.now >= end:
                return observation
            self.now += timedelta(seconds=observation.poll_after or 10.0)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def status(self) -> DragonflyStatus:
        return self.task.status.dragonfly or DragonflyStatus()

    def with_settings(self, **changes: Any) -> None:
        """A restart with other settings."""
        self.settings = replace(self.settings, **changes)
        self.process()

    async def _manifest(self) -> Manifest:
        return self.manifest

    async def _token(self) -> str:
        self.token_reads += 1
        return self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]

    async def _resolve(self, reference: str, platforms: Sequence[str], auths: Mapping[str, RegistryAuth]) -> Manifest:
        assert reference.endswith(f"@{DIGEST}"), "the image is pinned"
        if platforms[0] not in self.images:
            raise PlatformNotFound(f"not available for {platforms[0]}")
        return self.images[platforms[0]]

    async def _auths(self, task: P2PTask) -> Mapping[str, RegistryAuth]:
        return self.auths

    async def _platforms(self) -> Sequence[str]:
        return self.node_platforms


def image_scene(**options: Any) -> Scene:
    scene = Scene(spec=dict(IMAGE), **options)
    scene.manager.blobs[IMAGE_MANIFEST_URL, "linux/amd64"] = [blob_url(digest) for digest in BLOBS]
    return scene
