"""The contents that live on this node: sessions come and go with what is wanted, and the disk is kept in order."""

import asyncio
import collections
import logging
import random
from collections.abc import Collection
from dataclasses import replace

from modelswarm.agent.metrics import Live
from modelswarm.agent.parts import Parts
from modelswarm.agent.progress import forget_sources
from modelswarm.agent.reporter import Reporter
from modelswarm.agent.scout import NodeView
from modelswarm.agent.session import Session
from modelswarm.agent.standing import Capacity, Standing, of_noted, of_wanted
from modelswarm.agent.store import ContentState, Held, Protection
from modelswarm.agent.troubles import SUSPENDED
from modelswarm.agent.wanted import Needs, Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.errors import StoreError

SETTLE_SECONDS = 0.1
"""Changes within so short a time are reported together."""
ORDER_SECONDS = 60.0
"""How often the disk is looked after: watermark, orphans, who uses what."""

log = logging.getLogger(__name__)


class Residents:
    """``want`` it as the scout says; ``run`` it as a task, with the scout and the reporter beside it."""

    def __init__(self, parts: Parts, reporter: Reporter, *, rng: random.Random | None = None) -> None:
        self.sessions: dict[str, Session] = {}
        self._parts = parts
        self._reporter = reporter
        self._rng = rng or random.Random()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._needs: Needs | None = None
        self._applied: Needs | None = None
        self._node: NodeView | None = None
        self._signals = parts.signals
        self._held: list[Held] = []
        self._reserved = 0
        self._ready: frozenset[str] = frozenset()
        parts.store.on_evicted(self._evicted)

    def want(self, needs: Needs, node: NodeView) -> None:
        self._needs, self._node = needs, node
        self._signals.notice()

    async def run(self) -> None:
        """Until cancelled; sessions end with it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._dispatch(), name="swarm-events")
                group.create_task(self._keep_order(), name="disk-order")
                group.create_task(self._follow(), name="residents")
        finally:
            await self._stop(list(self._tasks))

    async def _follow(self) -> None:
        while True:
            await self._signals.dirty.wait()
            self._signals.dirty.clear()
            try:
                await self._catch_up()
            except StoreError as error:
                log.warning("P2P: the disk: %s", error)
            self._tell()
            await asyncio.sleep(SETTLE_SECONDS)

    async def _catch_up(self) -> None:
        """Raises ``StoreError``; what is wanted is applied once more with the next news then."""
        needs = self._needs
        if needs is not None and needs != self._applied:
            await self._apply(needs)
            self._applied = needs
        ready = frozenset(key for key, session in self.sessions.items() if session.is_ready)
        if ready != self._ready:
            self._ready = ready
            await self._measure()

    async def _dispatch(self) -> None:
        while True:
            event = await self._signals.events.get()
            if self._parts.seeding.hear(event):
                continue
            self._parts.sharing.hear(event)
            # Not only the first who knows it: contents that share a file share its windows.
            for session in [*self.sessions.values()]:
                try:
                    await session.hear(event)
                except StoreError as error:
                    log.warning("P2P: %s", error)

    # What is wanted

    async def _apply(self, needs: Needs) -> None:
        before = self._applied.wanted if self._applied is not None else {}
        running = {key: wanted for key, wanted in needs.wanted.items() if not wanted.suspended}
        await self._protect(needs)
        anew = {key for key in before.keys() & running.keys() if running[key].is_anew(before[key])}
        # Whoever is wanted for another claim, or suspended, keeps what it has.
        await self._stop([key for key in self._tasks if key not in running or key in anew])
        for key in (before.keys() - needs.wanted.keys()) | anew:
            await self._leave(before[key], needs)
        for key, wanted in running.items():
            await self._start(key, wanted, needs)
        self._parts.hosting.wanted = {
            wanted.model_hash: (wanted.content or "").removeprefix("sha256:") for wanted in needs.wanted.values()
        }

    async def _start(self, key: str, wanted: Wanted, needs: Needs) -> None:
        session = self.sessions.get(key)
        if session is None:
            session = self.sessions[key] = Session(wanted, self._parts, rng=random.Random(self._rng.random()))
        else:
            before, session.wanted = session.wanted, wanted
            await self._clear(before, needs)
            if key in self._tasks:
                await session.place()
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(session.run(), name=f"session {wanted.name}")

    async def _clear(self, before: Wanted, needs: Needs) -> None:
        """Directories that nobody asks for any more. One that cannot be cleared is not worth the agent's life."""
        for path in before.paths:
            if any(path in other.paths for other in needs.wanted.values()):
                continue
            try:
                await self._parts.store.unmaterialize(path)
            except StoreError as error:
                log.warning("P2P: %s cannot be cleared: %s", path, error)

    async def _stop(self, keys: Collection[str]) -> None:
        tasks = [self._tasks.pop(key) for key in keys]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self, wanted: Wanted, needs: Needs) -> None:
        """Nobody wants it here any more. What a task brought stays until its space is needed; what a BaseModel brought
        goes, unless somebody else may need it."""
        session = self.sessions.pop(wanted.key, None)
        content = session.content if session is not None else None
        await self._clear(wanted, needs)
        self._parts.metrics.forget(wanted.model_hash)
        if content is None or any(claim.is_task for claim in wanted.claims):
            return
        if content not in self._wanted_contents(needs) and f"sha256:{content}" not in needs.in_use:
            freed = await self._parts.store.purge(content)
            self._parts.hosting.forget(content)
            await asyncio.to_thread(self._forget, content)
            log.info("P2P %s: removed with its last claim, %d bytes freed", wanted.name, freed)

    def _wanted_contents(self, needs: Needs) -> set[str]:
        return {self._content(key, wanted) for key, wanted in needs.wanted.items()}

    def _content(self, key: str, wanted: Wanted) -> str:
        """The content id; empty while a branch is not pinned."""
        if wanted.content is not None:
            return wanted.content.removeprefix("sha256:")
        session = self.sessions.get(key)
        return (session.content if session is not None else None) or ""

    async def _protect(self, needs: Needs) -> None:
        by_content = {
            content: wanted for key, wanted in needs.wanted.items() if (content := self._content(key, wanted))
        }
        in_use = frozenset(content.removeprefix("sha256:") for content in needs.in_use)
        self._parts.store.protect(
            Protection(
                pinned=frozenset(content for content, wanted in by_content.items() if wanted.pin),
                in_use=in_use | {content for content, wanted in by_content.items() if wanted.pods},
                wanted=frozenset(by_content),
            )
        )
        for content in in_use:
            if self._parts.store.has(content):
                await self._parts.store.touch(content)

    # The disk

    async def _keep_order(self) -> None:
        while True:
            try:
                if self._needs is not None:
                    await self._protect(self._needs)
                    await self._parts.store.keep_watermark()
                    await self._parts.store.sweep()
                await self._measure()
                here = {held.content for held in self._held}
                self._parts.swarm.counters.keep(here | self._wanted_contents(self._needs or Needs()))
            except (StoreError, OSError) as error:
                log.warning("P2P: the disk: %s", error)
            self._signals.notice()
            await asyncio.sleep(ORDER_SECONDS)

    def _evicted(self, content: str) -> None:
        """In a thread of the store."""
        log.info("P2P: evicted %s: its space was needed", content[:16])
        self._parts.metrics.evictions.inc()
        self._forget(content)

    def _forget(self, content: str) -> None:
        """The content is gone from the disk. Blocks for a moment."""
        try:
            self._parts.seeding.forget(content)
            forget_sources(self._parts.store.root, content)
        except OSError as error:
            log.warning("P2P: the disk: %s", error)

    async def _measure(self) -> None:
        found = await self._parts.store.capacity()
        self._signals.capacity = Capacity(total=found.limit, used=found.used, free=found.available)
        self._reserved = found.reserved
        self._held = await self._parts.store.models()

    # Telling

    def live(self) -> Live:
        """What a scrape of the metrics looks up."""
        counters = self._parts.swarm.counters
        sessions = self.sessions.values()
        fetching = [session for session in sessions if session.conduct is not None and not session.is_ready]
        elsewhere = [each for each in fetching if each.conduct is not None and each.conduct.is_coordinated_elsewhere]
        states = collections.Counter(standing.state for standing in self.standings())
        return Live(
            bytes_uploaded=counters.total.uploaded + self._parts.hosting.bytes_sent,
            bytes_downloaded=counters.total.downloaded,
            seeding_torrents=len(self._parts.seeding.hashes),
            downloads_in_flight=len(fetching),
            leases_waiting=len(elsewhere),
            peers_discovered=self._parts.discovery.discovered,
            peers_connected={
                session.wanted.model_hash: session.conduct.peers_connected
                for session in sessions
                if session.conduct is not None
            },
            models={
                session.wanted.model_hash: (session.wanted.name, session.wanted.revision or "") for session in sessions
            },
            states=dict(states),
            capacity=self._signals.capacity,
            reserved=self._reserved,
        )

    def standings(self) -> list[Standing]:
        """Everything that is wanted here, and what is here all the same."""
        needs = self._needs or Needs()
        found: list[Standing] = []
        for key, wanted in needs.wanted.items():
            session = self.sessions.get(key)
            standing = session.standing() if session is not None else of_wanted(wanted)
            if wanted.suspended:
                standing = replace(
                    standing,
                    state=ModelState.WAITING,
                    fetching_from=None,
                    bytes_per_second=0,
                    reason=SUSPENDED,
                    message="everybody who wants it has suspended it",
                )
            found.append(standing)
        named = {standing.key for standing in found}
        found += [of_noted(noted) for noted in needs.noted]
        found += [_merely_here(held) for held in self._held if f"sha256:{held.content}" not in named]
        return found

    def _tell(self) -> None:
        if self._node is not None:
            self._reporter.update(self.standings(), self._signals.capacity, self._node)


def _merely_here(held: Held) -> Standing:
    manifest = held.manifest
    complete = held.state is ContentState.COMPLETE
    return Standing(
        key=f"sha256:{held.content}",
        name=manifest.origin.id if manifest is not None else held.content[:16],
        state=ModelState.READY if complete else ModelState.ABSENT,
        revision=manifest.revision if manifest is not None else None,
        bytes=held.bytes,
        done_bytes=held.present,
    )
