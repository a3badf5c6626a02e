"""An operator process that dies before its k-th step: a write to the API server, or a request to the manager.

The task controller runs in this process, on the real API server and the real manager, and cares for one task only: so
many of them can live, die and be succeeded at the same time, while the manager's half minute passes once for all.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import httpx

from modelswarm.api.p2ptask import P2PTask
from modelswarm.backends.dragonfly.marker import Marker
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.resolve import Resolver
from modelswarm.controllers import watching
from modelswarm.controllers.p2ptask import TaskController
from modelswarm.controllers.pinning import PinJobs, Pinner
from modelswarm.controllers.queue import Key
from modelswarm.controllers.world import World
from modelswarm.engines import engines
from modelswarm.errors import KubeError
from modelswarm.kube.kinds import CONFIGMAP, P2PTASK
from modelswarm.kube.port import KubePort
from modelswarm.kube.store import Store
from modelswarm.settings import OperatorSettings
from tests.integration.killing import Died, KillingKube, Silent

LONGEST_PAUSE = 5.0
_T = TypeVar("_T")


@dataclass(slots=True)
class Fate:
    """Counts steps; at number ``at`` (from 0; None: never) nothing happens any more."""

    at: int | None = None
    steps: list[str] = field(default_factory=list)
    dead: bool = False

    async def step(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T:
        self.breathe()
        number = len(self.steps)
        self.steps.append(what)
        if number == self.at:
            self.dead = True
            raise Died
        return await call()

    def breathe(self) -> None:
        if self.dead:
            raise Died


class MortalKube(KillingKube):
    """The API server, as a process of this fate reaches it."""

    def __init__(self, kube: KubePort, fate: Fate) -> None:
        super().__init__(kube)
        self._of_process = fate

    def _breathe(self) -> None:
        self._of_process.breathe()

    async def _write(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T:
        return await self._of_process.step(what.split()[0], call)


class MortalTransport(httpx.AsyncBaseTransport):
    """The network, as a process of this fate reaches it. ``made`` gets the marker of each job that the manager made."""

    def __init__(self, manager_url: str, fate: Fate, made: list[Marker]) -> None:
        self._inner = httpx.AsyncHTTPTransport(trust_env=False)
        self._manager = httpx.URL(manager_url)
        self._fate = fate
        self._made = made

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if (request.url.host, request.url.port) != (self._manager.host, self._manager.port):
            return await self._inner.handle_async_request(request)
        what = f"{request.method} {'jobs' if request.url.path.endswith('/jobs') else 'job'}"
        response = await self._fate.step(what, lambda: self._inner.handle_async_request(request))
        if request.method == "POST" and response.status_code == httpx.codes.OK:
            marker = Marker.parse(json.loads(request.content)["bio"])
            if marker is not None:
                self._made.append(marker)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass(frozen=True, slots=True)
class Habitat:
    """What processes live in."""

    kube: KubePort
    settings: OperatorSettings
    endpoints: Endpoints
    made: list[Marker] = field(default_factory=list)

    async def live(self, key: Key, fate: Fate, done: Callable[[P2PTask], bool]) -> None:
        """One process, from its start until it dies or the task is ``done``."""
        world = World(MortalKube(self.kube, fate), Store(), Silent(), self.settings)
        transport = MortalTransport(self.settings.dragonfly_manager_url or "", fate, self.made)
        async with httpx.AsyncClient(transport=transport) as http:
            resolver = Resolver(http, self.endpoints)
            pinner = Pinner(world, resolver)
            jobs = PinJobs(pinner.pin, lambda key: None)
            controller = TaskController(world, engines(world, http, self.endpoints, resolver), pinner, jobs)
            while not fate.dead:
                try:
                    if done(await self._look(world, key)):
                        return
                    result = await controller.reconcile(key)
                    await _pinned(key)
                except Died:
                    return
                except KubeError:  # the runner would put the key back on its queue
                    await asyncio.sleep(0.2)
                    continue
                pause = LONGEST_PAUSE if result.requeue_after is None else result.requeue_after
                await asyncio.sleep(min(max(pause, 0.05), LONGEST_PAUSE) * random.uniform(0.9, 1.0))

    async def _look(self, world: World, key: Key) -> P2PTask:
        world.store = Store()
        watching.add_indexes(world.store)
        await watching.Lists(world.kube, world.store, (P2PTASK, CONFIGMAP)).fill()
        task = world.task(key.namespace, key.name)
        assert task is not None, key
        return task


async def _pinned(key: Key) -> None:
    """Wait for what pins the task beside the reconciles, and die with it."""
    name = f"pin {key.namespace}/{key.name}"
    for job in [task for task in asyncio.all_tasks() if task.get_name() == name]:
        with contextlib.suppress(asyncio.CancelledError):
            await job
