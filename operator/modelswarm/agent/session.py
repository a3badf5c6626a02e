"""One content on this node, from wanting it to serving it: Absent, Waiting, Fetching, Verifying, Ready; or Failed.

A session may end at any instruction and begin again: what is on disk is taken stock of, and everything else is asked
for anew. It ends by being cancelled, when nobody wants the content here any more or its tasks are suspended.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

from modelswarm.agent.conduct import Conduct
from modelswarm.agent.leases import ModelLease, Plan
from modelswarm.agent.metrics import Source
from modelswarm.agent.parts import Parts
from modelswarm.agent.pinning import pin
from modelswarm.agent.progress import Sources, Speed, clear_progress, read_sources, write_progress, write_sources
from modelswarm.agent.segments import choose_segment_bytes
from modelswarm.agent.standing import Standing, of_wanted
from modelswarm.agent.store import Filling
from modelswarm.agent.swarm import Event
from modelswarm.agent.wanted import Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.content.manifest import Manifest
from modelswarm.errors import AgentError, ContentError, KubeError, PeerError, StoreError, SwarmError

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
TELL_SECONDS = 2.0
_COUNTS = "counts"

log = logging.getLogger(__name__)


class Session:
    """``wanted`` may be replaced while it runs: claims come and go."""

    def __init__(self, wanted: Wanted, parts: Parts, *, rng: random.Random | None = None) -> None:
        self.wanted = wanted
        self._parts = parts
        self._rng = rng or random.Random()
        self._state = ModelState.ABSENT
        self._reason: str | None = None
        self._message = ""
        self._ready: datetime | None = None
        self._manifest: Manifest | None = None
        self._filling: Filling | None = None
        self._conduct: Conduct | None = None
        self._before = Sources()
        """What earlier runs have counted."""
        self._speed = Speed()
        self._counted = Sources()
        """What the metrics know of."""
        self._wanted_at: float | None = None

    @property
    def conduct(self) -> Conduct | None:
        """While it is being fetched, or others still miss something of it."""
        return self._conduct

    @property
    def content(self) -> str | None:
        """The content id, as soon as it is known."""
        return self._manifest.digest.removeprefix("sha256:") if self._manifest is not None else None

    @property
    def is_ready(self) -> bool:
        return self._state is ModelState.READY

    async def hear(self, event: Event) -> bool:
        """An event of the swarm; whether it was about this content."""
        return self._conduct is not None and await self._conduct.hear(event)

    def standing(self) -> Standing:
        """How far it is now."""
        sources = self._sources()
        manifest, filling = self._manifest, self._filling
        base = of_wanted(self.wanted, self._state)
        key = manifest.digest if manifest is not None else base.key
        total = manifest.bytes if manifest is not None else base.bytes
        done = filling.present_bytes() if filling is not None and self._state is not ModelState.EVICTED else 0
        moving = self._state is ModelState.FETCHING
        return Standing(
            key=key,
            name=base.name,
            state=self._state,
            revision=manifest.revision if manifest is not None else base.revision,
            claims=base.claims,
            fetching_from=self._speed.mostly_from if moving else None,
            bytes=total,
            done_bytes=total if self.is_ready else min(done, total),
            origin_bytes=sources.origin,
            peer_bytes=sources.peers,
            bytes_per_second=self._speed.bytes_per_second if moving else 0,
            reason=self._reason,
            message=self._message,
            ready_time=self._ready,
        )

    async def run(self) -> None:
        """Until cancelled. Whatever goes wrong is said in the standing, and tried again."""
        pause = FIRST_PAUSE
        while True:
            done = self._filling_bytes()
            try:
                await self._live()
            except (AgentError, ContentError, StoreError) as error:
                self._parts.metrics.failed(self.wanted.model_hash, str(error.reason))
                self._say(ModelState.FAILED, str(error.reason), str(error))
            except (KubeError, PeerError, SwarmError) as error:
                self._say(ModelState.WAITING, type(error).__name__, error.message)
            except Exception:
                log.exception("P2P %s: a defect; trying again", self.wanted.name)
                self._say(ModelState.FAILED, "InternalError", "see the agent's log")
            pause = FIRST_PAUSE if self._filling_bytes() > done else min(pause * 2, LONGEST_PAUSE)
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))

    # Inside

    async def _live(self) -> None:
        parts, lease = self._parts, self._lease()
        try:
            if not self.is_ready:
                self._say(ModelState.WAITING, None, "")
            manifest = self._manifest = await self._find_manifest(lease)
            content = manifest.digest.removeprefix("sha256:")
            parts.hosting.manifests[content] = manifest
            self._before = await asyncio.to_thread(read_sources, self._counts_file(content))
            if parts.store.has(content):
                self._say(ModelState.VERIFYING, None, "")
            filling = await parts.store.begin(manifest, adopt_from=self.wanted.paths)
            async with filling:
                self._filling = filling
                async with self._telling(filling):
                    coordinated = await self._bring(filling, lease)
            # Held no longer: when space is needed, what no pod uses may go.
            self._filling = None
            await self._serve(filling, make_now=coordinated)
        finally:
            self._filling = None
            await lease.release()

    async def _bring(self, filling: Filling, lease: ModelLease) -> bool:
        """Fetch what is missing and help the others; returns whether this node has coordinated."""
        coordinated, loop = False, asyncio.get_running_loop()
        self._wanted_at = self._wanted_at or loop.time()
        if not filling.is_complete or lease.term is not None:
            self._say(ModelState.FETCHING, None, "")
            conduct = self._conduct = Conduct(
                filling, lease, self._parts, self.wanted, completed=self._complete, pulse=self._look, rng=self._rng
            )
            try:
                await conduct.run()
                coordinated = conduct.has_coordinated
            finally:
                await conduct.close()
                self._count()
                self._keep_sources(conduct)
                self._conduct = None
        if not self.is_ready:
            await self._complete(filling)
        return coordinated

    async def _serve(self, filling: Filling, *, make_now: bool) -> None:
        """Seed it for as long as it is here; then, if it was evicted, wait until there is a reason to bring it back."""
        parts, content = self._parts, filling.content
        try:
            if parts.settings.p2p_enabled:
                await parts.seeding.seed(filling, self.wanted.model_hash, make_now=make_now)
            await self._until(lambda: not parts.store.has(content))
        finally:
            parts.seeding.stop(content, self.wanted.model_hash)
        self._ready = None
        if parts.store.shelf.records.get(content) is not None:
            self._say(ModelState.WAITING, "Damaged", "files have changed on the disk; fetching them again")
            return
        self._say(ModelState.EVICTED, "SpaceNeeded", "its space was needed; it comes back with a pod, or with space")
        await self._until(lambda: bool(self.wanted.pods) or self.wanted.pin or parts.has_room(filling.manifest.bytes))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  (what the disk holds is seen by looking)
            await asyncio.sleep(TELL_SECONDS)

    async def _complete(self, filling: Filling) -> None:
        """Everything is here and verified: say so on disk, then to the cluster."""
        self._say(ModelState.VERIFYING, None, "")
        await filling.complete()
        for path in self.wanted.paths:
            await self._parts.store.materialize(filling.content, path)
        directory = Path(filling.directory)
        await asyncio.to_thread(clear_progress, directory)
        self._ready = datetime.now(UTC).replace(microsecond=0)
        self._say(ModelState.READY, None, "")
        sources = self._sources()
        self._count()
        seconds = asyncio.get_running_loop().time() - (self._wanted_at or 0.0)
        fetched = self._conduct.sources() if self._conduct is not None else Sources()
        source = Source.of(fetched.origin, fetched.peers)
        self._parts.metrics.downloaded(self.wanted.model_hash, source, seconds)
        log.info(
            "P2P %s is ready: %d bytes, %d from the origin, %d from peers",
            self.wanted.name, filling.manifest.bytes, sources.origin, sources.peers,
        )  # fmt: skip

    async def place(self) -> None:
        """Directories of users that have been asked for since it became ready."""
        if self.is_ready and self.content is not None:
            for path in self.wanted.paths:
                await self._parts.store.materialize(self.content, path)

    async def _find_manifest(self, lease: ModelLease) -> Manifest:
        """From the disk, from the task, or from whoever pins the branch."""
        if self.wanted.content is not None:
            known = self._parts.store.shelf.records.get(self.wanted.content.removeprefix("sha256:"))
            if known is not None and known.manifest is not None:
                return known.manifest
            found = await self._parts.provisions.manifest(self.wanted)
            assert found is not None, "a pinned content has a list of files"
            return found
        return await pin(self.wanted, lease, self._parts, rng=self._rng)

    def _lease(self) -> ModelLease:
        parts = self._parts
        total = self._manifest.bytes if self._manifest is not None else self.wanted.bytes
        nodes = 1 + len(parts.discovery.peers())
        return ModelLease(
            parts.kube,
            namespace=parts.settings.pod_namespace,
            model_hash=self.wanted.model_hash,
            me=parts.address.node,
            plan=Plan(
                coordinator=parts.address.url,
                segment_bytes=choose_segment_bytes(total, nodes) if total else 0,
                repo=self.wanted.name,
                commit=(self.wanted.revision or "") if self.wanted.content is not None else "",
                manifest=self.wanted.content or "",
            ),
            duration=parts.settings.lease_seconds,
            renew_every=parts.settings.lease_seconds / 4,
            readers=lambda: self._conduct.readers if self._conduct is not None else (),
            rng=self._rng,
        )

    @contextlib.asynccontextmanager
    async def _telling(self, filling: Filling) -> AsyncIterator[None]:
        """Signs of life for loaders on this node, and a standing that follows the bytes."""
        task = asyncio.create_task(self._tell(filling), name="progress")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _tell(self, filling: Filling) -> None:
        directory, loop = Path(filling.directory), asyncio.get_running_loop()
        while not filling.is_complete:
            self._speed.note(loop.time(), self._sources())
            self._count()
            standing = self.standing()
            message = f"from {standing.fetching_from.lower()}" if standing.fetching_from else self._message
            await asyncio.to_thread(
                write_progress,
                directory,
                state=self._state,
                done=standing.done_bytes,
                total=standing.bytes,
                message=message,
            )
            await asyncio.to_thread(write_sources, self._counts_file(filling.content), self._sources())
            self._parts.changed()
            await asyncio.sleep(TELL_SECONDS)

    def _look(self) -> None:
        """The conduct has news."""
        conduct, filling = self._conduct, self._filling
        if conduct is None or filling is None or self.is_ready:
            return
        trouble = conduct.trouble
        all_here = filling.present_bytes() >= filling.manifest.bytes
        if trouble is not None:
            self._say(ModelState.FETCHING, trouble.reason, trouble.message)
        elif conduct.is_waiting:
            self._say(ModelState.WAITING, None, "for a coordinator")
        else:
            self._say(ModelState.VERIFYING if all_here else ModelState.FETCHING, None, "")

    def _say(self, state: ModelState, reason: str | None, message: str) -> None:
        said = (self._state, self._reason, self._message)
        if said == (state, reason, message):
            return
        if state is ModelState.FAILED and said[:2] != (state, reason):
            log.warning("P2P %s: %s: %s", self.wanted.name, reason, message)
        self._state, self._reason, self._message = state, reason, message
        self._parts.changed()

    def _sources(self) -> Sources:
        counted = self._conduct.sources() if self._conduct is not None else Sources()
        return self._before + counted

    def _count(self) -> None:
        """Tell the metrics what has arrived since the last time."""
        now = self._conduct.sources() if self._conduct is not None else Sources()
        before, self._counted = self._counted, now
        origin, peers = max(0, now.origin - before.origin), max(0, now.peers - before.peers)
        self._parts.metrics.received(self.wanted.model_hash, origin_bytes=origin, peer_bytes=peers)

    def _keep_sources(self, conduct: Conduct) -> None:
        self._before = self._before + conduct.sources()
        if self.content is not None:
            write_sources(self._counts_file(self.content), self._before)
        self._counted = Sources()

    def _counts_file(self, content: str) -> Path:
        return self._parts.store.root / ".modelswarm" / _COUNTS / f"{content}.json"

    def _filling_bytes(self) -> int:
        return self._sources().origin + self._sources().peers
