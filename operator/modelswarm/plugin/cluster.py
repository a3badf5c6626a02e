"""All that the plugin asks of the API server, on the user's own credentials."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from modelswarm.api.meta import JsonObject, Resource
from modelswarm.api.nodecache import NodeCache
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.backends.bittorrent.nodes import ready_nodes
from modelswarm.errors import Forbidden, KubeError, NotFound
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.direct import DirectClient
from modelswarm.kube.kinds import DEPLOYMENT, ENDPOINTSLICE, NODECACHE, OPENMODEL, P2PTASK, PLAYGROUND, POD, Kind
from modelswarm.kube.objects import key_of
from modelswarm.kube.port import Listing
from modelswarm.plugin.exits import NOT_INSTALLED, problem
from modelswarm.plugin.installation import AGENT, AGENT_SERVICE, DAEMONSET, OPERATOR, Installation, installation_of
from modelswarm.plugin.snapshot import Snapshot

MANAGER = "kubectl-swarm"
"""Field manager of what users change with the plugin."""
SECONDS = 15.0
"""For one request, with its retries."""

R = TypeVar("R", bound=Resource)


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path | None = None, context: str | None = None) -> AsyncIterator["Cluster"]:
    """The cluster of a kubeconfig. Raises SettingsError where there is none."""
    client = open_client(await load_configuration(kubeconfig, context))
    try:
        yield Cluster(DirectClient(client, timeout=SECONDS, manager=MANAGER))
    finally:
        await client.close()


@dataclass(slots=True)
class Cluster:
    """Reads objects; ``kube`` is for the few commands that change one. Methods raise KubeError and CommandError."""

    kube: DirectClient
    _unread: dict[str, str] = field(default_factory=dict)

    async def moving(self, namespaces: Sequence[str] = ()) -> Snapshot:
        """Tasks and nodes: what ``status`` needs. ``namespaces`` are tried where tasks of all may not be read."""
        self._unread = {}
        tasks, caches, live = await asyncio.gather(self.tasks(namespaces), self.caches(), self.live())
        return Snapshot(datetime.now(UTC), tasks=tasks, caches=caches, live=live, unread=dict(self._unread))

    async def everything(self, namespaces: Sequence[str]) -> Snapshot:
        """Also Playgrounds, OpenModels and pods. ``namespaces``: the ones that matter, as above."""
        self._unread = {}
        tasks, caches, live, models = await asyncio.gather(
            self.tasks(namespaces), self.caches(), self.live(), self._optional(OPENMODEL, OpenModel)
        )
        playgrounds, pods = await asyncio.gather(
            self._spread(PLAYGROUND, Playground, namespaces), self._pods(namespaces)
        )
        return Snapshot(
            datetime.now(UTC), tasks, playgrounds, models, caches, live, tuple(pods), unread=dict(self._unread)
        )

    async def tasks(self, namespaces: Sequence[str] = ()) -> tuple[P2PTask, ...]:
        """Of all namespaces, or of those that may be read. Raises CommandError where the kind does not exist."""
        try:
            return await self._spread(P2PTASK, P2PTask, namespaces)
        except NotFound:
            raise NOT_INSTALLED from None

    async def caches(self) -> tuple[NodeCache, ...]:
        return await self._optional(NODECACHE, NodeCache)

    async def live(self) -> frozenset[str] | None:
        """Nodes with a ready agent; None where that may not be read."""
        selector = f"kubernetes.io/service-name={AGENT_SERVICE}"
        try:
            return ready_nodes(await self.kube.list(ENDPOINTSLICE, label_selector=selector))
        except Forbidden as error:
            self._unread[ENDPOINTSLICE.plural] = error.message
            return None

    async def installation(self) -> Installation:
        """Found by the names and labels that the chart gives; Secrets are never read."""
        operators, agents = await asyncio.gather(
            self.objects(DEPLOYMENT, selector=f"app.kubernetes.io/name={OPERATOR}"), self.objects(DAEMONSET)
        )
        return installation_of(
            next(iter(operators or ()), None),
            next((each for each in agents or () if key_of(each).name == AGENT), None),
            seen=operators is not None and agents is not None,
        )

    async def objects(self, kind: Kind, namespace: str | None = None, selector: str | None = None) -> Listing | None:
        """Objects of any kind; None where they may not be read or do not exist."""
        try:
            return await self.kube.list(kind, namespace, label_selector=selector)
        except (Forbidden, NotFound) as error:
            self._unread[kind.plural] = error.message
            return None

    async def _optional(self, kind: Kind, model: type[R]) -> tuple[R, ...]:
        """What may be missing without making the rest worthless."""
        listing = await self.objects(kind)
        return _read(model, listing) if listing is not None else ()

    async def _spread(self, kind: Kind, model: type[R], namespaces: Sequence[str]) -> tuple[R, ...]:
        """All namespaces; else these, of which at least one must be readable."""
        try:
            return _read(model, await self.kube.list(kind))
        except Forbidden as error:
            refusal: KubeError = error
        found: list[JsonObject] = []
        allowed = False
        for namespace in dict.fromkeys(namespaces):
            try:
                found += await self.kube.list(kind, namespace)
                allowed = True
            except Forbidden as error:
                refusal = error
                self._unread[f"{kind.plural} in {namespace}"] = error.message
        if not allowed:
            raise refusal
        return _read(model, found)

    async def _pods(self, namespaces: Sequence[str]) -> list[JsonObject]:
        found: list[JsonObject] = []
        for namespace in dict.fromkeys(namespaces):
            found += await self.objects(POD, namespace, "llmaz.io/playground") or ()
        return found


def _read(model: type[R], objects: Sequence[JsonObject]) -> tuple[R, ...]:
    """Validated, in the order of namespace and name."""
    try:
        return tuple(model.model_validate(obj) for obj in sorted(objects, key=lambda obj: str(key_of(obj))))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise problem(
            f"a {model.KIND} says something that this version does not understand ({where}); "
            "use the kubectl-swarm of the operator's version"
        ) from None
