"""The model controller: an OpenModel gets one P2PTask, and tells how far that is in its own conditions."""

import asyncio

from modelswarm.api.conditions import (
    Condition,
    ModelCondition,
    ModelReason,
    TaskCondition,
    TaskReason,
    find,
    is_true,
    set_condition,
)
from modelswarm.api.conditions import Status as ConditionStatus
from modelswarm.api.labels import MODEL_FAMILY
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import OpenModel, OpenModelStatus
from modelswarm.api.p2ptask import P2PTask, Phase
from modelswarm.api.playground import Playground
from modelswarm.content.source import is_distributable, parse_source
from modelswarm.controllers.drift import Ownership, is_applied, ownership, stamped
from modelswarm.controllers.patience import Patience
from modelswarm.controllers.queue import Key
from modelswarm.controllers.runner import Result
from modelswarm.controllers.secrets import secret_for
from modelswarm.controllers.world import World
from modelswarm.errors import Forbidden, Invalid, InvalidReference, KubeError, NotFound
from modelswarm.kube.kinds import DEPLOYMENT, P2PTASK, PLAYGROUND, SECRET
from modelswarm.kube.objects import key_of
from modelswarm.workload.tasks import model_task, respelled, wanted_copies

SECRET_CACHE_SECONDS = 5.0
"""How often a Secret that may come or go is looked up, while a model asks for it (Secrets are not watched)."""
IN_THE_WAY_SECONDS = 1.0
"""How often a task of somebody else under our name is looked at: its end is no event of this model."""
REFUSED_SECONDS = 30.0
"""How often a task that the API server refused is tried again: a quota or a policy may change unheard."""


