"""What a session says of its content: the state, what stands in the way, how many bytes came from where, how fast."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from modelswarm.agent.metrics import AgentMetrics, Source
from modelswarm.agent.progress import Ledger, Sources, Speed, clear_progress, counts_file, write_progress
from modelswarm.agent.signals import Signals
from modelswarm.agent.standing import Standing, of_wanted
from modelswarm.agent.store import Filling, Store
from modelswarm.agent.troubles import NO_COORDINATOR, PEER_SHUNNED, PREPARING, Trouble
from modelswarm.agent.wanted import Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.content.manifest import Manifest

TELL_SECONDS = 2.0

log = logging.getLogger(__name__)


class Attempt(Protocol):
    """What is known of an attempt that is under way (``agent.conduct.Conduct``)."""

    @property
    def trouble(self) -> Trouble | None: ...

    @property
    def waits_for(self) -> str: ...

    @property
    def unmarked(self) -> int: ...

    def sources(self) -> Sources: ...


class Account:
    """``attempt`` and ``filling`` are there while something is under way. Residents notice whatever is new."""

    def __init__(self, wanted: Wanted, store: Store, metrics: AgentMetrics, signals: Signals) -> None:
        self.wanted = wanted
        self.manifest: Manifest | None = None
        self.filling: Filling | None = None
        self.attempt: Attempt | None = None
        self.reason: str | None = None
        self._state = ModelState.ABSENT
        self._message = ""
        self._ready: datetime | None = None
        self._began_at: float | None = None
        self._store = store
        self._metrics = metrics
        self._signals = signals
        self._speed = Speed()
        self._signing = asyncio.Lock()
        self._ledger = Ledger(
            lambda news: metrics.received(self.wanted.model_hash, origin_bytes=news.origin, peer_bytes=news.peers)
        )

    @property
    def content(self) -> str | None:
        """The content id, as soon as it is known."""
        return self.manifest.digest.removeprefix("sha256:") if self.manifest is not None else None

    @property
    def is_ready(self) -> bool:
        return self._ready is not None

    @property
    def sources(self) -> Sources:
        """Bytes that came to this node, over restarts."""
        return self._ledger.total(self._current())

    def standing(self) -> Standing:
        """How far it is now."""
        sources, manifest = self.sources, self.manifest
        base = of_wanted(self.wanted, self._state)
        total = manifest.bytes if manifest is not None else base.bytes
        done = self.filling.present_bytes() if self.filling is not None else 0
        done += self.attempt.unmarked if self.attempt is not None else 0
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
            reason=self.reason,
            message=self._message,
            ready_time=self._ready,
        )

    # What happens

    def say(self, state: ModelState, reason: str | None = None, message: str = "") -> None:
        """From now on this is the standing. Said again, nothing happens."""
        said = (self._state, self.reason, self._message)
        if said == (state, reason, message):
            return
        if state is ModelState.FAILED and said[:2] != (state, reason):
            log.warning("P2P %s: %s: %s", self.wanted.name, reason, message)
        self._state, self.reason, self._message = state, reason, message
        self._signals.notice()

    def wait_for(self, what: str) -> None:
        self.say(ModelState.WAITING, PREPARING, f"for {what}")

    def fail(self, trouble: Trouble) -> None:
        """An attempt has ended with this."""
        self._ready = None
        if trouble.state is ModelState.FAILED:
            self._metrics.failed(self.wanted.model_hash, trouble.reason)
        self.say(trouble.state, trouble.reason, trouble.message)

    def lose(self, state: ModelState, reason: str, message: str) -> None:
        """It was ready, and is not any more."""
        self._ready = None
        self.say(state, reason, message)

    def look(self) -> None:
        """The attempt has news."""
        attempt, filling = self.attempt, self.filling
        if attempt is None or filling is None or self.is_ready:
            return
        trouble, waits_for = attempt.trouble, attempt.waits_for
        all_here = filling.present_bytes() >= filling.manifest.bytes
        state = ModelState.VERIFYING if all_here else ModelState.FETCHING
        if waits_for:
            state = ModelState.WAITING
        if trouble is not None:
            self.say(state, trouble.reason, trouble.message)
        else:
            self.say(state, NO_COORDINATOR if waits_for else None, waits_for)

    def say_ready(self) -> None:
        """It is where it should be. Should a node have been caught with wrong bytes, that is said as well."""
        trouble = self.attempt.trouble if self.attempt is not None else None
        if trouble is not None and trouble.reason == PEER_SHUNNED:
            self.say(ModelState.READY, trouble.reason, trouble.message)
        else:
            self.say(ModelState.READY)

    # An attempt

    async def open(self, manifest: Manifest) -> None:
        """The list of files is known: what earlier runs have counted is read."""
        self.manifest = manifest
        content = manifest.digest.removeprefix("sha256:")
        await asyncio.to_thread(self._ledger.open, counts_file(self._store.root, content))

    def begin(self) -> None:
        """From now on it counts how long it takes; a second attempt goes on to count."""
        if self._began_at is None:
            self._began_at = asyncio.get_running_loop().time()

    def close_attempt(self) -> None:
        """The attempt is over: the next one begins to count at zero."""
        current, self.attempt = self._current(), None
        self._ledger.close_attempt(current)

    async def complete(self, filling: Filling) -> None:
        """Everything is on the disk, and marked."""
        # A sign of life that is just being written would stay behind in the model.
        async with self._signing:
            await asyncio.to_thread(clear_progress, Path(filling.directory))
        self._ready = datetime.now(UTC).replace(microsecond=0)

    def count_complete(self) -> None:
        """Everybody was told that it is complete: now the metrics and the log."""
        current = self._current()
        self._ledger.tell(current)
        began, self._began_at = self._began_at or 0.0, None
        seconds = asyncio.get_running_loop().time() - began
        self._metrics.downloaded(self.wanted.model_hash, Source.of(current.origin, current.peers), seconds)
        total = self._ledger.total(current)
        log.info(
            "P2P %s is ready: %d bytes, %d from the origin, %d from peers",
            self.wanted.name, self.manifest.bytes if self.manifest else 0, total.origin, total.peers,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def following(self, filling: Filling) -> AsyncIterator[None]:
        """Signs of life for loaders on this node, and a standing that follows the bytes."""
        self.filling = filling
        task = asyncio.create_task(self._follow(filling), name="progress")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.filling = None

    async def _follow(self, filling: Filling) -> None:
        directory, loop = Path(filling.directory), asyncio.get_running_loop()
        while not filling.is_complete:
            current = self._current()
            self._speed.note(loop.time(), self._ledger.total(current))
            self._ledger.tell(current)
            standing = self.standing()
            message = f"from {standing.fetching_from.lower()}" if standing.fetching_from else self._message
            async with self._signing:
                if filling.is_complete:
                    return
                await asyncio.to_thread(
                    write_progress,
                    directory,
                    state=self._state,
                    done=standing.done_bytes,
                    total=standing.bytes,
                    message=message,
                )
            await asyncio.to_thread(self._ledger.save, current)
            self._signals.notice()
            await asyncio.sleep(TELL_SECONDS)

    def _current(self) -> Sources:
        """What the attempt that is under way has brought."""
        return self.attempt.sources() if self.attempt is not None else Sources()
