"""The controllers in this process, on the real API server, with an API client that dies after its k-th write.

What the operator process does is done here by hand and in a fixed order, so that "between any two writes" can be gone
through one by one: every round lists the world into a fresh store and reconciles every key once.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import httpx

from modelswarm.api.meta import JsonObject
from modelswarm.backends.direct import Direct
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.resolve import Resolver
from modelswarm.controllers import watching
from modelswarm.controllers.drift import APPLIED
from modelswarm.controllers.model import ModelController
from modelswarm.controllers.p2ptask import TaskController
from modelswarm.controllers.pinning import PinJobs, Pinner
from modelswarm.controllers.playground import PlaygroundController
from modelswarm.controllers.runner import Reconcile
from modelswarm.controllers.world import World
from modelswarm.errors import KubeError, Unavailable
from modelswarm.kube.kinds import OPENMODEL, P2PTASK, PLAYGROUND, Kind
from modelswarm.kube.port import KubePort, Listing
from modelswarm.kube.store import Store
from modelswarm.settings import OperatorSettings

MOST_ROUNDS = 40
_T = TypeVar("_T")
_JOB = "pin "


class Died(BaseException):
    """The process has ended here. Not an ``Exception``: nothing of the product may catch it."""


class Fate(StrEnum):
    """What happens to the k-th write."""

    BEFORE = "dies before the write reaches the server"
    AFTER = "dies when the server has the write, before the answer comes"
    LOST_ANSWER = "lives on, but the answer of the write is lost"
    REFUSED = "lives on, but the write never reaches the server"


class KillingKube:
    """A ``KubePort`` that counts writes, and lets ``fate`` strike at number ``at`` (from 0; None: never).

    Once dead, every further request dies too: whatever still runs in the process writes nothing any more.
    """

    def __init__(
        self,
        kube: KubePort,
        *,
        at: int | None = None,
        fate: Fate = Fate.BEFORE,
        strikes: Callable[[], None] | None = None,
    ) -> None:
        self._kube = kube
        self._at = at
        self._fate = fate
        self._strikes = strikes
        self.writes: list[str] = []
        self.struck = False
        self.dead = False

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject:
        self._breathe()
        return await self._kube.get(kind, name, namespace)

    async def apply(self, obj: JsonObject, *, force: bool = True) -> JsonObject:
        return await self._write(f"apply {_name(obj)}", lambda: self._kube.apply(obj, force=force))

    async def apply_status(self, obj: JsonObject) -> JsonObject:
        return await self._write(f"status {_name(obj)}", lambda: self._kube.apply_status(obj))

    async def create(self, obj: JsonObject) -> JsonObject:
        return await self._write(f"create {_name(obj)}", lambda: self._kube.create(obj))

    async def replace(self, obj: JsonObject) -> JsonObject:
        return await self._write(f"replace {_name(obj)}", lambda: self._kube.replace(obj))

    async def json_patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        operations: Sequence[JsonObject],
        *,
        subresource: str | None = None,
    ) -> JsonObject:
        def call() -> Awaitable[JsonObject]:
            return self._kube.json_patch(kind, name, namespace, operations, subresource=subresource)

        return await self._write(f"patch {kind.kind} {name}", call)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        def call() -> Awaitable[bool]:
            return self._kube.delete(
                kind, name, namespace, uid=uid, resource_version=resource_version, propagation=propagation
            )

        return await self._write(f"delete {kind.kind} {name}", call)

    def _breathe(self) -> None:
        if self.dead:
            raise Died

    async def _write(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T:
        self._breathe()
        number = len(self.writes)
        self.writes.append(what)
        if number != self._at:
            return await call()
        self.struck = True
        self.dead = self._fate in (Fate.BEFORE, Fate.AFTER)
        if self._fate in (Fate.AFTER, Fate.LOST_ANSWER):
            await call()
        if self._strikes is not None:
            self._strikes()
        if self.dead:
            raise Died
        raise Unavailable("no answer from the API server", status=0)

    # Last, because within the class body the name means this method from here on.
    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Listing:
        self._breathe()
        return await self._kube.list(kind, namespace, label_selector=label_selector, field_selector=field_selector)


class Silent:
    """Kubernetes Events that nobody writes: they are told on a best-effort basis and belong to no state."""

    def emit(self, regarding: JsonObject, type_: str, reason: str, message: str) -> None:
        """Nothing."""


Others = Callable[[], bool]
"""What others in the cluster do between two rounds; whether they did anything."""


def nobody() -> bool:
    return False


@dataclass(slots=True)
class Life:
    """One operator process, from its start to its end: nothing in its memory comes from an earlier one."""

    kube: KillingKube
    world: World
    reconciles: tuple[tuple[Kind, Reconcile], ...]

    async def converge(self, others: Others = nobody) -> None:
        """Go round until neither we nor ``others`` find anything to do. Raises ``Died`` when the client does."""
        for _ in range(MOST_ROUNDS):
            done = await self._round()
            if not others() and done:
                return
        raise AssertionError(f"no end after {MOST_ROUNDS} rounds; the last writes: {self.kube.writes[-8:]}")

    async def _round(self) -> bool:
        """Every key once, on a fresh view of the world; whether nothing was done and nothing is due soon."""
        self.world.store = Store()
        watching.add_indexes(self.world.store)
        await watching.Lists(self.kube, self.world.store).fill()
        writes, due = len(self.kube.writes), []
        for kind, reconcile in self.reconciles:
            for key in self.world.store.keys(kind):
                try:
                    result = await reconcile(key)
                except KubeError:  # the runner puts the key back on its queue
                    due.append(0.0)
                else:
                    if result is not None and result.requeue_after is not None:
                        due.append(result.requeue_after)
        jobs = _jobs()
        for job in jobs:
            await job
        soon = [seconds for seconds in due if seconds <= 1.0]
        if jobs or len(self.kube.writes) != writes:
            return False
        if soon:
            await asyncio.sleep(max(soon))
        return not soon


@contextlib.asynccontextmanager
async def life(
    kube: KillingKube, endpoints: Endpoints, settings: OperatorSettings, trust: ssl.SSLContext
) -> AsyncIterator[Life]:
    """The same parts as in ``modelswarm.operator``, without its queues and watches."""
    world = World(kube, Store(), Silent(), settings)
    async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=30) as http:
        pinner = Pinner(world, Resolver(http, endpoints))
        jobs = PinJobs(pinner.pin, lambda key: None)
        tasks = TaskController(world, [Direct()], pinner, jobs)
        reconciles = (
            (OPENMODEL, ModelController(world).reconcile),
            (PLAYGROUND, PlaygroundController(world).reconcile),
            (P2PTASK, tasks.reconcile),
        )
        try:
            yield Life(kube, world, reconciles)
        finally:
            for job in _jobs():
                job.cancel()
                with contextlib.suppress(Died, asyncio.CancelledError):
                    await job


def _jobs() -> "list[asyncio.Task[Any]]":
    """What pins tasks beside the reconciles, by the name that ``PinJobs`` gives."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(_JOB)]


_UNSTABLE = frozenset(
    {
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "lastTransitionTime",
        "startTime",
        "completionTime",
        "lastProgressTime",
        "clusterIP",
        "clusterIPs",
        "managedFields",
        APPLIED,  # a hash over the owner's uid, among others
    }
)


def normal(value: Any) -> Any:
    """An object, or a part of one, without what differs from run to run: times, uids, versions."""
    if isinstance(value, Mapping):
        return {key: normal(part) for key, part in value.items() if key not in _UNSTABLE}
    return [normal(item) for item in value] if isinstance(value, list) else value


def _name(obj: JsonObject) -> str:
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    return f"{obj['kind']} {metadata['name']}"
