"""Puts a load together from options and environment: which source, which legs, which directory."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from modelswarm import __version__
from modelswarm.api.labels import AWS_SECRET, MODEL_PATH, OSS_SECRET
from modelswarm.content.endpoints import Endpoints, file_url, object_key
from modelswarm.content.manifest import Manifest
from modelswarm.content.source import HubSource, Provider, layout
from modelswarm.errors import LoadError, SettingsError
from modelswarm.loader.detours import Detours
from modelswarm.loader.effort import Effort
from modelswarm.loader.gate import Gate
from modelswarm.loader.leg import Leg
from modelswarm.loader.load import Load
from modelswarm.loader.network import open_client
from modelswarm.loader.node import NodeModel
from modelswarm.loader.origin import OriginHTTP
from modelswarm.loader.outcome import Reason
from modelswarm.loader.pin import ask_origin, mounted_manifest
from modelswarm.loader.progress import Meter
from modelswarm.loader.settings import (
    DfdaemonSettings,
    Settings,
    read_credentials,
    read_dfdaemon,
    read_node,
    read_number,
    read_source,
    read_switch,
    read_turnstile,
)
from modelswarm.loader.tree import Tree, free_space
from modelswarm.loader.turn import Behind, Turn

if TYPE_CHECKING:
    from modelswarm.loader.dfdaemon import Writer

_CONNECT_SECONDS = 20.0


def open_session(options: argparse.Namespace, environ: Mapping[str, str], say: Callable[[str], None]) -> "Session":
    """Read options (``command``) and environment; raises ``LoadError`` for what cannot work."""
    parallel = options.parallel or read_number(environ, "MODELSWARM_LOAD_PARALLEL", Effort().parallel)
    numbers = (
        parallel,
        options.attempts,
        options.stall_seconds,
        options.progress_seconds,
        options.span_mib,
        options.retry_seconds,
    )
    if min(numbers) <= 0:
        raise LoadError(Reason.INVALID_SETTINGS, "numbers given as options must be greater than zero")
    source = read_source(environ)
    settings = Settings(
        source=source,
        credentials=read_credentials(environ, source),
        root=Path(options.root).absolute(),
        manifest_dir=Path(options.manifest_dir) if options.manifest_dir else None,
        check=options.check,
        effort=Effort(
            parallel=parallel,
            attempts=options.attempts,
            span_bytes=options.span_mib << 20,
            first_pause=options.retry_seconds,
        ),
        stall=options.stall_seconds,
        dfdaemon=read_dfdaemon(environ),
        node=read_node(environ),
        public=read_switch(environ, "MODELSWARM_CONTENT_PUBLIC"),
        turnstile=read_turnstile(environ),
    )
    try:
        endpoints = Endpoints.from_env(environ)
    except SettingsError as error:
        raise LoadError(Reason.INVALID_SETTINGS, str(error)) from error
    return Session(settings, endpoints, options.progress_seconds, say)


class Session:
    """One run. ``meter`` and ``manifest`` are there once the content is pinned, also after a failure."""

    def __init__(self, settings: Settings, endpoints: Endpoints, progress: float, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.manifest: Manifest | None = None
        self.meter: Meter | None = None
        self.detours = Detours()
        self.turn: Turn | None = None
        source = settings.source
        self.model = source.model_id if isinstance(source, HubSource) else source.uri
        self.directory = settings.root / Path(layout(source).directory).relative_to(MODEL_PATH)
        self._endpoints = endpoints
        self._progress = progress
        self._say = say

    async def run(self) -> None:
        """Pin, then fetch or check; raises ``LoadError``."""
        settings = self.settings
        gate = Gate(self._say)
        async with open_client(
            stall=settings.stall, connect=_CONNECT_SECONDS, user_agent=f"modelswarm-loader/{__version__}"
        ) as http:
            self.manifest = manifest = await self._pin(http, gate)
            self.meter = Meter(manifest.bytes, len(manifest.files))
            self._say(f"{self.model} at {manifest.revision or 'its present version'}: {len(manifest.files)} files")
            legs = await self._legs(http, gate, manifest)
            load = Load(
                manifest,
                Tree(
                    settings.root,
                    self.directory,
                    f"{manifest.origin.kind}:{manifest.origin.id}",
                    node=settings.node,
                ),
                legs,
                settings.effort,
                self.meter,
                say=self._say,
                free=free_space,
                progress=self._progress,
                detours=self.detours,
                node=NodeModel(settings.node) if settings.node is not None else None,
            )
            try:
                await (load.check() if settings.check else load.run())
            finally:
                if self.turn is not None:
                    await self.turn.leave()

    async def _pin(self, http: httpx.AsyncClient, gate: Gate) -> Manifest:
        settings = self.settings
        mounted = mounted_manifest(settings.manifest_dir, settings.source, self._say)
        if mounted is not None:
            return mounted
        from modelswarm.content.resolve import Resolver

        resolver = Resolver(http, self._endpoints)
        return await ask_origin(
            lambda: resolver.resolve_model(settings.source, settings.credentials), settings.effort, gate, self.model
        )

    async def _legs(self, http: httpx.AsyncClient, gate: Gate, manifest: Manifest) -> list[Leg]:
        """The origin is the last. Who is told of a turnstile reads it in an engine's place, and when it is its turn."""
        origin, before, meter = await self._origin(http, gate, manifest), self._dfdaemon(manifest), self.meter
        if self.settings.turnstile is None or meter is None:
            return [*before, origin]
        self.turn = Turn(
            self.settings.turnstile,
            lambda: meter.by_source.get(origin.name, 0),
            self._say,
            lambda why: self.detours.unused(Turn.name, why),
        )
        return [*before, Behind(self.turn, origin)]

    def _dfdaemon(self, manifest: Manifest) -> list[Leg]:
        """The node's Dragonfly daemon, where there is one and it may have the files."""
        settings = self.settings.dfdaemon
        if settings is None or self.settings.check:
            return []
        from modelswarm.loader.dfdaemon import Dfdaemon, negligible

        if not isinstance(self.settings.source, HubSource):
            self.detours.unused(Dfdaemon.name, "only files of a hub come through Dragonfly")
            return []
        writer = self._writer(settings)
        if writer is None:
            return []
        return [Dfdaemon(settings, lambda path: self._file_url(manifest, path), writer, negligible(manifest.files))]

    def _writer(self, settings: DfdaemonSettings) -> "Writer | None":
        """How the daemon is asked: with the token only if its owner has allowed that, and not where none is needed."""
        from modelswarm.loader.dfdaemon import Dfdaemon, Why
        from modelswarm.loader.dfget import Dfget

        token = self.settings.credentials.hub_token or self.settings.credentials.modelscope_token
        if token is None or self.settings.public:
            return Dfget(settings)
        if not settings.allow_gated:
            # The files may be public all the same; what is private must not get where it is given to everybody.
            self.detours.unused(Dfdaemon.name, "there is a token, and Dragonfly asks nobody for one")
            return None
        try:
            from modelswarm.loader.dfstream import DfdaemonStream
        except ImportError:
            why = "the image has no grpcio and dragonfly-api, and a token is handed over by gRPC only"
            self.detours.unused(Dfdaemon.name, f"{Why.GRPC_MISSING} ({why})")
            return None
        return DfdaemonStream(settings, {"Authorization": f"Bearer {token}"})

    def _file_url(self, manifest: Manifest, path: str) -> str:
        return file_url(manifest.origin, manifest.revision, path, self._endpoints)

    async def _origin(self, http: httpx.AsyncClient, gate: Gate, manifest: Manifest) -> Leg:
        source, credentials = self.settings.source, self.settings.credentials
        if isinstance(source, HubSource):
            return OriginHTTP(
                http,
                gate,
                lambda path: self._file_url(manifest, path),
                credentials.hub_token or credentials.modelscope_token,
            )
        # Imported here: a load from a hub does not wait for the library of the stores.
        from modelswarm.content.objectstore import bucket_region, open_store
        from modelswarm.loader.objects import ObjectStore

        region = await bucket_region(http, source, self._endpoints)
        return ObjectStore(
            open_store(source, credentials, self._endpoints, region=region),
            lambda path: object_key(manifest.origin, path)[1],
            source.bucket,
            OSS_SECRET if source.provider is Provider.OSS else AWS_SECRET,
            stall=self.settings.stall,
        )
