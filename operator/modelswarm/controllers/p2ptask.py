"""The p2ptask controller: resolve once -> manifest -> engine -> status, for tasks made by hand and by controllers."""

import asyncio
import contextlib
import random
from collections.abc import Sequence

from modelswarm.api.conditions import TaskCondition, TaskReason, find
from modelswarm.api.labels import FINALIZER
from modelswarm.api.meta import JsonObject
from modelswarm.api.p2ptask import Engine, P2PTask, Phase
from modelswarm.backends.engine import EngineBackend, EngineState, Observation
from modelswarm.content.image import parse_reference
from modelswarm.content.source import HubSource, StoreSource, parse_source
from modelswarm.controllers.pinning import Pin, PinJobs, Pinner
from modelswarm.controllers.queue import Key
from modelswarm.controllers.runner import Result
from modelswarm.controllers.secrets import read_credentials
from modelswarm.controllers.task_status import Facts, Policy, advance
from modelswarm.controllers.world import World
from modelswarm.errors import (
    Conflict,
    ContentError,
    EngineError,
    Invalid,
    InvalidReference,
    NotFound,
    TaskBlocked,
)
from modelswarm.kube.kinds import CONFIGMAP, P2PTASK

RESOLVING_IS_WORTH_SAYING = 1.0
"""Seconds: a task that resolves faster goes straight to its next phase (one write less)."""


