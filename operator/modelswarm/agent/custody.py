"""The Leases of models for which nothing is under way: they go when nobody wants the model any more, and say for whom
a branch was pinned.

Who does it: of a model that is gone, the node that held its Lease last deletes it at once; if that node is gone too,
one of the others that had the model does, after a while. With the preconditions of a delete, or of an update, whoever
comes second does nothing, and a Lease that somebody has taken meanwhile stays. What nobody saw go (all agents were
away) stays as well: its pin is not believed (``pinning.is_past``), so it costs nothing but its place.
"""

import asyncio
import logging
import random
from dataclasses import dataclass, replace
from enum import StrEnum

from modelswarm.agent.election import Record
from modelswarm.agent.leaserecord import MOST_MODELS, lease_name, read, render
from modelswarm.agent.wanted import Needs
from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, KubeError, NotFound
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.objects import metadata
from modelswarm.kube.port import KubePort

SOON_SECONDS = 2.0
"""After a model has gone, or come: what this node did with its Lease (give it back) is over by then."""
ADOPT_SECONDS = 8.0
"""Within so long one of the nodes that have the content writes on its Lease for whom it stays."""
LATER_SECONDS = 60.0
"""How long the node that held a Lease last has, about, before another one deletes it."""
ROUNDS = 4

log = logging.getLogger(__name__)


class Fate(StrEnum):
    """What becomes of a Lease."""

    KEEP = "Keep"
    DELETE = "Delete"
    ADOPT = "Adopt"
    """The pin stays, for other BaseModels than those that the Lease names."""
    WATCH = "Watch"
    """To be deleted, but by another node: look again."""


@dataclass(frozen=True, slots=True)
class Change:
    """Who wanted a model, and who wanted it then, as UIDs."""

    before: frozenset[str]
    after: frozenset[str]

    @property
    def is_end(self) -> bool:
        """Of all who wanted it nobody is left; others may have come."""
        return not self.before & self.after


def fate_after_end(record: Record, owners: frozenset[str], *, me: str, unchanged: bool) -> Fate:
    """Nobody is left of those who wanted a model; ``owners`` (UIDs) want it by now.

    ``unchanged``: the Lease is as it was when this node looked before, long enough ago for its holder to act.
    """
    if owners and (not record.models or owners & set(record.models)):
        return Fate.KEEP
    return Fate.DELETE if unchanged or record.holder in (me, "") else Fate.WATCH


def fate_going_on(record: Record, owners: frozenset[str]) -> Fate:
    """Others want a model than before, and some are the same: its commit must not change for those who come later."""
    is_running = bool(record.holder) and not record.complete
    if is_running or not record.models or owners <= set(record.models):
        return Fate.KEEP  # a holder writes it with its renewals
    return Fate.ADOPT


class Custody:
    """``notice`` it as the scout says; ``run`` it as a task."""

    def __init__(self, kube: KubePort, *, namespace: str, me: str, rng: random.Random | None = None) -> None:
        self._kube = kube
        self._namespace = namespace
        self._me = me
        self._rng = rng or random.Random()
        self._needs = Needs()
        self._mine: set[str] = set()
        self._changes: asyncio.Queue[tuple[str, Change]] = asyncio.Queue()

    def notice(self, needs: Needs) -> None:
        """What is wanted now; returns at once. Only models that were wanted on this node are its business."""
        before, self._needs = self._needs, needs
        for model in self._mine:
            change = Change(before.owners.get(model, frozenset()), needs.owners.get(model, frozenset()))
            if change.before and change.before != change.after:
                self._changes.put_nowait((model, change))
        self._mine = (self._mine & needs.owners.keys()) | {each.model_hash for each in needs.wanted.values()}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                model, change = await self._changes.get()
                group.create_task(self._settle(model, change), name=f"custody {lease_name(model)}")

    async def _settle(self, model: str, change: Change) -> None:
        pause = self._rng.uniform(0.5, 1.0) * (SOON_SECONDS if change.is_end else ADOPT_SECONDS)
        version = ""
        for _ in range(ROUNDS):
            await asyncio.sleep(pause)
            pause = LATER_SECONDS * self._rng.uniform(0.8, 1.5)
            owners = self._needs.owners.get(model, frozenset())
            if not change.is_end and owners != change.after:
                return  # a later change decides
            try:
                found = await self._kube.get(LEASE, lease_name(model), self._namespace)
                record, now = read(found), _version(found)
                if change.is_end:
                    decision = fate_after_end(record, owners, me=self._me, unchanged=now == version)
                else:
                    decision = fate_going_on(record, owners)
                version = now
                if decision is not Fate.WATCH:
                    await self._carry_out(decision, model, found, owners)
                    return
            except NotFound:
                return
            except Conflict:
                pause = SOON_SECONDS * self._rng.uniform(0.2, 1.0)
            except KubeError as error:
                log.warning("P2P lease %s: %s", lease_name(model), error.message)

    async def _carry_out(self, decision: Fate, model: str, found: JsonObject, owners: frozenset[str]) -> None:
        name = lease_name(model)
        if decision is Fate.DELETE:
            uid = str(metadata(found).get("uid") or "") or None
            if await self._kube.delete(LEASE, name, self._namespace, uid=uid, resource_version=_version(found)):
                log.info("P2P lease %s: deleted, nobody wants the model any more", name)
        elif decision is Fate.ADOPT:
            record = replace(read(found), models=tuple(sorted(owners))[:MOST_MODELS])
            body = render(record, name=name, namespace=self._namespace, model_hash=model, onto=found)
            await self._kube.replace(body)


def _version(lease: JsonObject) -> str:
    return str(metadata(lease).get("resourceVersion") or "")
