"""The only module that registers kopf handlers: watch events go into the store, and keys onto the queues.

A handler never waits, never fails and never decides; kopf runs it for every event and for every object of every list.
kopf does not tell which objects vanished while a watch was down, so a list that it makes anew is
followed by one of our own, which does (``Lists``).
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import kopf

from modelswarm.api.labels import MANAGED_BY, MANAGER, MODEL_NAME, PLAYGROUND, TASK, TASKS
from modelswarm.api.meta import JsonObject
from modelswarm.backends.bittorrent.nodes import contents_of
from modelswarm.controllers.drift import controller_of
from modelswarm.controllers.problems import index_by_problem
from modelswarm.controllers.queue import Key, WorkQueue
from modelswarm.controllers.runner import ReconcileContext, current_reconcile
from modelswarm.controllers.world import World
from modelswarm.errors import Forbidden, KubeError, NotFound
from modelswarm.kube.kinds import (
    AUTOSCALER,
    BACKENDRUNTIME,
    CONFIGMAP,
    DEPLOYMENT,
    NODECACHE,
    OPENMODEL,
    P2PTASK,
    SERVICE,
    Kind,
)
from modelswarm.kube.kinds import (
    PLAYGROUND as PLAYGROUNDS,
)
from modelswarm.kube.objects import key_of, metadata
from modelswarm.kube.port import KubePort, Listing
from modelswarm.kube.store import Store

logger = logging.getLogger(__name__)

WATCHED = (OPENMODEL, BACKENDRUNTIME, PLAYGROUNDS, P2PTASK, DEPLOYMENT, SERVICE, AUTOSCALER, CONFIGMAP)
WATCHED_WITH_AGENTS = (*WATCHED, NODECACHE)
CHILDREN = frozenset({DEPLOYMENT, SERVICE, AUTOSCALER, CONFIGMAP})
"""Kinds of which only ours are watched: the label says so on both sides of the wire."""
OURS = f"{MANAGED_BY}={MANAGER}"
NOT_INSTALLED_SECONDS = 3.0
RELIST_SETTLES = 2.0
"""Seconds after the last object of a list by kopf before our own list looks for what vanished."""

Route = Callable[[JsonObject], Iterable[Key]]


@dataclass(frozen=True, slots=True)
class Watch:
    """One controller hears of one kind: ``route`` gives the keys to look at. It reads the object and the store only."""

    controller: str
    kind: Kind
    queue: WorkQueue
    route: Route


def add_indexes(store: Store) -> None:
    """The secondary indexes that reconciles and routes ask."""
    store.index(PLAYGROUNDS, "model", _models_of)
    store.index(PLAYGROUNDS, "backend", lambda obj: [_backend_of(obj)])
    store.index(P2PTASK, "owner", lambda obj: [owner.uid] if (owner := controller_of(obj)) is not None else [])
    store.index(P2PTASK, "name", lambda obj: [key_of(obj).name])
    store.index(P2PTASK, "content", _content_of)
    store.index(P2PTASK, "phase", lambda obj: [_phase_and_engine(obj)])
    index_by_problem(store)
    store.index(DEPLOYMENT, "task", _tasks_of)
    store.index(CONFIGMAP, "task", lambda obj: _label_key(obj, TASK))
    store.index(CONFIGMAP, "playground", lambda obj: _label_key(obj, PLAYGROUND))


def watches(
    store: Store, model: WorkQueue, playground: WorkQueue, task: WorkQueue, *, agents: bool = False
) -> list[Watch]:
    """Who hears what. One list per controller, so that each controller's dependencies can be read off here.

    ``agents``: nodes have agents, which tell in NodeCaches how far they are.
    """

    def users_of(kind: str, name: str) -> Iterable[Key]:
        return store.keys(PLAYGROUNDS, index=(kind, name))

    def model_of_task(obj: JsonObject) -> Iterable[Key]:
        owner = controller_of(obj)
        return [Key("", owner.name)] if owner is not None and owner.kind == OPENMODEL.kind else []

    def models_of_deployment(obj: JsonObject) -> Iterable[Key]:
        """The label names the main model; draft models are found by their tasks."""
        tasks = (task for name in _tasks_of(obj) for task in store.list(P2PTASK, index=("name", name)))
        found = {key for task in tasks for key in model_of_task(task)}
        return found | {Key("", name)} if (name := _label(obj, MODEL_NAME)) else found

    def playgrounds_of_task(obj: JsonObject) -> Iterable[Key]:
        owner = controller_of(obj)
        if owner is not None and owner.kind == OPENMODEL.kind:
            return users_of("model", owner.name)
        return [Key(key_of(obj).namespace, owner.name)] if owner is not None and owner.kind == PLAYGROUNDS.kind else []

    def own_playground(obj: JsonObject) -> Iterable[Key]:
        return [Key(key_of(obj).namespace, name)] if (name := _label(obj, PLAYGROUND)) else []

    def tasks_of_cache(obj: JsonObject) -> Iterable[Key]:
        return [key for content in contents_of(obj) for key in store.keys(P2PTASK, index=("content", content))]

    for_model = [
        Watch("model", OPENMODEL, model, lambda obj: [key_of(obj)]),
        Watch("model", P2PTASK, model, model_of_task),
        Watch("model", PLAYGROUNDS, model, lambda obj: [Key("", name) for name in _models_of(obj)]),
        Watch("model", DEPLOYMENT, model, models_of_deployment),
    ]
    for_playground = [
        Watch("playground", PLAYGROUNDS, playground, lambda obj: [key_of(obj)]),
        Watch("playground", OPENMODEL, playground, lambda obj: users_of("model", key_of(obj).name)),
        Watch("playground", BACKENDRUNTIME, playground, lambda obj: users_of("backend", key_of(obj).name)),
        Watch("playground", P2PTASK, playground, playgrounds_of_task),
        *(Watch("playground", kind, playground, own_playground) for kind in (DEPLOYMENT, SERVICE, AUTOSCALER)),
        Watch("playground", CONFIGMAP, playground, own_playground),
    ]
    for_task = [
        Watch("p2ptask", P2PTASK, task, lambda obj: [key_of(obj)]),
        Watch(
            "p2ptask",
            CONFIGMAP,
            task,
            lambda obj: [Key(key_of(obj).namespace, name)] if (name := _label(obj, TASK)) else [],
        ),
    ]
    if agents:
        for_task.append(Watch("p2ptask", NODECACHE, task, tasks_of_cache))
    return [*for_model, *for_playground, *for_task]


class Lists:
    """Our own lists: at the start, on a schedule, and after kopf had to list a kind anew."""

    def __init__(self, kube: KubePort, store: Store, kinds: Sequence[Kind] = WATCHED) -> None:
        self._kube = kube
        self._store = store
        self._kinds = tuple(kinds)
        self._due: dict[Kind, asyncio.TimerHandle] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._one_at_a_time: defaultdict[Kind, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known_as_of: dict[Kind, float] = {}
        self.routes: Sequence[Watch] = ()

    async def fill(self) -> None:
        """Everything that there is, before the first reconcile: nothing may look missing only because we are young."""
        for kind in self._kinds:
            self._store.replace_all(kind, await self._list_patiently(kind))

    async def _list_patiently(self, kind: Kind) -> Listing:
        """Wait for what an administrator still has to do, and say what that is, rather than ending again and again."""
        while True:
            try:
                return await self._list(kind)
            except NotFound:
                logger.error(
                    "%s.%s is not installed; run: kubectl apply --server-side -f crds/", kind.plural, kind.group
                )
            except Forbidden as error:
                rules = "rbac-agents.yaml" if kind == NODECACHE else "rbac.yaml"
                logger.error("%s; apply config/operator/%s, or run under the ServiceAccount in it", error, rules)
            except KubeError as error:
                logger.warning("cannot list %s yet: %s", kind.plural, error)
            await asyncio.sleep(NOT_INSTALLED_SECONDS)

    async def refresh(self, kind: Kind) -> None:
        """List the kind, and wake whoever hears of an object that appeared, changed or vanished unseen.

        One list of a kind at a time: the store takes an older one that comes later for a restored backup. A list that
        was asked for after this refresh will do for it.
        """
        clock = asyncio.get_running_loop().time
        asked = clock()
        async with self._one_at_a_time[kind]:
            if self._known_as_of.get(kind, asked) <= asked:
                await self._relist(kind, clock())

    async def _relist(self, kind: Kind, began: float) -> None:
        before = {key_of(obj): obj for obj in self._store.list(kind)}
        changed = self._store.replace_all(kind, await self._list(kind))
        self._known_as_of[kind] = began
        for key in changed:
            now = self._store.get(kind, key.name, key.namespace or None)
            for obj in (before.get(Key(key.namespace, key.name)), now):
                if obj is not None:
                    wake(self.routes, kind, obj)

    def listed(self, kind: Kind) -> None:
        """kopf has shown an object of a list: look for vanished ones when the list is through."""
        if (timer := self._due.pop(kind, None)) is not None:
            timer.cancel()
        self._due[kind] = asyncio.get_running_loop().call_later(RELIST_SETTLES, self._start, kind)

    def _start(self, kind: Kind) -> None:
        self._due.pop(kind, None)
        task = asyncio.get_running_loop().create_task(self._refresh_quietly(kind))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _refresh_quietly(self, kind: Kind) -> None:
        try:
            await self.refresh(kind)
        except KubeError as error:
            logger.warning("cannot list %s: %s; trying again", kind.plural, error)
            self.listed(kind)

    async def run(self, seconds: float) -> None:
        """Everything anew, again and again: bounds what any lost event can cost."""
        while True:
            await asyncio.sleep(seconds)
            for kind in self._kinds:
                await self._refresh_quietly(kind)

    async def stop(self) -> None:
        for timer in self._due.values():
            timer.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _list(self, kind: Kind) -> Listing:
        return await self._kube.list(kind, label_selector=OURS if kind in CHILDREN else None)


def wake(routes: Sequence[Watch], kind: Kind, obj: JsonObject, besides: ReconcileContext | None = None) -> None:
    """Wake whoever hears of the object, besides the reconcile that wrote it: it knows."""
    for watch in routes:
        if watch.kind == kind:
            for key in watch.route(obj):
                if besides is None or (watch.controller, key) != (besides.controller, besides.key):
                    watch.queue.add(key)


def register(registry: kopf.OperatorRegistry, world: World, lists: Lists, routes: Sequence[Watch]) -> None:
    """Register the handlers: one for each kind and controller. Our own writes wake the same ones, at once."""
    lists.routes = routes
    world.told = lambda kind, obj: wake(routes, kind, obj, current_reconcile.get())
    for number, watch in enumerate(routes):
        _register_one(registry, world, lists, watch, f"{watch.controller}-{watch.kind.plural}-{number}")


def _register_one(registry: kopf.OperatorRegistry, world: World, lists: Lists, watch: Watch, name: str) -> None:
    kind, labels = watch.kind, {MANAGED_BY: MANAGER} if watch.kind in CHILDREN else None

    async def handle(event: kopf.RawEvent, **_: object) -> None:
        obj = cast(JsonObject, event["object"])
        if event["type"] == "DELETED":
            world.gone(kind, obj)
        else:
            if event["type"] is None:
                lists.listed(kind)
            if world.is_echo(kind, obj):
                return
            world.store.put(kind, obj)
        for key in watch.route(obj):
            watch.queue.add(key)

    kopf.on.event(kind.group, kind.version, kind.plural, id=name, registry=registry, labels=labels)(handle)


class _Forgetful(kopf.DiffBaseStorage):
    """kopf remembers nothing of an object: our handlers hear every event, so there is nothing to compare it with.

    Its own storages copy the whole object several times for each event, which is a tenth of the operator's work.
    """

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Writes no annotation."""


