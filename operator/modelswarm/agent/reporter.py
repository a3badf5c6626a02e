"""Tells the cluster how far this node is: NodeCache, Node labels, OME's ConfigMap, Events.

What somebody may wait for (a state) is written within a second; numbers at most every ten seconds, and only while they
move; nothing when nothing changes. Every write says the whole of what is ours, so a lost or repeated one does no harm.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from modelswarm.agent import omestatus, report
from modelswarm.agent.modelconfig import ModelConfigs
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
"""As often as OME itself: its controller looks at every model when a ConfigMap changes."""
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
        configs: ModelConfigs | None = None,
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
        self._configs = configs
        self._label_limit = label_limit
        self._now = now
        self._settle_seconds = settle_seconds
        self._progress_seconds = progress_seconds
        self._ome_progress_seconds = ome_progress_seconds
        self._resync_seconds = resync_seconds
        self._rng = rng or random.Random()
        self._dirty = asyncio.Event()
        self._latest: tuple[tuple[Standing, ...], Capacity, NodeView] | None = None
        """What is true now. A turn writes one story: labels, status and OME's entries of the moment when it began."""
        self._standings: tuple[Standing, ...] = ()
        self._capacity = Capacity()
        self._node: NodeView | None = None
        self._cache: JsonObject | None = None
        """The NodeCache as the API server answered last."""
        self._written: NodeCacheStatus | None = None
        self._written_at = float("-inf")
        self._ome: Mapping[str, str] | None = None
        """The entries that were written, without their time."""
        self._ome_states: Mapping[str, str] = {}
        self._ome_at = float("-inf")
        self._told: dict[str, ModelState] | None = None
        self._resync_at = float("inf")
        self._seen: Mapping[str, str] = {}
        self._applied: Mapping[str, str] | None = None
        """The labels that the Node has from us; None: to be looked at."""
        self._foreign: frozenset[str] = frozenset()
        """Labels of our kind that stay whatever we apply: somebody else wrote them."""

    def update(self, standings: Sequence[Standing], capacity: Capacity, node: NodeView) -> None:
        """What is true now; returns at once."""
        if node.labels != self._seen:
            # A view from before our last write is no news: only one that is another than the last one is.
            self._seen = node.labels
            if self._ours() != self._applied:
                self._applied = None
        self._latest = (merged(standings), capacity, node)
        self._dirty.set()

    async def run(self) -> None:
        """Write what has changed, until cancelled."""
        failures = 0
        self._plan_resync()
        while True:
            try:
                await self._turn()
                failures = 0
            except KubeError as error:
                failures += 1
                pause = min(LONGEST_PAUSE, 2.0**failures) * self._rng.uniform(0.5, 1.0)
                logger.warning("cannot report to the cluster: %s; trying again", error.message)
                await asyncio.sleep(max(pause, error.retry_after or 0.0))

    async def _turn(self) -> None:
        """Write what is due, or wait until something may be."""
        clock = asyncio.get_running_loop().time
        self._dirty.clear()
        if self._latest is not None:
            self._standings, self._capacity, self._node = self._latest
        if self._configs is not None:
            await self._configs.learn(self._standings)
        due = self._due(clock())
        if due <= clock():
            await self._flush()
            await asyncio.sleep(self._settle_seconds)
            return
        try:
            async with asyncio.timeout_at(min(due, self._resync_at)):
                await self._dirty.wait()
            await asyncio.sleep(self._settle_seconds / 5)  # what changes together comes together
        except TimeoutError:
            if clock() >= self._resync_at:
                self._plan_resync()
                await self._compare()

    def _plan_resync(self) -> None:
        seconds = self._resync_seconds * self._rng.uniform(0.8, 1.2)
        self._resync_at = asyncio.get_running_loop().time() + seconds

    def _due(self, now: float) -> float:
        """When the next write is to be made: at once for states, later for numbers, never if there is nothing new."""
        if (node := self._node) is None:
            return float("inf")
        status = self._status(node)
        entries = self._entries()
        if (
            report.is_urgent(self._written, status)
            or self._applied != self._wanted_labels()
            or self._ome is None
            or omestatus.labels(self._standings) != self._ome_states
        ):
            return now
        moments = []
        if status != self._written:
            moments.append(self._written_at + self._progress_seconds)
        if entries != self._ome:
            moments.append(self._ome_at + self._ome_progress_seconds)
        return min(moments, default=float("inf"))

    async def _flush(self) -> None:
        """Write everything that differs, now. One part that fails (no CRD, no right) does not keep the others back.
        What the NodeCache says opens gates, and the pods behind them prefer nodes by our label: it is there before.
        OME's labels come last, because they are what its pods wait for: who sees one finds the rest.

        Raises the first KubeError; what was not written is tried again by the next.
        """
        if (node := self._node) is None:
            return
        problem: KubeError | None = None
        first = (self._write_labels, self._write_cache, self._write_ome)
        last = (self._write_cache, self._write_ome, self._write_labels)
        for write in first if omestatus.labels(self._standings) == self._ome_states else last:
            try:
                await write(node)
            except KubeError as error:
                problem = problem or error
        if problem is not None:
            raise problem

    def _status(self, node: NodeView) -> NodeCacheStatus:
        return report.status_of(self._standings, self._capacity, self._agent, node.labels, node.closed_by)

    async def _write_cache(self, node: NodeView) -> None:
        standings, status = self._standings, self._status(node)
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
        self._tell(standings)

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
        # Made for an earlier Node of this name, with which the garbage collector would take it along.
        return await self._kube.apply({**wanted, "metadata": {**metadata(wanted), "uid": metadata(found).get("uid")}})

    def _wanted_labels(self) -> dict[str, str]:
        return report.labels_of(self._standings, self._label_limit)

    def _ours(self) -> dict[str, str]:
        """What was seen last, which may be later than what this turn writes."""
        return {name: value for name, value in report.ours(self._seen).items() if name not in self._foreign}

    async def _write_labels(self, node: NodeView) -> None:
        labels = self._wanted_labels()
        if labels == self._applied:
            return
        is_there = self._applied is None and self._ours() == labels
        # From here on: a change of the Node that is seen while the write is on its way is to be looked at after it.
        self._applied = labels
        if is_there:
            return
        # Server-side apply: labels that we do not name any more go, everybody else's stay.
        body: JsonObject = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "uid": node.uid}}
        metadata(body)["labels"] = dict(labels)
        try:
            found = dict(metadata(await self._kube.apply(body)).get("labels") or {})
        except KubeError:
            self._applied = None
            raise
        self._foreign = frozenset(report.ours(found)) - labels.keys()

    def _entries(self) -> dict[str, str]:
        """Those of OME, comparable: without the time."""
        return omestatus.entries(self._standings, _NEVER, self._known_configs())

    def _known_configs(self) -> Mapping[str, JsonObject]:
        return self._configs.known if self._configs is not None else {}

    async def _write_ome(self, node: NodeView) -> None:
        entries = self._entries()
        if entries == self._ome:
            return
        # Where there never was a model of OME there is no ConfigMap; entries of an earlier life have to go.
        if entries or self._ome or await self._config_map(node) is not None:
            timed = omestatus.entries(self._standings, self._now(), self._known_configs())
            await self._kube.apply(omestatus.config_map(node.name, self._namespace, timed))
        self._ome, self._ome_states = entries, omestatus.labels(self._standings)
        self._ome_at = asyncio.get_running_loop().time()

    async def _config_map(self, node: NodeView) -> JsonObject | None:
        try:
            return await self._kube.get(CONFIGMAP, node.name, self._namespace)
        except NotFound:
            return None

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
            found = await self._kube.get(NODECACHE, node.name)
        except NotFound:
            self._cache = self._written = None
        else:
            if NodeCache.model_validate(found).status.to_json() != self._written.to_json():
                self._written = None
        if self._ome:
            found = await self._config_map(node) or {}
            data = found.get("data")
            if not isinstance(data, dict) or not self._ome.keys() <= data.keys():
                self._ome = None


_NEVER = datetime.fromtimestamp(0, UTC)


def _identity(cache: JsonObject) -> JsonObject:
    meta = metadata(cache)
    return {
        "apiVersion": NODECACHE.api_version,
        "kind": NODECACHE.kind,
        "metadata": {"name": meta.get("name"), "uid": meta.get("uid")},
    }
