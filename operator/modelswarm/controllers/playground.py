"""The playground controller: waits for models and images, then runs the workload, and says what it waits for."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

from modelswarm.api.conditions import PlaygroundReason, TaskCondition, find, is_true
from modelswarm.api.labels import GATE_TIMEOUT, MODEL_NAME, PLAYGROUND
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.content.source import is_distributable, parse_source
from modelswarm.controllers.drift import Ownership, is_applied, ownership, stamped
from modelswarm.controllers.gate import Gate, Wait, WaitKind, decide, parse_duration
from modelswarm.controllers.patience import Patience
from modelswarm.controllers.playground_status import Aborted, Serving, Situation, serving, status_of
from modelswarm.controllers.queue import Key
from modelswarm.controllers.rollout import Children, Rollout, pinned_model
from modelswarm.controllers.runner import Result
from modelswarm.controllers.secrets import asks_for_credentials, secret_for
from modelswarm.controllers.world import World
from modelswarm.errors import (
    ContentReason,
    Forbidden,
    Invalid,
    InvalidReference,
    KubeError,
    NotFound,
    RenderError,
    RenderReason,
)
from modelswarm.kube.kinds import P2PTASK, SERVICEACCOUNT
from modelswarm.kube.objects import key_of
from modelswarm.workload.pod import DFDAEMON_SOCKET
from modelswarm.workload.render import OperatorPart, Workload, images, needs_models, render_workload
from modelswarm.workload.tasks import (
    brings_same_model,
    image_task,
    image_task_name,
    model_task,
    private_task_name,
    respelled,
)

PULL_SECRET_CACHE_SECONDS = 15.0
COPY_AGAIN_SECONDS = 15.0
"""How often the copy of a manifest is tried whose original is not there: its return is no event of the Playground."""


class Abort(Exception):
    """The Playground cannot have a workload now; carries what the status says of it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.aborted = Aborted(reason, message)


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass over a Playground, as far as it goes without writing anything but tasks."""

    workload: Workload
    waits: tuple[Wait, ...]
    gate: Gate
    model_tasks: tuple[P2PTask, ...]


class PlaygroundController:
    def __init__(self, world: World) -> None:
        self._world = world
        self._rollout = Rollout(world)
        self._patience = Patience()
        self._pull_secrets: dict[str, tuple[float, tuple[str, ...] | None]] = {}

    async def reconcile(self, key: Key) -> Result:
        playground = self._world.playground(key)
        if playground is None or playground.metadata.deletion_timestamp is not None:
            self._patience.forget(key)
            return Result()
        children = self._rollout.children(playground)
        try:
            plan = await self._plan(playground, children)
            situation, look_again = await self._act(playground, plan, children)
        except Abort as abort:
            situation = Situation(aborted=abort.aborted, serving=self._still_serving(playground, children))
            look_again = _LOOK_AGAIN.get(abort.aborted.reason)
        if not playground.status.conditions and _only_waits(situation) and (left := self._patience.left(key)):
            return Result(requeue_after=left)
        self._patience.forget(key)
        await self._world.write_status(playground, status_of(playground, situation, self._world.clock()))
        return Result(requeue_after=look_again)

    async def _plan(self, playground: Playground, children: Children) -> Plan:
        """What should be there. Image tasks are created on the way: at once, in parallel with the models'."""
        self._refuse_company()
        refs = playground.model_refs
        if refs:
            await self._world.label(playground, {MODEL_NAME: refs[0].name})
        _check(children, playground)
        models = self._models(playground)
        runtime = self._world.runtime(playground.backend_name)
        if runtime is None:
            raise Abort(
                PlaygroundReason.BACKEND_RUNTIME_NOT_FOUND,
                f"BackendRuntime {playground.backend_name} does not exist; create it, or name another one in "
                "spec.backendRuntimeConfig.backendName",
            )
        operator = self._operator_part(playground.metadata.namespace)
        try:
            # A render without pins first: a Playground that cannot be rendered must not start any distribution.
            names = images(playground, runtime, models, operator)
            render_workload(playground, runtime, models, operator, [None] * len(models))
            model_waits = [await self._model_wait(playground, model) for model in models]
        except (RenderError, InvalidReference) as error:
            raise Abort(error.reason, error.message) from None
        image_waits = [await self._image_wait(playground, name) for name in names]
        waits = tuple(wait for wait in chain(model_waits, image_waits) if wait is not None)
        tasks = [wait.task if wait is not None else None for wait in model_waits]
        pinned = [pinned_model(playground, task, self._agent_root(playground.metadata.namespace)) for task in tasks]
        return Plan(
            workload=render_workload(playground, runtime, models, operator, pinned),
            waits=waits,
            gate=decide(
                waits,
                since=playground.metadata.creation_timestamp or self._world.clock(),
                timeout=self._gate_timeout(playground),
                now=self._world.clock(),
            ),
            model_tasks=tuple(task for task in tasks if task is not None),
        )

    async def _act(self, playground: Playground, plan: Plan, children: Children) -> tuple[Situation, float | None]:
        """Bring the cluster to the plan as far as the gate lets it; then what the status follows from."""
        if plan.gate.open or children.deployment is not None:
            has_scaler = plan.workload.autoscaler is not None
            children = await self._rollout.with_strangers(playground, children, autoscaler=has_scaler)
            _check(children, playground)
        complete = True
        live, current = children.deployment, self._rollout.is_current(children.deployment, plan.workload)
        try:
            if plan.gate.open and not current:
                live = await self._rollout.deploy(playground, plan.workload, plan.model_tasks)
                current = True
                children = Children(live, children.service, children.autoscaler)
            if live is not None:
                await self._rollout.follow(playground, plan.workload, children)
                complete = await self._rollout.restore_copies(playground, live, plan.model_tasks)
                if current:
                    await self._rollout.collect_copies(playground, live)
        except (Invalid, Forbidden) as error:
            raise Abort(_refusal(error), f"the API server refuses the workload: {error.message}") from None
        await self._collect_tasks(playground, plan)
        situation = Situation(
            gate=plan.gate,
            serving=serving(live),
            held=live is not None and not current,
            degraded=self._degraded(playground, plan),
        )
        return situation, plan.gate.look_again if complete else min(plan.gate.look_again or inf, COPY_AGAIN_SECONDS)

    def _refuse_company(self) -> None:
        holder = self._world.cluster.llmaz_holder
        if holder is not None:
            raise Abort(
                PlaygroundReason.LLMAZ_IS_RUNNING,
                f"llmaz's own controller manager is running in this cluster ({holder}); two controllers would fight "
                f"over every Playground. Scale it down: kubectl -n {self._world.settings.llmaz_namespace} scale "
                "deployment llmaz-controller-manager --replicas=0. Remove its webhooks, too: nobody answers "
                "them then, and as their failurePolicy is Fail every change would be refused: kubectl delete "
                "validatingwebhookconfiguration/llmaz-validating-webhook-configuration "
                "mutatingwebhookconfiguration/llmaz-mutating-webhook-configuration. If llmaz-global-config has "
                "init-container-image, take that line out: it replaces modelswarm's loader by llmaz's",
            )

    def _models(self, playground: Playground) -> list[OpenModel]:
        found, missing = [], []
        for ref in playground.model_refs:
            model = self._world.openmodel(ref.name)
            if model is None or model.metadata.deletion_timestamp is not None:
                missing.append(ref.name)
            else:
                found.append(model)
        if missing:
            names = ", ".join(dict.fromkeys(missing))
            raise Abort(
                PlaygroundReason.MODEL_NOT_FOUND, f"Waiting for model creation: OpenModel {names} does not exist"
            )
        return found

    def _agent_root(self, namespace: str) -> str | None:
        settings = self._world.settings
        return settings.agent_root if not settings.is_hostpath_free(namespace) else None

    def _operator_part(self, namespace: str) -> OperatorPart:
        config, settings = self._world.cluster.config, self._world.settings
        dragonfly = settings.dragonfly() if settings.distribution else None
        has_socket = dragonfly is not None and not settings.is_hostpath_free(namespace)
        return OperatorPart(
            loader_image=config.loader_image or settings.loader_image,
            scheduler_name=config.scheduler_name,
            progress_deadline_seconds=max(7200, int(2 * settings.gate_timeout_seconds)),
            dragonfly_socket=DFDAEMON_SOCKET if has_socket else None,
            dragonfly_tag=dragonfly.tag if dragonfly is not None else "",
            dragonfly_application=dragonfly.application if dragonfly is not None else "",
            dragonfly_allow_gated=dragonfly is not None and dragonfly.allow_gated,
            turnstile_url=settings.turnstile_url,
            loader_ca=settings.loader_ca,
        )

    def _gate_timeout(self, playground: Playground) -> float:
        text = playground.metadata.annotations.get(GATE_TIMEOUT)
        wanted = parse_duration(text) if text is not None else None
        return self._world.settings.gate_timeout_seconds if wanted is None else wanted

    async def _model_wait(self, playground: Playground, model: OpenModel) -> Wait | None:
        """The task that must be Ready before this model can be served; None where nothing is distributed."""
        source = parse_source(model.spec.source)
        if not self._world.settings.distribution or not is_distributable(source) or not needs_models(playground):
            return None
        namespace = self._world.settings.namespace
        wanted = model_task(model, namespace=namespace)
        assert wanted is not None
        task = self._own_task(key_of(wanted).name, namespace, model)
        if task is not None and asks_for_credentials(task):
            task = await self._private_task(playground, model, secret_for(source)) or task
        elif task is not None and self._may_be_private(playground, task):
            private = await self._private_task(playground, model, secret_for(source))
            task = private if private is not None and is_true(private.status.conditions, TaskCondition.READY) else task
        return Wait(WaitKind.MODEL, model.metadata.name, task)

    def _may_be_private(self, playground: Playground, task: P2PTask) -> bool:
        """A hub says "not found" to strangers also of a private repository; worth a try where we may read Secrets."""
        resolved = find(task.status.conditions, TaskCondition.RESOLVED)
        unknown = resolved is not None and resolved.reason == ContentReason.SOURCE_NOT_FOUND
        return unknown and playground.metadata.namespace in self._world.settings.credential_namespaces

    def _own_task(self, name: str, namespace: str, owner: OpenModel) -> P2PTask | None:
        live = self._world.store.get(P2PTASK, name, namespace)
        if live is None or ownership(live, owner) is not Ownership.OURS:
            return None
        return P2PTask.model_validate(live)

    async def _private_task(self, playground: Playground, model: OpenModel, secret: str | None) -> P2PTask | None:
        """The model's task with the Playground's own credentials, where llmaz users keep them."""
        namespace = playground.metadata.namespace
        if secret is None or namespace == self._world.settings.namespace:
            return None
        wanted = model_task(model, namespace=namespace, credentials_secret=secret)
        assert wanted is not None
        wanted["metadata"] = {
            "name": private_task_name(model, playground),
            "namespace": namespace,
            "labels": {MODEL_NAME: model.metadata.name, PLAYGROUND: playground.metadata.name},
            "ownerReferences": [playground.owner_reference()],
        }
        return await self._ensure_task(playground, self._under_its_name(playground, wanted))

    def _under_its_name(self, playground: Playground, wanted: JsonObject) -> JsonObject:
        """Earlier versions named these tasks otherwise. One that is there stays: what runs has its pinned content."""
        new, meta = P2PTask.model_validate(wanted), wanted["metadata"]
        assert isinstance(meta, dict)
        mine = self._world.store.list(P2PTASK, index=("owner", playground.metadata.uid))
        same = (task.metadata for task in map(P2PTask.model_validate, mine) if brings_same_model(new, task))
        names = sorted(each.name for each in same if each.deletion_timestamp is None)
        if not names or new.metadata.name in names:
            return wanted
        return {**wanted, "metadata": {**meta, "name": names[0]}}

    async def _image_wait(self, playground: Playground, image: str) -> Wait | None:
        if not self._world.settings.distribution:
            return None
        secrets = await self._default_pull_secrets(playground.metadata.namespace)
        if secrets is None:
            secrets = self._present_pull_secrets(playground, image)
        task = await self._ensure_task(playground, image_task(playground, image, pull_secrets=secrets))
        return Wait(WaitKind.IMAGE, image, task)

    async def _ensure_task(self, playground: Playground, wanted: JsonObject) -> P2PTask | None:
        """The Playground's own task, created or corrected; None while a predecessor's is still being collected."""
        live = await self._world.find(P2PTASK, key_of(wanted).name, playground.metadata.namespace)
        if live is None and not self._world.is_there(playground):
            return None
        if live is not None:
            match ownership(live, playground):
                case Ownership.FOREIGN:
                    raise Abort(
                        PlaygroundReason.NAME_CLASH,
                        f"P2PTask {key_of(wanted).name} exists and does not belong to this Playground; remove it",
                    )
                case Ownership.STALE:
                    stale = P2PTask.model_validate(live)
                    if stale.metadata.deletion_timestamp is None:
                        await self._delete(stale)
                    return None
                case Ownership.OURS:
                    wanted = respelled(wanted, live)
        wanted = stamped(wanted)
        if live is not None and is_applied(wanted, live):
            return P2PTask.model_validate(live)
        try:
            return P2PTask.model_validate(await self._world.apply(wanted))
        except (Invalid, Forbidden) as error:
            raise Abort(
                _refusal(error), f"the API server refuses P2PTask {key_of(wanted).name}: {error.message}"
            ) from None

    async def _collect_tasks(self, playground: Playground, plan: Plan) -> None:
        """Delete this Playground's tasks that nothing waits for any more (another version, another model)."""
        if not plan.gate.open:
            return
        wanted = {wait.task.metadata.uid for wait in plan.waits if wait.task is not None}
        for live in self._world.store.list(P2PTASK, index=("owner", playground.metadata.uid)):
            task = P2PTask.model_validate(live)
            if task.metadata.uid not in wanted and task.metadata.deletion_timestamp is None:
                await self._delete(task)

    async def _delete(self, task: P2PTask) -> None:
        await self._world.delete(P2PTASK, task.metadata.name, task.metadata.namespace, uid=task.metadata.uid)

    def _present_pull_secrets(self, playground: Playground, image: str) -> tuple[str, ...]:
        """Those that the image's task has."""
        task = self._world.task(playground.metadata.namespace, image_task_name(playground, image))
        references = task.spec.image.pull_secrets if task is not None and task.spec.image is not None else ()
        return tuple(reference.name for reference in references)

    async def _default_pull_secrets(self, namespace: str) -> tuple[str, ...] | None:
        """Pull secrets of the namespace's default ServiceAccount, where the operator may read credentials at all.

        None while it has never been read: what is there then stays.
        """
        if namespace not in self._world.settings.credential_namespaces:
            return ()
        now = asyncio.get_running_loop().time()
        looked, names = self._pull_secrets.get(namespace, (-PULL_SECRET_CACHE_SECONDS, None))
        if now - looked >= PULL_SECRET_CACHE_SECONDS:
            try:
                account = await self._world.kube.get(SERVICEACCOUNT, "default", namespace)
                references = account.get("imagePullSecrets")
                names = tuple(
                    str(reference["name"])
                    for reference in (references if isinstance(references, list) else [])
                    if isinstance(reference, dict) and reference.get("name")
                )
            except NotFound:
                names = ()
            except KubeError:
                pass
            self._pull_secrets[namespace] = (now, names)
        return names

    def _still_serving(self, playground: Playground, children: Children) -> Serving | None:
        live = children.deployment
        return serving(live) if live is not None and ownership(live, playground) is Ownership.OURS else None

    def _degraded(self, playground: Playground, plan: Plan) -> tuple[str, str] | None:
        """The first thing that does not work as asked, though it works."""
        text = playground.metadata.annotations.get(GATE_TIMEOUT)
        if text is not None and parse_duration(text) is None:
            return (
                PlaygroundReason.INVALID_GATE_TIMEOUT,
                f"annotation {GATE_TIMEOUT}: {text!r} is no duration; write it as 30m, 90s or 0",
            )
        if plan.gate.timed_out:
            return PlaygroundReason.GATE_TIMEOUT, plan.gate.message
        return _first_degraded(plan.waits)


def _only_waits(situation: Situation) -> bool:
    """For its tasks, which mostly takes no time that anybody would notice."""
    return situation.aborted is None and situation.serving is None and situation.degraded is None


def _check(children: Children, playground: Playground) -> None:
    if (clash := children.clash(playground)) is not None:
        raise Abort(clash.reason, clash.message)


def _first_degraded(waits: Sequence[Wait]) -> tuple[str, str] | None:
    for wait in waits:
        if wait.task is not None and is_true(wait.task.status.conditions, TaskCondition.DEGRADED):
            condition = find(wait.task.status.conditions, TaskCondition.DEGRADED)
            assert condition is not None
            return condition.reason, f"{wait.kind} {wait.name}: {condition.message}"
    return None


_LOOK_AGAIN: dict[str, float] = {
    RenderReason.INVALID_OBJECT: 30.0,
    PlaygroundReason.FORBIDDEN: 30.0,
    PlaygroundReason.NAME_CLASH: 1.0,
}
"""Seconds. A quota, a policy or somebody else's object may change without us hearing of it, so we look now and then."""


def _refusal(error: KubeError) -> str:
    return PlaygroundReason.FORBIDDEN if isinstance(error, Forbidden) else RenderReason.INVALID_OBJECT