def server_side_selectors(settings: kopf.OperatorSettings) -> None:
    """Let the API server leave out other people's Deployments, Services, autoscalers and ConfigMaps.

    What comes is handled by our handlers alone: kopf's own view of it is switched off.
    """
    settings.persistence.diffbase_storage = _Forgetful()
    for kind in CHILDREN:
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = OURS


def _label(obj: JsonObject, label: str) -> str:
    return str((metadata(obj).get("labels") or {}).get(label, ""))


def _label_key(obj: JsonObject, label: str) -> Iterable[str]:
    return [f"{key_of(obj).namespace}/{name}"] if (name := _label(obj, label)) else []


def _annotation(obj: JsonObject, annotation: str) -> str:
    return str((metadata(obj).get("annotations") or {}).get(annotation, ""))


def _tasks_of(deployment: JsonObject) -> list[str]:
    """The model tasks whose files a Deployment's pods load."""
    return [name for name in _annotation(deployment, TASKS).split(",") if name]


def _content_of(obj: JsonObject) -> list[str]:
    """The digest that a task with engine BitTorrent is pinned to."""
    status = obj.get("status")
    resolved = status.get("resolved") if isinstance(status, dict) and status.get("engine") == "BitTorrent" else None
    return [str(resolved["digest"])] if isinstance(resolved, dict) and "digest" in resolved else []


def _phase_and_engine(obj: JsonObject) -> str:
    status = obj.get("status")
    status = status if isinstance(status, dict) else {}
    return f"{status.get('phase', 'Pending')}/{status.get('engine', '')}"


def task_counts(store: Store) -> dict[tuple[str, str], int]:
    """How many P2PTasks there are by phase and engine; for the metrics' thread."""
    tally = store.tally(P2PTASK, "phase")
    return {(value.partition("/")[0], value.partition("/")[2]): count for value, count in tally.items()}


def _models_of(obj: JsonObject) -> list[str]:
    """All models that a Playground names, main and draft."""
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return []
    claim, claims = spec.get("modelClaim"), spec.get("modelClaims")
    names = [claim.get("modelName")] if isinstance(claim, dict) else []
    models = claims.get("models") if isinstance(claims, dict) else None
    names += [ref.get("name") for ref in (models if isinstance(models, list) else []) if isinstance(ref, dict)]
    return [str(name) for name in dict.fromkeys(names) if name]


def _backend_of(obj: JsonObject) -> str:
    spec = obj.get("spec")
    config = spec.get("backendRuntimeConfig") if isinstance(spec, dict) else None
    return str(config.get("backendName") or "vllm") if isinstance(config, dict) else "vllm"