class ModelController:
    def __init__(self, world: World) -> None:
        self._world = world
        self._secrets: dict[str, tuple[float, bool]] = {}
        self._patience = Patience()

    async def reconcile(self, key: Key) -> Result:
        model = self._world.openmodel(key.name)
        if model is None or model.metadata.deletion_timestamp is not None:
            self._patience.forget(key)
            return Result()
        await self._world.label(model, {MODEL_FAMILY: model.spec.family_name})
        try:
            source = parse_source(model.spec.source)
        except InvalidReference as error:
            await self._write(model, "False", error.reason, error.message)
            return Result()
        if not self._world.settings.distribution or not is_distributable(source):
            await self._write(model, "True", ModelReason.READY, "Nothing to distribute")
            await self._collect(model, keep=None)
            return Result()
        desired = model_task(
            model,
            namespace=self._world.settings.namespace,
            credentials_secret=await self._present_secret(secret_for(source)),
            placement_copies=self._wanted_copies(model),
        )
        assert desired is not None
        try:
            task = await self._ensure(model, desired)
        except (Invalid, Forbidden) as error:
            self._patience.forget(key)
            await self._say_refused(model, key_of(desired).name, error)
            return Result(requeue_after=REFUSED_SECONDS)
        await self._collect(model, keep=key_of(desired).name)
        if task is None:
            return Result(requeue_after=IN_THE_WAY_SECONDS)
        if not model.status.conditions and _is_on_its_way(task) and (left := self._patience.left(key)):
            return Result(requeue_after=left)
        self._patience.forget(key)
        await self._mirror(model, task)
        return Result(requeue_after=SECRET_CACHE_SECONDS if _may_want_another_secret(task) else None)

    def _wanted_copies(self, model: OpenModel) -> int:
        """As many as the largest Playground that loads the model may have pods, and at least the setting."""
        users = self._world.store.list(PLAYGROUND, index=("model", model.metadata.name))
        playgrounds = (Playground.model_validate(obj) for obj in users)
        return wanted_copies(model.metadata.name, playgrounds, self._world.settings.placement_copies)

    async def _ensure(self, model: OpenModel, desired: JsonObject) -> P2PTask | None:
        """Make the task what it should be; None while a predecessor's task of the same name is on its way out."""
        name, namespace = key_of(desired).name, self._world.settings.namespace
        live = await self._world.find(P2PTASK, name, namespace)
        if live is None and not self._world.is_there(model):
            return None
        if live is not None:
            match ownership(live, model):
                case Ownership.FOREIGN:
                    message = (
                        f"P2PTask {namespace}/{name} exists and does not belong to this model; remove or rename it"
                    )
                    await self._write(model, "False", TaskReason.NAME_CLASH, message)
                    return None
                case Ownership.STALE:
                    stale = P2PTask.model_validate(live)
                    if stale.metadata.deletion_timestamp is None:
                        await self._world.delete(P2PTASK, name, namespace, uid=stale.metadata.uid)
                    return None
                case Ownership.OURS:
                    desired = respelled(desired, live)
        desired = stamped(desired)
        if live is not None and is_applied(desired, live):
            return P2PTask.model_validate(live)
        return P2PTask.model_validate(await self._world.apply(desired))

    async def _collect(self, model: OpenModel, *, keep: str | None) -> None:
        """Delete this model's tasks of earlier sources, except while a Deployment still runs on one of them."""
        for live in self._world.store.list(P2PTASK, index=("owner", model.metadata.uid)):
            task = P2PTask.model_validate(live)
            name = task.metadata.name
            in_use = self._world.store.list(DEPLOYMENT, index=("task", name))
            if name != keep and not in_use and task.metadata.deletion_timestamp is None:
                await self._world.delete(P2PTASK, name, task.metadata.namespace, uid=task.metadata.uid)

    async def _say_refused(self, model: OpenModel, name: str, error: Invalid | Forbidden) -> None:
        """There is no task; or there is one that stays as it was, and then the model is only degraded."""
        namespace = self._world.settings.namespace
        reason, remedy = _refusal(error)
        message = f"the API server refuses P2PTask {namespace}/{name}: {error.message}; {remedy}"
        task = self._world.task(namespace, name)
        if task is None:
            await self._write(model, "False", reason, message)
            return
        now = self._world.clock()
        degraded = Condition(
            type=ModelCondition.DEGRADED, status="True", reason=reason, message=message, last_transition_time=now
        )
        await self._mirror(model, task, degraded)

    async def _mirror(self, model: OpenModel, task: P2PTask, degraded: Condition | None = None) -> None:
        """Tell the task's state as the model's; ``degraded`` is what is said instead of the task's own Degraded."""
        ready = find(task.status.conditions, TaskCondition.READY)
        degraded = degraded or find(task.status.conditions, TaskCondition.DEGRADED)
        if ready is not None and ready.status == "True":
            fell_back = ready.reason == TaskReason.FELL_BACK
            message = ready.message if fell_back else "Model is downloaded successfully"
            await self._write(
                model, "True", TaskReason.FELL_BACK if fell_back else ModelReason.READY, message, degraded
            )
        elif ready is not None and task.status.phase is Phase.FAILED:
            await self._write(model, "False", ready.reason, ready.message, degraded)
        else:
            await self._write(model, "Unknown", ModelReason.PENDING, _waiting_message(task), degraded)

    async def _write(
        self, model: OpenModel, ready: ConditionStatus, reason: str, message: str, degraded: Condition | None = None
    ) -> None:
        """llmaz's pair of conditions: Pending while the bytes are on their way, Ready when they are there.

        ``ready`` is Unknown while waiting; it is written as Pending=True and Ready=False. Without ``degraded`` an
        earlier one is over: the task that it came from may be gone, and another need not say anything of it.
        """
        waiting = ready == "Unknown"
        now, generation = self._world.clock(), model.metadata.generation
        conditions = set_condition(
            model.status.conditions,
            ModelCondition.PENDING,
            "True" if waiting else "False",
            reason,
            message,
            generation=generation,
            now=now,
        )
        conditions = set_condition(
            conditions,
            ModelCondition.READY,
            "False" if waiting else ready,
            reason,
            message,
            generation=generation,
            now=now,
        )
        if degraded is not None:
            conditions = set_condition(
                conditions,
                ModelCondition.DEGRADED,
                degraded.status,
                degraded.reason,
                degraded.message,
                generation=generation,
                now=now,
            )
        elif find(conditions, ModelCondition.DEGRADED) is not None:
            conditions = set_condition(
                conditions,
                ModelCondition.DEGRADED,
                "False",
                ModelReason.HEALTHY,
                "Nothing is degraded",
                generation=generation,
                now=now,
            )
        await self._world.write_status(model, OpenModelStatus(conditions=conditions))

    async def _present_secret(self, name: str | None) -> str | None:
        """The Secret's name if it exists in the operator's namespace and may be read (looked up now and then)."""
        if name is None:
            return None
        now = asyncio.get_running_loop().time()
        looked, present = self._secrets.get(name, (-SECRET_CACHE_SECONDS, False))
        if now - looked >= SECRET_CACHE_SECONDS:
            try:
                await self._world.kube.get(SECRET, name, self._world.settings.namespace)
                present = True
            except NotFound:
                present = False
            except KubeError:
                pass
            self._secrets[name] = (now, present)
        return name if present else None


def _refusal(error: Invalid | Forbidden) -> tuple[ModelReason, str]:
    """The reason, and what helps."""
    if isinstance(error, Forbidden):
        return ModelReason.FORBIDDEN, "change the quota, policy or role that this names"
    return ModelReason.INVALID_OBJECT, "correct the field that this names, or delete that P2PTask if it is there"


def _may_want_another_secret(task: P2PTask) -> bool:
    """It failed without a Secret (a hub says "not found" to strangers also of what is private), or its Secret went."""
    resolved = find(task.status.conditions, TaskCondition.RESOLVED)
    secret_went = resolved is not None and resolved.reason == TaskReason.CREDENTIAL_NOT_FOUND
    return task.status.phase is Phase.FAILED and (task.spec.credentials_secret_ref is None or secret_went)


def _is_on_its_way(task: P2PTask) -> bool:
    return task.status.phase is not Phase.FAILED and not is_true(task.status.conditions, TaskCondition.READY)


def _waiting_message(task: P2PTask) -> str:
    status = task.status
    parts = ["Waiting for model downloading"]
    if status.display.progress != "-":
        parts.append(f"{status.display.progress}, ETA {status.display.eta}")
    elif status.display.message:
        parts.append(status.display.message)
    elif status.phase is not Phase.PENDING:
        parts.append(status.phase)
    return ": ".join(parts)
