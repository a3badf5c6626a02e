"""One content on this node, from wanting it to serving it: Absent, Waiting, Fetching, Verifying, Ready; or Failed.

A session may end at any instruction and begin again: what is on disk is taken stock of, and everything else is asked
for anew. It ends by being cancelled, when nobody wants the content here any more or its tasks are suspended.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import uuid
from collections.abc import Callable
from dataclasses import replace

from modelswarm import logs
from modelswarm.agent.account import TELL_SECONDS, Account
from modelswarm.agent.conduct import Conduct
from modelswarm.agent.leases import ModelLease, Plan
from modelswarm.agent.parts import Parts
from modelswarm.agent.pinning import pin
from modelswarm.agent.segments import choose_segment_bytes
from modelswarm.agent.standing import Standing
from modelswarm.agent.store import Filling
from modelswarm.agent.swarm import Event
from modelswarm.agent.troubles import DAMAGED, SPACE_NEEDED, Trouble, of_error
from modelswarm.agent.wanted import Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.content.manifest import Manifest
from modelswarm.errors import KubeError, ModelswarmError, StoreError
from modelswarm.kube.key import Key

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Between attempts that fail, and between those that only a person can make succeed."""
UNSETTLED_SECONDS = 10.0
"""How often, about, a complete node looks at a Lease that may still name it as the coordinator."""

log = logging.getLogger(__name__)


