"""``modelswarm operator``: puts the rooms together and runs them. The only module that knows everything.

Order matters. Our own tasks start before kopf (it cancels every task that is created after it, when it stops); the
world is listed once before the first reconcile, so that nothing looks missing only because we have just started; and
on SIGTERM the reconciles in flight end before the watches and the Lease are given up.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import httpx
import kopf

from modelswarm import logs
from modelswarm.backends.bittorrent.nodes import Nodes
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.fetch import no_cookies
from modelswarm.content.resolve import Resolver
from modelswarm.controllers import watching
from modelswarm.controllers.agents import AgentWatch
from modelswarm.controllers.cluster import ClusterWatch
from modelswarm.controllers.model import ModelController
from modelswarm.controllers.p2ptask import TaskController
from modelswarm.controllers.pinning import PinJobs, Pinner
from modelswarm.controllers.playground import PlaygroundController
from modelswarm.controllers.problems import task_problems
from modelswarm.controllers.runner import Controller, Reconcile
from modelswarm.controllers.world import World, utc_now
from modelswarm.engines import engines
from modelswarm.errors import ModelswarmError, SettingsError
from modelswarm.health import Health
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.kube.events import EventRecorder
from modelswarm.kube.kinds import OPENMODEL, P2PTASK, PLAYGROUND, Kind
from modelswarm.kube.lease import LeaderElection
from modelswarm.kube.login import Login, login_handler
from modelswarm.kube.store import Store
from modelswarm.metrics import Metrics
from modelswarm.settings import OperatorSettings
from modelswarm.turnstile_server import TurnstileServer

logger = logging.getLogger(__name__)

LEASE = "modelswarm-operator"
DRAIN_SECONDS = 10.0


def main(argv: Sequence[str]) -> int:
    """Exit codes: 0 asked to stop, 1 lost the Lease or a part died (start it again), 2 wrong settings."""
    try:
        settings = OperatorSettings.load(argv, os.environ)
    except SettingsError as error:
        print(f"modelswarm operator: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format)
    try:
        return asyncio.run(run(settings))
    except ModelswarmError as error:
        logger.error("%s", error)
        return 1


async def run(settings: OperatorSettings) -> int:
    """Run until SIGTERM or SIGINT, or until the Lease is lost."""
    stop = asyncio.Event()
    _on_signals(stop)
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        configuration = await load_configuration()
        client, lease_client = open_client(configuration), open_client(configuration)  # the Lease must not queue up
        stack.push_async_callback(client.close)
        stack.push_async_callback(lease_client.close)
        election = _election(settings, KubeClient(lease_client, metrics=metrics)) if settings.leader_elect else None
        may_write = election.may_write if election is not None else lambda: True
        kube = KubeClient(client, metrics=metrics, may_write=may_write)
        parts = await stack.enter_async_context(_assemble(settings, kube, metrics))
        health = Health(lambda: max(controller.oldest_in_flight() for controller in parts.controllers))
        if settings.health_port >= 0:
            logger.info("health on port %d", await health.start(settings.health_port))
            stack.push_async_callback(health.stop)
        if settings.metrics_port >= 0:
            logger.info("metrics on port %d", metrics.serve(settings.metrics_port))
        turnstile = TurnstileServer(settings.origin_readers)
        if settings.turnstile_url is not None:
            logger.info("turnstile on port %d", await turnstile.start(settings.turnstile_port))
            stack.push_async_callback(turnstile.stop)
            metrics.watch_readers(turnstile.counts)
        health.ready, health.state = True, "standing by"
        lost = await stack.enter_async_context(_leadership(election, stop))
        if stop.is_set():
            return 0
        metrics.leader.set(1)
        turnstile.lead()
        health.ready, health.state = False, "listing"
        return await _lead(settings, login_handler(configuration), parts, health, stop, lost)


@dataclass(slots=True)
class _Parts:
    """Everything that a leading operator runs."""

    world: World
    lists: watching.Lists
    jobs: PinJobs
    controllers: tuple[Controller, Controller, Controller]
    routes: list[watching.Watch]
    nodes: Nodes | None
    """Those with agents, where agents are installed."""

    def wake_all(self, kind: Kind) -> None:
        """Look at every object of a kind again."""
        for obj in self.world.store.list(kind):
            watching.wake(self.routes, kind, obj)


@contextlib.asynccontextmanager
async def _assemble(settings: OperatorSettings, kube: KubeClient, metrics: Metrics) -> AsyncIterator[_Parts]:
    store = Store()
    watching.add_indexes(store)
    events = EventRecorder(kube, metrics=metrics)
    world = World(kube, store, events, settings)
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
    timeout = httpx.Timeout(30.0, connect=10.0)
    async with httpx.AsyncClient(timeout=timeout, limits=limits, cookies=no_cookies()) as http:
        endpoints = replace(Endpoints.from_env(os.environ), registries=settings.registries)
        resolver = Resolver(http, endpoints)
        pinner = Pinner(world, resolver)
        wake_task: list[Controller] = []
        jobs = PinJobs(pinner.pin, lambda key: wake_task[0].queue.add(key))
        nodes = Nodes(store) if settings.agent_root is not None else None
        backends = engines(world, http, endpoints, resolver, nodes)
        task_controller = TaskController(world, backends, pinner, jobs)

        def controller(name: str, reconcile: Reconcile, kind: Kind) -> Controller:
            return Controller(
                name,
                reconcile,
                workers=settings.workers,
                metrics=metrics,
                resync=lambda: store.keys(kind),
                resync_seconds=settings.resync_seconds,
                drain_seconds=DRAIN_SECONDS,
            )

        model = controller("model", ModelController(world).reconcile, OPENMODEL)
        playground = controller("playground", PlaygroundController(world).reconcile, PLAYGROUND)
        task = controller("p2ptask", task_controller.reconcile, P2PTASK)
        wake_task.append(task)
        metrics.watch_tasks(lambda: watching.task_counts(store))
        metrics.watch_problems(lambda: task_problems(store))
        routes = watching.watches(store, model.queue, playground.queue, task.queue, agents=nodes is not None)
        kinds = watching.WATCHED if nodes is None else watching.WATCHED_WITH_AGENTS
        yield _Parts(world, watching.Lists(kube, store, kinds), jobs, (model, playground, task), routes, nodes)


def _election(settings: OperatorSettings, kube: KubeClient) -> LeaderElection:
    """The usual proportions, whatever the duration: 15 s, renewed within 10, tried every 2."""
    seconds = settings.lease_seconds
    return LeaderElection(
        kube,
        namespace=settings.namespace,
        name=LEASE,
        identity=f"{os.environ.get('POD_NAME') or socket.gethostname()}_{os.getpid()}",
        duration=seconds,
        renew=seconds * 2 / 3,
        retry=seconds * 2 / 15,
    )


@contextlib.asynccontextmanager
async def _leadership(election: LeaderElection | None, stop: asyncio.Event) -> AsyncIterator[asyncio.Event]:
    """Wait until we lead (or are asked to stop); yields the event that says that leadership was lost."""
    if election is None:
        yield asyncio.Event()
        return
    runner = asyncio.create_task(election.run(), name="lease")
    try:
        await _first(stop.wait(), election.wait_leadership())
        yield election.lost
    finally:
        with contextlib.suppress(ModelswarmError, TimeoutError):
            await election.release()
        runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)


async def _lead(
    settings: OperatorSettings,
    login: Login,
    parts: _Parts,
    health: Health,
    stop: asyncio.Event,
    lost: asyncio.Event,
) -> int:
    world = parts.world
    cluster = ClusterWatch(
        world.kube,
        world.cluster,
        namespace=settings.namespace,
        llmaz_namespace=settings.llmaz_namespace,
        changed=lambda: parts.wake_all(PLAYGROUND),
        clock=utc_now,
    )
    await cluster.look()
    agents = _agent_watch(settings, parts)
    if agents is not None:
        await agents.look()
    filling = asyncio.create_task(parts.lists.fill(), name="fill")
    await _first(stop.wait(), lost.wait(), filling)
    if not filling.done():
        filling.cancel()
        return 0 if stop.is_set() else 1
    filling.result()
    registry = kopf.OperatorRegistry()
    watching.register(registry, world, parts.lists, parts.routes)
    kopf.on.login(registry=registry)(login)
    assert isinstance(world.events, EventRecorder)
    controllers = [asyncio.create_task(controller.run(), name=controller.name) for controller in parts.controllers]
    ours = [
        *controllers,
        asyncio.create_task(world.events.run(), name="events"),
        asyncio.create_task(cluster.run(), name="cluster"),
        *([asyncio.create_task(agents.run(), name="agents")] if agents is not None else []),
        asyncio.create_task(parts.lists.run(settings.resync_seconds), name="lists"),
    ]
    for kind in (OPENMODEL, PLAYGROUND, P2PTASK):
        parts.wake_all(kind)
    kopf_stop, kopf_ready = asyncio.Event(), asyncio.Event()
    shell = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=_kopf_settings(),
            clusterwide=True,
            stop_flag=kopf_stop,
            ready_flag=kopf_ready,
        ),
        name="kopf",
    )
    await _first(kopf_ready.wait(), shell)
    _on_signals(stop)  # kopf has put its own handlers in place of ours
    health.ready, health.state = True, "leading"
    logger.info("leading")
    await _first(stop.wait(), lost.wait(), shell, *ours)
    code = 0 if stop.is_set() else 1
    if code:
        logger.error("stopping: %s", "the Lease was lost" if lost.is_set() else "a part of the operator ended")
    health.ready, health.state = False, "stopping"
    await _drain(parts, world.events, controllers)
    kopf_stop.set()
    for task in ours:
        task.cancel()
    results = await asyncio.gather(shell, *ours, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, asyncio.CancelledError):
            logger.error("ended with %s: %s", type(result).__name__, result)
    return code


def _agent_watch(settings: OperatorSettings, parts: _Parts) -> AgentWatch | None:
    if parts.nodes is None:
        return None
    return AgentWatch(
        parts.world.kube,
        parts.nodes,
        namespace=settings.agent_namespace,
        service=settings.agent_service,
        changed=lambda: parts.wake_all(P2PTASK),
        grace=settings.agent_grace_seconds,
    )


async def _drain(parts: _Parts, events: EventRecorder, controllers: Sequence[asyncio.Task[None]]) -> None:
    """Let the reconciles in flight end; take no new ones."""
    for controller in parts.controllers:
        controller.stop()
    await asyncio.gather(*controllers, return_exceptions=True)
    await parts.jobs.stop()
    await parts.lists.stop()
    await events.drain()


def _kopf_settings() -> kopf.OperatorSettings:
    """Least rights, bounded connections, no annotations, no events of kopf's own."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = 25
    settings.persistence.finalizer = "modelswarm.io/kopf"
    watching.server_side_selectors(settings)
    return settings


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _first(*waits: "asyncio.Task[None] | object") -> None:
    """Wait for the first of them; what we started for waiting is cancelled, tasks of others are left alone."""
    loop = asyncio.get_running_loop()
    started = [loop.create_task(wait) for wait in waits if asyncio.iscoroutine(wait)]
    others = [wait for wait in waits if isinstance(wait, asyncio.Task)]
    try:
        await asyncio.wait([*started, *others], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in started:
            task.cancel()