class TaskController:
    """``engines`` in the order in which ``Auto`` tries them; ``Direct`` serves everything and stands last."""

    def __init__(self, world: World, engines: Sequence[EngineBackend], pinner: Pinner, jobs: PinJobs) -> None:
        self._world = world
        self._engines = engines
        self._pinner = pinner
        self._jobs = jobs
        self._image_checks: dict[Key, float] = {}
        settings = world.settings
        self._policy = Policy(settings.stall_seconds, settings.fallback_after_seconds, settings.retry_seconds)

    async def reconcile(self, key: Key) -> Result:
        task = self._world.task(key.namespace, key.name)
        if task is None:
            self._forget(key)
            return Result()
        if task.metadata.deletion_timestamp is not None:
            self._forget(key)
            return await self._finalize(task)
        if (remaining := self._time_to_live(task)) is not None and remaining <= 0:
            await self._world.delete(P2PTASK, key.name, key.namespace, uid=task.metadata.uid)
            return Result()
        facts = await self._observe(key, task)
        decision = advance(task, facts, self._policy, self._world.clock())
        if not decision.hold:
            await self._world.write_status(task, decision.status)
        if facts.pin is not None or facts.failure is not None:
            self._jobs.settle(key, decision.retry_in if facts.failure is not None else None)
        # Our own write does not come back as an event, so what follows from the new status is looked up here.
        remaining = self._time_to_live(task.model_copy(update={"status": decision.status}))
        waits = (decision.look_again, facts.retry_in, self._image_check_in(key, task), remaining)
        return Result(requeue_after=min((wait for wait in waits if wait is not None), default=None))

    async def _observe(self, key: Key, task: P2PTask) -> Facts:
        engine = self._engine(task, self._choose(task))
        if task.spec.suspend:
            return Facts(engine)
        if (refused := _refusal(task)) is not None:
            return Facts(engine, refused=refused)
        pin, facts = None, Facts(engine)
        if not self._is_pinned(task):
            state = self._jobs.look(task)
            match state.outcome:
                case Pin():
                    pin = state.outcome
                case None:
                    slow = state.running and state.seconds >= RESOLVING_IS_WORTH_SAYING
                    # A connection may take half a minute to fail; who can do without the answer does not wait.
                    overdue = state.running and state.seconds >= self._world.settings.image_patience_seconds
                    facts = Facts(engine, resolving=slow, overdue=overdue, retry_in=state.retry_in or None)
                case failure:
                    facts = Facts(engine, failure=failure)
            if pin is None and (task.status.resolved is None or facts.failure is not None):
                return facts
        pinned = (
            task
            if pin is None
            else task.model_copy(
                update={"status": task.status.model_copy(update={"resolved": pin.resolved, "manifest": pin.manifest})}
            )
        )
        # What the content turned out to be may decide on the engine.
        backend = self._choose(pinned)
        return Facts(
            self._engine(pinned, backend),
            retry_in=facts.retry_in,
            pin=pin,
            observation=await self._ensure(backend, pinned),
            image_digest=await self._check_image(key, pinned),
        )

    def _is_pinned(self, task: P2PTask) -> bool:
        """Whether the status says what the task was pinned to, and the manifest is all there."""
        if task.status.resolved is None:
            return False
        reference = task.status.manifest
        if reference is None:
            return True
        shards = self._world.store.list(CONFIGMAP, index=("task", f"{task.metadata.namespace}/{task.metadata.name}"))
        return len(shards) >= reference.shards

    def _choose(self, task: P2PTask) -> EngineBackend | None:
        """The engine of this task: what it names, what was chosen before, or the first that can serve it."""
        wanted = task.spec.engine
        if wanted is Engine.AUTO:
            wanted = task.status.engine or Engine.AUTO
        if wanted is Engine.AUTO:
            # One that cannot say yet is waited for: what stands behind it is second choice.
            answers = ((engine, engine.serves(task)) for engine in self._engines)
            first = next(((engine, answer) for engine, answer in answers if answer is not False), None)
            return first[0] if first is not None and first[1] else None
        return next((engine for engine in self._engines if engine.name is wanted), None)

    @staticmethod
    def _engine(task: P2PTask, backend: EngineBackend | None) -> Engine | None:
        """What the status calls it; None while ``Auto`` has not chosen."""
        if backend is not None:
            return backend.name
        return None if task.spec.engine is Engine.AUTO else task.spec.engine

    async def _ensure(self, backend: EngineBackend | None, task: P2PTask) -> Observation:
        if backend is None:
            return Observation(
                EngineState.UNREACHABLE,
                TaskReason.ENGINE_NOT_CONFIGURED,
                f"engine {task.spec.engine} is not configured in this installation; use Auto, or configure it",
            )
        try:
            source = parse_source(task.spec.model.source) if task.spec.model is not None else None
            public = task.status.resolved is not None and task.status.resolved.public is True
            needs_secret = source is not None and backend.name is not Engine.DIRECT and not public
            credentials = await read_credentials(self._world, task, source) if needs_secret and source else None
            observation = await backend.ensure(task, lambda: self._pinner.manifest(task), credentials)
        except (EngineError, TaskBlocked, ContentError) as error:
            return Observation(EngineState.UNREACHABLE, error.reason, error.message)
        await self._hold(task, observation.holds)
        return observation

    async def _check_image(self, key: Key, task: P2PTask) -> str | None:
        """What the tag points at now, when it is time to look (a digest cannot move, so it is never looked up)."""
        if task.spec.image is None or parse_reference(task.spec.image.reference).digest is not None:
            return None
        now, period = self._world.clock().timestamp(), self._world.settings.image_check_seconds
        if key not in self._image_checks:
            self._image_checks[key] = now + period * random.uniform(0.5, 1.0)
            return None
        if now < self._image_checks[key]:
            return None
        self._image_checks[key] = now + period * random.uniform(0.9, 1.1)
        try:
            return await self._pinner.check_image(task)
        except (ContentError, TaskBlocked):
            return None

    def _image_check_in(self, key: Key, task: P2PTask) -> float | None:
        due = self._image_checks.get(key)
        return None if due is None else max(0.1, due - self._world.clock().timestamp())

    def _time_to_live(self, task: P2PTask) -> float | None:
        """Seconds until a finished task that nobody controls is deleted; None where it stays."""
        ttl, finished = task.spec.ttl_seconds_after_finished, task.status.completion_time
        ready = find(task.status.conditions, TaskCondition.READY)
        if task.status.phase is Phase.FAILED and ready is not None:
            finished = ready.last_transition_time
        owned = any(reference.controller for reference in task.metadata.owner_references)
        if ttl is None or finished is None or owned:
            return None
        return ttl - (self._world.clock() - finished).total_seconds()

    async def _hold(self, task: P2PTask, holds: bool) -> None:
        """Keep the finalizer exactly while the engine holds something that must be given back."""
        finalizers = list(task.metadata.finalizers)
        if holds == (FINALIZER in finalizers):
            return
        wanted = [*finalizers, FINALIZER] if holds else [name for name in finalizers if name != FINALIZER]
        operations: list[JsonObject] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": task.metadata.resource_version},
            {"op": "add", "path": "/metadata/finalizers", "value": list(wanted)},
        ]
        try:
            answer = await self._world.kube.json_patch(P2PTASK, task.metadata.name, task.metadata.namespace, operations)
        except Invalid as error:
            raise Conflict(f"{task.metadata.name} changed meanwhile", status=409) from error
        self._world.took(answer)

    async def _finalize(self, task: P2PTask) -> Result:
        if FINALIZER not in task.metadata.finalizers:
            return Result()
        backend = self._choose(task)
        try:
            if backend is not None:
                async with asyncio.timeout(RELEASE_SECONDS):
                    await backend.release(task)
        except (EngineError, TimeoutError):
            waited = (self._world.clock() - (task.metadata.deletion_timestamp or self._world.clock())).total_seconds()
            if waited < GIVE_UP_RELEASE:
                return Result(requeue_after=5.0)
        with contextlib.suppress(NotFound):
            await self._hold(task, False)
        return Result()

    def _forget(self, key: Key) -> None:
        self._jobs.forget(key)
        self._image_checks.pop(key, None)


RELEASE_SECONDS = 30.0
"""For one attempt to give back what the engine holds: less than a reconcile may take, which would end it unseen."""
GIVE_UP_RELEASE = 60.0
"""Seconds after which a task goes even if its engine cannot be asked to give back what it holds."""


def _refusal(task: P2PTask) -> ContentError | None:
    """Why the spec cannot be worked on at all, if so."""
    try:
        if task.spec.image is not None:
            parse_reference(task.spec.image.reference)
        elif task.spec.model is not None:
            source = parse_source(task.spec.model.source)
            if not isinstance(source, HubSource | StoreSource):
                return InvalidReference("this source has nothing to distribute: the engine or the node has it already")
        else:
            return InvalidReference("spec names neither a model nor an image")
    except ContentError as error:
        return error
    return None
