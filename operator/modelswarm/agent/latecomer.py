"""This node as a late comer: nodes that have everything are found, and everything is taken from them.

Nobody coordinates it. It is also the way when the API server is away, and nobody can be elected.
"""

import asyncio
import random
from collections.abc import Callable, Mapping

from modelswarm.agent.leases import ModelLease
from modelswarm.agent.parts import Parts
from modelswarm.agent.progress import Sources
from modelswarm.agent.seeding import Fetched
from modelswarm.agent.store import Filling
from modelswarm.agent.troubles import Trouble

SEEK_SECONDS = 3.0
"""How often complete seeders are looked for while nobody coordinates."""
ANSWER_SECONDS = 1.0
"""How long anything waits for the others to say whether they have everything. Who takes longer is heard later."""
AVOID_SECONDS = 60.0
"""How long a seeder from which nothing came is not asked again."""


class LateComer:
    """``hinder`` is told what stood in the way, ``pulse`` is called when something may be new to the eye."""

    def __init__(
        self,
        filling: Filling,
        parts: Parts,
        model_hash: str,
        *,
        hinder: Callable[[Trouble | None], None],
        pulse: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self.seeders: Mapping[str, bytes] = {}
        """Live nodes that have everything, and the metainfo that they tell."""
        self.unseeded_since: float | None = None
        """Since when none is known although they were looked for; by the loop's clock."""
        self.asked = 0
        """How many seeders are asked at the moment."""
        self._filling = filling
        self._parts = parts
        self._model_hash = model_hash
        self._hinder = hinder
        self._pulse = pulse
        self._rng = rng
        self._counted = Sources()
        self._before: int | None = None
        self._sought_at = float("-inf")
        self._seeking: asyncio.Task[dict[str, bytes]] | None = None
        self._avoided: dict[str, float] = {}
        """Seeders, and until when they are not asked: for ever, if what they gave was wrong."""

    @property
    def unmarked(self) -> int:
        """Bytes that have come of the model, of which the store does not know yet."""
        return self._downloaded() - self._before if self._before is not None else 0

    def sources(self) -> Sources:
        return self._counted + Sources(0, self.unmarked)

    async def seek(self, lease: ModelLease) -> None:
        """Look for nodes that have everything, unless somebody coordinates: then they are members. Raises KubeError."""
        loop = asyncio.get_running_loop()
        if lease.term is not None or (lease.record is None and await _is_taken(lease)):
            self.stop_seeking()
            return
        if lease.is_fresh():
            self.stop_seeking()
            self.unseeded_since = None
            return
        if self._seeking is None:
            if loop.time() - self._sought_at < SEEK_SECONDS * self._rng.uniform(0.5, 1.0):
                return
            self._sought_at = loop.time()
            self._seeking = asyncio.create_task(self._parts.seeding.seeders(self._model_hash), name="seek")
            await asyncio.wait({self._seeking}, timeout=ANSWER_SECONDS)
        if self._seeking.done():
            seeking, self._seeking = self._seeking, None
            self._note_found(seeking.result(), loop.time())

    def _note_found(self, found: Mapping[str, bytes], now: float) -> None:
        self.seeders = {url: metainfo for url, metainfo in found.items() if self._avoided.get(url, 0.0) <= now}
        if self.seeders:
            self.unseeded_since = None
        elif self.unseeded_since is None:
            self.unseeded_since = now

    def stop_seeking(self) -> None:
        self.seeders = {}
        seeking, self._seeking = self._seeking, None
        if seeking is not None:
            seeking.cancel()

    async def close(self) -> None:
        """Ask nobody any more."""
        seeking = self._seeking
        self.stop_seeking()
        if seeking is not None:
            await asyncio.gather(seeking, return_exceptions=True)

    async def fetch(self) -> bool:
        """Get what is missing from the seeders; whether all of it came. Raises StoreError, SwarmError."""
        parts, seeders = self._parts, self.seeders
        self.asked, self._before = len(seeders), self._downloaded()
        present = self._filling.present_bytes()
        self._pulse()
        try:
            fetched = await parts.seeding.fetch(self._filling, seeders, parts.settings.download_timeout)
        finally:
            # The swarm's counters are read now and then, and count what came twice; the disk knows better.
            came = self._filling.present_bytes() - present or self.unmarked
            self._counted, self.asked = self._counted + Sources(0, came), 0
            self._before = None
        self.seeders = {}
        self._sought_at = float("-inf")
        if fetched.complete:
            self._hinder(None)
        else:
            self._avoid(fetched)
        return fetched.complete

    def _avoid(self, fetched: Fetched) -> None:
        """It did not work with these seeders: with others, or by way of a coordinator."""
        now = asyncio.get_running_loop().time()
        until = float("inf") if fetched.wrong else now + AVOID_SECONDS
        self._avoided.update((url, until) for url in fetched.seeders)
        self.unseeded_since = now
        if fetched.trouble is not None:
            self._hinder(fetched.trouble)

    def _downloaded(self) -> int:
        traffic = self._parts.swarm.counters.contents.get(self._filling.content)
        return traffic.downloaded if traffic is not None else 0


async def _is_taken(lease: ModelLease) -> bool:
    await lease.look()
    return lease.is_fresh()
