"""Tells the cluster how far this node is: NodeCache, Node labels, OME's ConfigMap, Events.

What somebody may wait for (a state) is written within a second; numbers at most every ten seconds, and only while they
move; nothing when nothing changes. Every write says the whole of what is ours, so a lost or repeated one does no harm.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from modelswarm.agent import omestatus, report
from modelswarm.agent.scout import NodeView
from modelswarm.agent.standing import Capacity, Standing, merged
from modelswarm.api.meta import JsonObject
from modelswarm.api.nodecache import AgentStatus, ModelState, NodeCache, NodeCacheStatus
from modelswarm.errors import Conflict, KubeError, NotFound
from modelswarm.kube.events import EventRecorder
from modelswarm.kube.kinds import CONFIGMAP, NODE, NODECACHE
from modelswarm.kube.objects import metadata
from modelswarm.kube.port import KubePort

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 0.5
"""Between two writes at least: states of many models change together."""
PROGRESS_SECONDS = 10.0
OME_PROGRESS_SECONDS = 30.0
"""OME's controller looks at every model of every node when a ConfigMap changes; OME itself writes progress this often."""
RESYNC_SECONDS = 600.0
"""How often what is there is compared with what was written."""
LONGEST_PAUSE = 60.0


class Reporter:
    """``update`` it as often as things change, and ``run`` it as a task. Writes nothing before the first update: what
    a restarted agent does not know yet must not look lost."""

    def __init__(
        self,
        kube: KubePort,
        events: EventRecorder,
        *,
        namespace: str,
        agent: AgentStatus,
        label_limit: int = 100,
        now: Callable[[], datetime] = report.utc_now,
        settle_seconds: float = SETTLE_SECONDS,
        progress_seconds: float = PROGRESS_SECONDS,
        ome_progress_seconds: float = OME_PROGRESS_SECONDS,
        resync_seconds: float = RESYNC_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        self._kube = kube
        self._events = events
        self._namespace = namespace
        self._agent = agent
        self._label_limit = label_limit
        self._now = now
        self._settle_seconds = settle_seconds
        self._progress_seconds = progress_seconds
        self._ome_progress_seconds = ome_progress_seconds
        self._resync_seconds = resync_seconds
        self._rng = rng or random.Random()
        self._dirty = asyncio.Event()
        self._node: NodeView | None = None
        self._standings: tuple[Standing, ...] = ()
        self._capacity = Capacity()
        self._cache: JsonObject | None = None
        self._written: NodeCacheStatus | None = None
        self._written_at = float("-inf")
        self._labels: Mapping[str, str] | None = None
        self._ome: Mapping[str, str] | None = None
        self._ome_states: Mapping[str, str] = {}
        self._ome_at = float("-inf")
        self._told: dict[str, ModelState] | None = None

    def update(self, standings: Sequence[Standing], capacity: Capacity, node: NodeView) -> None:
        """What is true now; returns at once."""
        if self._node is not None and node.labels != self._node.labels:
            self._labels = None  # compare with what the Node has now
        self._standings, self._capacity, self._node = merged(standings), capacity, node
        self._dirty.set()

    async def run(self) -> None:
        """Write what has changed, until cancelled."""
        failures = 0
        while True:
            wait = await self._wait()
            try:
                if wait:
                    await self._compare()
                await self.flush()
                failures = 0
            except KubeError as error:
                failures += 1
                self._dirty.set()
                pause = min(LONGEST_PAUSE, 2.0**failures) * self._rng.uniform(0.5, 1.0)
                logger.warning("cannot report to the cluster: %s; trying again", error.message)
                await asyncio.sleep(max(pause, error.retry_after or 0.0))
            await asyncio.sleep(self._settle_seconds)

    async def _wait(self) -> bool:
        """Until there is something to write; True: only because it is time to look."""
        clock = asyncio.get_running_loop().time
        due = clock() + self._resync_seconds * self._rng.uniform(0.8, 1.2)
        while True:
            postponed = self._postponed()
            until = due if postponed is None else min(due, postponed)
            try:
                async with asyncio.timeout_at(until):
                    await self._dirty.wait()
            except TimeoutError:
                return postponed is None or due <= clock()
            self._dirty.clear()
            if self._node is not None and self._is_due():
                return False

    def _is_due(self) -> bool:
        """Whether something may be written now."""
        postponed = self._postponed()
        return postponed is None or postponed <= asyncio.get_running_loop().time()

    def _postponed(self) -> float | None:
        """When numbers that have moved may be written; None: there are none, or more than numbers has changed."""
        if self._node is None or self._written is None:
            return None
        status = self._status(self._node)
        if report.is_urgent(self._written, status) or status == self._written:
            return None
        return self._written_at + self._progress_seconds

    async def flush(self) -> None:
        """Write everything that differs, now. Raises KubeError; what was not written is tried again by the next."""
        if (node := self._node) is None:
            return
        standings = self._standings
        await self._write_cache(node)
        await self._write_labels(node, report.labels_of(standings, self._label_limit))
        await self._write_ome(node, standings)
        self._tell(standings)

    def _status(self, node: NodeView) -> NodeCacheStatus:
        return report.status_of(self._standings, self._capacity, self._agent, node.labels)

    async def _write_cache(self, node: NodeView) -> None:
        status = self._status(node)
        if status == self._written:
            return
        if self._cache is None:
            self._cache = await self._ensure_cache(node)
        try:
            self._cache = await self._kube.apply_status({**_identity(self._cache), "status": status.to_json()})
        except (NotFound, Conflict):
            # Deleted by hand, or with a Node that has come again.
            self._cache = self._written = None
            raise
        self._written, self._written_at = status, asyncio.get_running_loop().time()

    async def _ensure_cache(self, node: NodeView) -> JsonObject:
        wanted: JsonObject = {
            "apiVersion": NODECACHE.api_version,
            "kind": NODECACHE.kind,
            "metadata": {
                "name": node.name,
                "ownerReferences": [
                    {"apiVersion": NODE.api_version, "kind": NODE.kind, "name": node.name, "uid": node.uid}
                ],
            },
        }
        try:
            found = await self._kube.get(NODECACHE, node.name)
        except NotFound:
            return await self._kube.create(wanted)
        owners = metadata(found).get("ownerReferences") or []
        if any(owner.get("uid") == node.uid for owner in owners):
            return found
        # It belongs to an earlier Node of this name, and will be collected with it.
        return await self._kube.apply({**wanted, "metadata": {**metadata(wanted), "uid": metadata(found).get("uid")}})

    async def _write_labels(self, node: NodeView, labels: Mapping[str, str]) -> None:
        if labels == self._labels:
            return
        if self._labels is not None or report.differ(labels, node.labels):
            # Server-side apply: labels that we do not name any more go, everybody else's stay.
            body: JsonObject = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "uid": node.uid}}
            metadata(body)["labels"] = dict(labels)
            await self._kube.apply(body)
        self._labels = dict(labels)

    async def _write_ome(self, node: NodeView, standings: Sequence[Standing]) -> None:
        states = omestatus.labels(standings)
        clock = asyncio.get_running_loop().time()
        if self._ome is not None and states == self._ome_states and clock < self._ome_at + self._ome_progress_seconds:
            return
        entries = omestatus.entries(standings, self._now())
        if entries == self._ome or (self._ome is None and not entries and not await self._has_config_map(node)):
            return
        await self._kube.apply(omestatus.config_map(node.name, self._namespace, entries))
        self._ome, self._ome_states, self._ome_at = entries, states, clock

    async def _has_config_map(self, node: NodeView) -> bool:
        """Whether entries of an earlier life may have to go. Where there never was a model of OME there is no ConfigMap."""
        try:
            await self._kube.get(CONFIGMAP, node.name, self._namespace)
        except NotFound:
            return False
        return True

    def _tell(self, standings: Sequence[Standing]) -> None:
        states = {standing.key: standing.state for standing in standings}
        if self._told is not None and self._cache is not None:
            for each in report.news(self._told, standings):
                self._events.emit(self._cache, each.type, each.reason, each.message, action="Report")
        self._told = states

    async def _compare(self) -> None:
        """Forget what we believe to have written where it is not there any more."""
        if (node := self._node) is None or self._written is None:
            return
        try:
            found = NodeCache.model_validate(await self._kube.get(NODECACHE, node.name))
        except NotFound:
            self._cache = self._written = None
            return
        if found.status != self._written:
            self._written = None


def _identity(cache: JsonObject) -> JsonObject:
    meta = metadata(cache)
    return {
        "apiVersion": NODECACHE.api_version,
        "kind": NODECACHE.kind,
        "metadata": {"name": meta.get("name"), "uid": meta.get("uid")},
    }