class Session:
    """``wanted`` may be replaced while it runs: claims come and go."""

    def __init__(self, wanted: Wanted, parts: Parts, *, rng: random.Random | None = None) -> None:
        self._renewed = asyncio.Event()
        self._parts = parts
        self._rng = rng or random.Random()
        self._conduct: Conduct | None = None
        self._unsettled = False
        """The Lease may still be ours, without the mark that nobody lacks anything."""
        self._account = Account(wanted, parts.store, parts.metrics, parts.signals)
        self._id, self._attempts = uuid.uuid4().hex[:8], itertools.count(1)

    @property
    def wanted(self) -> Wanted:
        return self._account.wanted

    @wanted.setter
    def wanted(self, wanted: Wanted) -> None:
        before, self._account.wanted = self._account.wanted, wanted
        if (wanted.claims, wanted.source) != (before.claims, before.source):
            # Another Secret, another path, another task with a list of files: what failed may work now.
            self._renewed.set()

    @property
    def conduct(self) -> Conduct | None:
        """While it is being fetched, or others still miss something of it."""
        return self._conduct

    @property
    def content(self) -> str | None:
        """The content id, as soon as it is known."""
        return self._account.content

    @property
    def is_ready(self) -> bool:
        return self._account.is_ready

    async def hear(self, event: Event) -> bool:
        """An event of the swarm; whether it was about this content."""
        return self._conduct is not None and await self._conduct.hear(event)

    def standing(self) -> Standing:
        """How far it is now."""
        return self._account.standing()

    async def run(self) -> None:
        """Until cancelled. Whatever goes wrong is said in the standing, and tried again: soon while bytes come, slowly
        where only a person can help, and at once when what is wanted has changed."""
        pause = FIRST_PAUSE
        while True:
            self._renewed.clear()
            before = self._account.sources
            with self._about():
                trouble = await self._attempt()
            moved = self._account.sources != before
            if trouble is None or (moved and trouble.passing):
                pause = FIRST_PAUSE
            else:
                pause = min(pause * 2, LONGEST_PAUSE) if trouble.passing else LONGEST_PAUSE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause * self._rng.uniform(0.5, 1.0)):
                    await self._renewed.wait()

    async def place(self) -> None:
        """Directories of users that have been asked for, once it is ready. What cannot be is said."""
        if not self.is_ready or self.content is None or not self._parts.store.has(self.content):
            return  # what was evicted is noticed soon
        problems: list[Trouble] = []
        for path in self.wanted.paths:
            try:
                await self._parts.store.materialize(self.content, path)
            except StoreError as error:
                problems.append(of_error(error, self.wanted))
        if not problems:
            self._account.say_ready()
            return
        # Whoever looks elsewhere for it has it all the same.
        missed = len(problems) == len({(claim.path, claim.uid) for claim in self.wanted.claims})
        self._account.say(ModelState.FAILED if missed else ModelState.READY, problems[0].reason, problems[0].message)

    # Inside

    def _about(self) -> contextlib.AbstractContextManager[None]:
        """Lines of one attempt name the objects that want the content, as the operator's lines do."""
        wanted = self.wanted
        return logs.about(
            controller=next((claim.kind.lower() for claim in wanted.claims), ""),
            object=",".join(str(Key(claim.namespace, claim.name)) for claim in wanted.claims),
            reconcile_id=f"{self._id}-{next(self._attempts)}",
            model=wanted.name,
            model_hash=wanted.model_hash,
        )

    async def _attempt(self) -> Trouble | None:
        try:
            await self._live()
            return None
        except ModelswarmError as error:
            trouble = of_error(error, self.wanted)
        except Exception as error:
            log.exception("P2P %s: a defect; trying again", self.wanted.name)
            trouble = of_error(error, self.wanted)
        self._account.fail(trouble)
        return trouble

    async def _live(self) -> None:
        parts, account, lease = self._parts, self._account, self._lease()
        turns, key = parts.turns, self.wanted.key
        try:
            if not self.is_ready:
                account.wait_for("its list of files")
            if self.wanted.content is not None:
                turns.ask(key, self.wanted.content.removeprefix("sha256:"))
            manifest = await self._find_manifest(lease)
            content = manifest.digest.removeprefix("sha256:")
            parts.hosting.manifests[content] = manifest
            await account.open(manifest)
            turns.ask(key, content)
            if not turns.take(key):
                await lease.release()  # it was taken to pin the branch; who wants nothing else may coordinate
                if not parts.store.has(content):
                    account.wait_for("the same files, which this node fetches for another model")
                await self._until(lambda: turns.take(key) or parts.store.has(content))
            if not turns.take(key):
                await self._take_over(manifest, lease)
                return
            if parts.store.has(content):
                if not self.is_ready:
                    account.say(ModelState.VERIFYING)
            else:
                account.wait_for("the disk: what is there of it is looked for, and room for the rest")
            filling = await parts.store.begin(manifest, adopt_from=self.wanted.paths)
            async with filling, account.following(filling):
                coordinated = await self._bring(filling, lease)
            # Held no longer: when space is needed, what no pod uses may go.
            turns.leave(key)
            await self._serve(filling, lease, make_now=coordinated)
        finally:
            turns.leave(key)
            await lease.release()

    async def _take_over(self, manifest: Manifest, lease: ModelLease) -> None:
        """It is here, by way of another session, which may still help the other nodes."""
        filling = await self._parts.store.begin(manifest, adopt_from=self.wanted.paths)
        async with filling, self._account.following(filling):
            if not filling.is_complete:
                return
            self._account.begin()
            await self._complete(filling)
        turns, content = self._parts.turns, filling.content
        turns.leave(self.wanted.key)
        # It makes the torrent, too.
        await self._until(lambda: not (turns.is_taken(content) and self._parts.store.has(content)))
        await self._serve(filling, lease, make_now=False)

    async def _bring(self, filling: Filling, lease: ModelLease) -> bool:
        """Fetch what is missing and help the others; returns whether this node has coordinated."""
        coordinated, account, parts = False, self._account, self._parts
        account.begin()
        if filling.is_complete:
            await self._complete(filling)
        if not filling.is_complete or lease.term is not None or await self._is_unfinished(lease, filling.content):
            if not filling.is_complete:
                account.say(ModelState.FETCHING)
            conduct = self._conduct = account.attempt = Conduct(
                filling,
                lease,
                parts,
                self.wanted,
                completed=self._complete,
                pulse=account.look,
                rng=self._rng,
            )
            try:
                await conduct.run()
                coordinated = conduct.has_coordinated
            finally:
                await conduct.close()
                account.close_attempt()
                self._conduct = None
            self._unsettled = lease.record is not None and not lease.record.complete
        await self._complete(filling)
        return coordinated

    async def _is_unfinished(self, lease: ModelLease, content: str) -> bool:
        """What is complete here: whether others may need it, or a coordinator. Where that cannot be known, later.

        Who has begun to seed it had no such duties any more, but perhaps for the mark on the Lease, which is set here
        where nobody holds it.
        """
        parts = self._parts
        if not parts.settings.p2p_enabled or not (self._unsettled or not await parts.seeding.has_seeded(content)):
            return False
        try:
            record = await lease.look()
        except KubeError:
            self._unsettled = True
            return False
        if lease.is_abandoned:
            await lease.mark()
            record = lease.record
        self._unsettled = record is not None and not record.complete
        return self._unsettled and record is not None and (record.holder == parts.address.node or lease.is_fresh())

    async def _serve(self, filling: Filling, lease: ModelLease, *, make_now: bool) -> None:
        """Seed it for as long as it is here; then, if it was evicted, wait until there is a reason to bring it back."""
        parts, account, content = self._parts, self._account, filling.content
        model_hash = self.wanted.model_hash  # another task may give it another one
        seeding: asyncio.Task[None] | None = None
        try:
            if parts.settings.p2p_enabled:
                seeding = asyncio.create_task(parts.seeding.seed(filling, model_hash, make_now=make_now), name="seed")
            await self._while_here(content, model_hash, lease, seeding)
        finally:
            if seeding is not None:
                seeding.cancel()
                await asyncio.gather(seeding, return_exceptions=True)
            parts.seeding.stop(content, model_hash)
        if parts.store.has(content):
            return
        if parts.store.knows(content):
            account.lose(ModelState.WAITING, DAMAGED, "files have changed on the disk; fetching them again")
            return
        account.lose(ModelState.EVICTED, SPACE_NEEDED, "its space was needed; it comes back with a pod, or with space")
        await self._until(
            lambda: bool(self.wanted.pods) or self.wanted.pin or parts.signals.has_room(filling.manifest.bytes)
        )

    async def _while_here(
        self, content: str, model_hash: str, lease: ModelLease, seeding: asyncio.Task[None] | None
    ) -> None:
        """Until it is not, or is to be served under another hash, or there is something to settle about the Lease.

        Raises what ended ``seeding``.
        """
        loop, parts = asyncio.get_running_loop(), self._parts
        tried = looked = loop.time()
        while parts.store.has(content) and self.wanted.model_hash == model_hash:
            await asyncio.sleep(TELL_SECONDS)
            if seeding is not None and seeding.done():
                seeding.result()
                # Until now a late comer found nobody under this hash, and may have begun to coordinate.
                seeding, self._unsettled = None, True
            due = loop.time() - looked > UNSETTLED_SECONDS * self._rng.uniform(0.5, 1.0)
            if (self._unsettled or seeding is not None) and due and not parts.turns.is_taken(content):
                looked = loop.time()
                if await self._is_unfinished(lease, content):
                    return
            if self._account.reason is not None and self.wanted.paths and loop.time() - tried > LONGEST_PAUSE:
                tried = loop.time()
                await self.place()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  (what the disk holds is seen by looking)
            await asyncio.sleep(TELL_SECONDS)

    async def _complete(self, filling: Filling) -> None:
        """Everything is here and verified: say so on disk, then to the cluster. Again, nothing happens."""
        if self.is_ready:
            return
        self._account.say(ModelState.VERIFYING)
        await filling.complete()
        await self._account.complete(filling)
        await self.place()
        self._account.count_complete()

    async def _find_manifest(self, lease: ModelLease) -> Manifest:
        """From the disk, from the task, or from whoever pins the branch."""
        if self.wanted.content is None:
            found = await pin(lambda: self.wanted, lease, self._parts, waits=self._account.wait_for, rng=self._rng)
            # Should somebody delete the Lease, whoever makes it again does not look up the branch a second time.
            lease.plan = replace(lease.plan, commit=found.revision or "", manifest=found.digest)
            return found
        known = self._parts.store.manifest(self.wanted.content.removeprefix("sha256:"))
        pinned = known or await self._parts.provisions.manifest(self.wanted)
        assert pinned is not None, "a pinned content has a list of files"
        return pinned

    def _lease(self) -> ModelLease:
        parts, wanted, manifest = self._parts, self.wanted, self._account.manifest
        total = manifest.bytes if manifest is not None else wanted.bytes
        nodes = 1 + len(parts.discovery.peers())
        return ModelLease(
            parts.kube,
            namespace=parts.settings.pod_namespace,
            model_hash=wanted.model_hash,
            me=parts.address.node,
            plan=Plan(
                coordinator=parts.address.url,
                segment_bytes=choose_segment_bytes(total, nodes) if total else 0,
                repo=wanted.name,
                commit=(wanted.revision or "") if wanted.content is not None else "",
                manifest=wanted.content or "",
            ),
            duration=parts.settings.lease_seconds,
            renew_every=parts.settings.lease_seconds / 4,
            readers=lambda: self._conduct.readers if self._conduct is not None else (),
            models=lambda: tuple(self.wanted.models),
            rng=self._rng,
        )
