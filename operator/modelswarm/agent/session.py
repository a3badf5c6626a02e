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
from modelswarm.agent.progress import Ledger, Sources, Speed, clear_progress, counts_file, write_progress
from modelswarm.agent.segments import choose_segment_bytes
from modelswarm.agent.standing import Standing, of_wanted
from modelswarm.agent.store import Filling
from modelswarm.agent.swarm import Event
from modelswarm.agent.troubles import DAMAGED, NO_COORDINATOR, PEER_SHUNNED, PREPARING, SPACE_NEEDED, Trouble, of_error
from modelswarm.agent.wanted import Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.content.manifest import Manifest
from modelswarm.errors import ModelswarmError, StoreError

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Between attempts that fail, and between those that only a person can make succeed."""
TELL_SECONDS = 2.0

log = logging.getLogger(__name__)


class Session:
    """``wanted`` may be replaced while it runs: claims come and go."""

    def __init__(self, wanted: Wanted, parts: Parts, *, rng: random.Random | None = None) -> None:
        self._wanted = wanted
        self._renewed = asyncio.Event()
        self._parts = parts
        self._rng = rng or random.Random()
        self._state = ModelState.ABSENT
        self._reason: str | None = None
        self._message = ""
        self._ready: datetime | None = None
        self._manifest: Manifest | None = None
        self._filling: Filling | None = None
        self._conduct: Conduct | None = None
        self._ledger = Ledger(
            lambda news: parts.metrics.received(
                self._wanted.model_hash, origin_bytes=news.origin, peer_bytes=news.peers
            )
        )
        self._speed = Speed()
        self._wanted_at: float | None = None

    @property
    def wanted(self) -> Wanted:
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: Wanted) -> None:
        if (wanted.claims, wanted.source) != (self._wanted.claims, self._wanted.source):
            # Another Secret, another path, another task with a list of files: what failed may work now.
            self._renewed.set()
        self._wanted = wanted

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
        return self._ready is not None

    async def hear(self, event: Event) -> bool:
        """An event of the swarm; whether it was about this content."""
        return self._conduct is not None and await self._conduct.hear(event)

    def standing(self) -> Standing:
        """How far it is now."""
        sources = self._ledger.total(self._current())
        manifest, filling = self._manifest, self._filling
        base = of_wanted(self._wanted, self._state)
        total = manifest.bytes if manifest is not None else base.bytes
        done = filling.present_bytes() if filling is not None else 0
        done += self._conduct.unmarked if self._conduct is not None else 0
        moving = self._state is ModelState.FETCHING
        return Standing(
            key=manifest.digest if manifest is not None else base.key,
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
        """Until cancelled. Whatever goes wrong is said in the standing, and tried again: soon while bytes come, slowly
        where only a person can help, and at once when what is wanted has changed."""
        pause = FIRST_PAUSE
        while True:
            self._renewed.clear()
            before = self._ledger.total(self._current())
            trouble = await self._attempt()
            moved = self._ledger.total(self._current()) != before
            if trouble is None or (moved and trouble.passing):
                pause = FIRST_PAUSE
            else:
                pause = min(pause * 2, LONGEST_PAUSE) if trouble.passing else LONGEST_PAUSE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * self._rng.uniform(0.5, 1.0)):
                    await self._renewed.wait()

    async def place(self) -> None:
        """Directories of users that have been asked for, once it is ready. What cannot be is said."""
        if not self.is_ready or self.content is None:
            return
        problems: list[Trouble] = []
        for path in self._wanted.paths:
            try:
                await self._parts.store.materialize(self.content, path)
            except StoreError as error:
                problems.append(of_error(error, self._wanted))
        if not problems:
            trouble = self._conduct.trouble if self._conduct is not None else None
            noted = trouble is not None and trouble.reason == PEER_SHUNNED
            self._say(
                ModelState.READY,
                trouble.reason if trouble and noted else None,
                trouble.message if trouble and noted else "",
            )
            return
        # Whoever looks elsewhere for it has it all the same.
        missed = len(problems) == len({(claim.path, claim.uid) for claim in self._wanted.claims})
        self._say(ModelState.FAILED if missed else ModelState.READY, problems[0].reason, problems[0].message)

    # Inside

    async def _attempt(self) -> Trouble | None:
        try:
            await self._live()
            return None
        except ModelswarmError as error:
            trouble = of_error(error, self._wanted)
        except Exception as error:
            log.exception("P2P %s: a defect; trying again", self._wanted.name)
            trouble = of_error(error, self._wanted)
        self._ready = None
        if trouble.state is ModelState.FAILED:
            self._parts.metrics.failed(self._wanted.model_hash, trouble.reason)
        self._say(trouble.state, trouble.reason, trouble.message)
        return trouble

    async def _live(self) -> None:
        parts, lease = self._parts, self._lease()
        try:
            if not self.is_ready:
                self._wait_for("its list of files")
            manifest = self._manifest = await self._find_manifest(lease)
            content = manifest.digest.removeprefix("sha256:")
            parts.hosting.manifests[content] = manifest
            counts = counts_file(parts.store.root, content)
            await asyncio.to_thread(self._ledger.open, counts)
            if parts.store.has(content):
                self._say(ModelState.VERIFYING, None, "")
            else:
                self._wait_for("the disk: what is there of it is looked for, and room for the rest")
            filling = await parts.store.begin(manifest, adopt_from=self._wanted.paths)
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
                filling, lease, self._parts, self._wanted, completed=self._complete, pulse=self._look, rng=self._rng
            )
            try:
                await conduct.run()
                coordinated = conduct.has_coordinated
            finally:
                await conduct.close()
                self._ledger.close_attempt(conduct.sources())
                self._conduct = None
        if not self.is_ready:
            await self._complete(filling)
        return coordinated

    async def _serve(self, filling: Filling, *, make_now: bool) -> None:
        """Seed it for as long as it is here; then, if it was evicted, wait until there is a reason to bring it back."""
        parts, content = self._parts, filling.content
        try:
            if parts.settings.p2p_enabled:
                await parts.seeding.seed(filling, self._wanted.model_hash, make_now=make_now)
            await self._while_here(content)
        finally:
            parts.seeding.stop(content, self._wanted.model_hash)
        self._ready = None
        if parts.store.knows(content):
            self._say(ModelState.WAITING, DAMAGED, "files have changed on the disk; fetching them again")
            return
        self._say(ModelState.EVICTED, SPACE_NEEDED, "its space was needed; it comes back with a pod, or with space")
        await self._until(
            lambda: bool(self._wanted.pods) or self._wanted.pin or parts.signals.has_room(filling.manifest.bytes)
        )

    async def _while_here(self, content: str) -> None:
        loop = asyncio.get_running_loop()
        tried = loop.time()
        while self._parts.store.has(content):
            await asyncio.sleep(TELL_SECONDS)
            if self._reason is not None and self._wanted.paths and loop.time() - tried > LONGEST_PAUSE:
                tried = loop.time()
                await self.place()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  (what the disk holds is seen by looking)
            await asyncio.sleep(TELL_SECONDS)

    async def _complete(self, filling: Filling) -> None:
        """Everything is here and verified: say so on disk, then to the cluster."""
        self._say(ModelState.VERIFYING, None, "")
        await filling.complete()
        await asyncio.to_thread(clear_progress, Path(filling.directory))
        self._ready = datetime.now(UTC).replace(microsecond=0)
        await self.place()
        current = self._current()
        self._ledger.tell(current)
        seconds = asyncio.get_running_loop().time() - (self._wanted_at or 0.0)
        self._wanted_at = None
        self._parts.metrics.downloaded(self._wanted.model_hash, Source.of(current.origin, current.peers), seconds)
        total = self._ledger.total(current)
        log.info(
            "P2P %s is ready: %d bytes, %d from the origin, %d from peers",
            self._wanted.name, filling.manifest.bytes, total.origin, total.peers,
        )  # fmt: skip

    async def _find_manifest(self, lease: ModelLease) -> Manifest:
        """From the disk, from the task, or from whoever pins the branch."""
        if self._wanted.content is None:
            return await pin(self._wanted, lease, self._parts, waits=self._wait_for, rng=self._rng)
        known = self._parts.store.manifest(self._wanted.content.removeprefix("sha256:"))
        found = known or await self._parts.provisions.manifest(self._wanted)
        assert found is not None, "a pinned content has a list of files"
        return found

    def _lease(self) -> ModelLease:
        parts = self._parts
        total = self._manifest.bytes if self._manifest is not None else self._wanted.bytes
        nodes = 1 + len(parts.discovery.peers())
        return ModelLease(
            parts.kube,
            namespace=parts.settings.pod_namespace,
            model_hash=self._wanted.model_hash,
            me=parts.address.node,
            plan=Plan(
                coordinator=parts.address.url,
                segment_bytes=choose_segment_bytes(total, nodes) if total else 0,
                repo=self._wanted.name,
                commit=(self._wanted.revision or "") if self._wanted.content is not None else "",
                manifest=self._wanted.content or "",
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
            current = self._current()
            self._speed.note(loop.time(), self._ledger.total(current))
            self._ledger.tell(current)
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
            await asyncio.to_thread(self._ledger.save, current)
            self._parts.signals.notice()
            await asyncio.sleep(TELL_SECONDS)

    def _look(self) -> None:
        """The conduct has news."""
        conduct, filling = self._conduct, self._filling
        if conduct is None or filling is None or self.is_ready:
            return
        trouble, waits_for = conduct.trouble, conduct.waits_for
        all_here = filling.present_bytes() >= filling.manifest.bytes
        state = ModelState.VERIFYING if all_here else ModelState.FETCHING
        if waits_for:
            state = ModelState.WAITING
        if trouble is not None:
            self._say(state, trouble.reason, trouble.message)
        else:
            self._say(state, NO_COORDINATOR if waits_for else None, waits_for)

    def _wait_for(self, what: str) -> None:
        self._say(ModelState.WAITING, PREPARING, f"for {what}")

    def _say(self, state: ModelState, reason: str | None, message: str) -> None:
        said = (self._state, self._reason, self._message)
        if said == (state, reason, message):
            return
        if state is ModelState.FAILED and said[:2] != (state, reason):
            log.warning("P2P %s: %s: %s", self._wanted.name, reason, message)
        self._state, self._reason, self._message = state, reason, message
        self._parts.signals.notice()

    def _current(self) -> Sources:
        """What the attempt that is under way has brought."""
        return self._conduct.sources() if self._conduct is not None else Sources()
