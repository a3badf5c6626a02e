"""The engine: one pass looks at what runs, writes down what it brought, and submits what is missing.

A pass may be cut off between any two requests, and what it found may never be written: the next one starts from the
task's status and from the manager's list, and comes to the same. The order within a pass follows from that:

1. delete jobs that must not stay at the manager, if the status already says what they came to; ask about running
   ones (only when there can be news) and settle them;
2. if there is something to submit: list the manager's jobs first, and adopt those that the status does not know;
3. submit; 4. when everything is confirmed, look once more that nothing of ours is left that holds credentials.
"""

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from modelswarm.api.labels import FINALIZER
from modelswarm.api.p2ptask import DragonflyProbe, DragonflyStatus, Engine, P2PTask
from modelswarm.backends.dragonfly import pace, report
from modelswarm.backends.dragonfly.client import ManagerClient
from modelswarm.backends.dragonfly.compose import compose
from modelswarm.backends.dragonfly.coverage import is_held
from modelswarm.backends.dragonfly.glance import Glances
from modelswarm.backends.dragonfly.images import NOBODY, Images, Login
from modelswarm.backends.dragonfly.ledger import CONFIRMED, Ledger
from modelswarm.backends.dragonfly.marker import PROBE, Marker, superfluous
from modelswarm.backends.dragonfly.plan import Plan, plan_id, plan_image, plan_model
from modelswarm.backends.dragonfly.reasons import DragonflyError, DragonflyReason, JobRefused, OutcomeUnknown
from modelswarm.backends.dragonfly.requests import GetTask
from modelswarm.backends.dragonfly.seeds import Seeds
from modelswarm.backends.dragonfly.settings import DragonflySettings
from modelswarm.backends.dragonfly.upkeep import Upkeep, begun_anew
from modelswarm.backends.engine import EngineState, ManifestReader, Observation
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.source import HubSource, parse_source
from modelswarm.errors import ContentError

CLOCK_SLACK = timedelta(minutes=10)
"""How far the manager's clock may be behind the API server's: its older jobs are not searched for ours."""
PLANS = 256
"""Plans that are remembered, to save requests. They follow from digests, so they cannot be out of date."""
LATE = timedelta(seconds=60)
"""A job whose POST was given up on may appear for so long; until then it is looked for and not made again."""
SOON = 1.0
TROUBLE = 10.0
_LOOKS = 20_000


class Dragonfly:
    """Spreads hub models and images through a Dragonfly manager."""

    name = Engine.DRAGONFLY

    def __init__(
        self,
        client: ManagerClient,
        settings: DragonflySettings,
        endpoints: Endpoints,
        images: Images,
        seeds: Seeds,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._endpoints = endpoints
        self._images = images
        self._clock = clock
        self._rng = rng or random.Random()
        self._glances = Glances(seeds, self._rng)
        self._upkeep = Upkeep(client, seeds, settings.check_seconds, self._rng)
        self._plans: dict[str, Plan] = {}
        self._looks: dict[int, datetime] = {}
        self._late: dict[str, tuple[datetime, DragonflyError]] = {}

    def serves(self, task: P2PTask) -> bool | None:
        """Images, and models of a hub that anybody may read; others only if the settings allow it: Dragonfly hands
        what it has to whoever knows the URL. With a token, only pinning tells which of the two it is."""
        if task.spec.image is not None:
            return True
        if task.spec.model is None or not self._is_hub(task):
            return False
        if self._settings.allow_gated or task.spec.credentials_secret_ref is None:
            return True
        return None if task.status.resolved is None else task.status.resolved.public is True

    async def ensure(self, task: P2PTask, manifest: ManifestReader, credentials: Credentials | None) -> Observation:
        if task.spec.image is None and not self._is_hub(task):
            message = "Dragonfly serves images and models of a hub; use engine Auto for this source"
            raise DragonflyError(DragonflyReason.REFUSED, message)
        status = await self._status(task)
        if status.complete:
            status, wait = await self._keep(task, status)
            if status.complete:
                return replace(report.ready(status), poll_after=wait)
        if not status.renewals:
            return await self._bring(task, status, manifest, credentials)
        try:
            return report.spared(await self._bring(task, status, manifest, credentials))
        except DragonflyError as error:
            trouble = Observation(EngineState.UNREACHABLE, error.reason, error.message, dragonfly=status)
            return replace(report.spared(trouble), holds=FINALIZER in task.metadata.finalizers, poll_after=TROUBLE)

    async def _bring(
        self, task: P2PTask, status: DragonflyStatus, manifest: ManifestReader, credentials: Credentials | None
    ) -> Observation:
        """One pass over what is not there yet."""
        plan = await self._plan(task, status, manifest)
        ledger = Ledger(status, plan, self._settings, task.metadata.uid, self._clock())
        before = ledger.build()
        guarded = FINALIZER in task.metadata.finalizers
        needs_guard = False
        trouble: DragonflyError | None = None
        await self._glances.look(ledger, task.metadata.uid)
        try:
            await self._clean(ledger)
            await self._look(ledger)
            if not ledger.is_settled:
                needs_guard = await self._submit(task, ledger, credentials, guarded=guarded)
                with contextlib.suppress(DragonflyError):  # nobody depends on it; the next look says what is wrong
                    await self._probe(ledger, task.metadata.uid)
        except DragonflyError as error:
            trouble = error
            if isinstance(error, OutcomeUnknown) and error.late:
                self._late[task.metadata.uid] = (self._clock() + LATE, DragonflyError(error.reason, error.message))
        holds = guarded or needs_guard or ledger.holds_credentials
        changed = ledger.build() != before
        if ledger.is_settled:
            return await self._finish(task, ledger, holds=holds, changed=changed)
        if trouble is None:
            poll = SOON if holds and not guarded else self._next_pass(ledger, task.metadata.uid)
            return report.working(ledger, changed=changed, holds=holds, poll_after=poll)
        if not changed:
            raise trouble
        # What was found out is worth writing down; the next pass will say that the manager cannot be asked.
        observation = report.working(ledger, changed=True, holds=holds, poll_after=TROUBLE)
        if ledger.waiting:
            return observation
        return replace(observation, reason=trouble.reason, message=f"{observation.message}; {trouble.message}")

    async def release(self, task: P2PTask) -> None:
        """Remove our jobs from the manager's list, and the credentials with them. What was downloaded stays."""
        for job in await self._client.preheats(since=self._since(task)):
            if (marker := Marker.parse(job.bio)) is not None and marker.uid == task.metadata.uid:
                await self._client.delete(job.id)

    async def _keep(self, task: P2PTask, status: DragonflyStatus) -> tuple[DragonflyStatus, float | None]:
        """A complete task's status, begun anew where that is called for; and seconds until the next look at it."""
        now, clusters = self._clock(), self._settings.clusters
        if status.ineffective:
            able, wait = await self._upkeep.knows_digests(clusters[0], now)
            return (begun_anew(status, frozenset(clusters)) if able else status), wait
        lost, wait = await self._upkeep.lost(task.metadata.uid, status, clusters, now)
        return (begun_anew(status, lost) if lost else status), wait

    # What is to be brought.

    async def _status(self, task: P2PTask) -> DragonflyStatus:
        """The task's own, if it is about what is wanted now; else an empty one."""
        resolved, before = task.status.resolved, task.status.dragonfly or DragonflyStatus()
        assert resolved is not None
        settings = self._settings
        platforms: tuple[str, ...] = ()
        parts: tuple[object, ...] = (resolved.digest, self._endpoints.huggingface, self._endpoints.modelscope)
        if task.spec.image is not None:
            platforms = await self._images.platforms(task, before.platforms)
            base_url = self._images.base_url(self._images.pinned(task))
            parts = (resolved.digest, base_url, platforms, settings.digest_ids)
        else:
            parts = (*parts, resolved.revision, settings.tag, settings.application)
        identity = plan_id(*parts)
        known = {cluster.cluster for cluster in before.clusters}
        if before.plan != identity:
            return DragonflyStatus(plan=identity, platforms=platforms)
        complete = before.complete and (before.ineffective or known == set(settings.clusters))
        return before if complete == before.complete else before.model_copy(update={"complete": complete})

    async def _plan(self, task: P2PTask, status: DragonflyStatus, manifest: ManifestReader) -> Plan:
        key = self._plan_key(task, status.plan)
        if (plan := self._plans.get(key)) is not None:
            return plan
        if task.spec.image is not None:
            image = self._images.pinned(task)
            plan = plan_image(
                status.plan,
                await self._images.manifests(task, status.platforms),
                self._images.base_url(image),
                image.repository,
                str(image.digest),
                digest_ids=self._settings.digest_ids,
            )
        else:
            try:
                plan = plan_model(
                    status.plan,
                    await manifest(),
                    self._endpoints,
                    tag=self._settings.tag,
                    application=self._settings.application,
                )
            except ContentError as error:
                raise DragonflyError(DragonflyReason.CONTENT_UNREADABLE, error.message) from error
        if len(self._plans) >= PLANS:
            self._plans.pop(next(iter(self._plans)))
        self._plans[key] = plan
        return plan

    @staticmethod
    def _plan_key(task: P2PTask, identity: str) -> str:
        """Two tasks may have equal content from different places: the plan's id alone does not tell them apart."""
        return f"{task.metadata.uid}/{identity}"

    # What runs.

    async def _look(self, ledger: Ledger) -> None:
        for job in ledger.live:
            if self._look_in(ledger, job.id) > 0:
                continue
            answer = await self._client.job(job.id)
            ledger.settle(job, answer)
            self._looked(ledger, job.id, pace.look_in(ledger.age(job), self._rng))

    def _look_in(self, ledger: Ledger, number: int) -> float:
        """Seconds until there can be news. Kept in memory only to be polite: without it, one question too many."""
        due = self._looks.get(number)
        return 0.0 if due is None else max(0.0, (due - ledger.now).total_seconds())

    def _looked(self, ledger: Ledger, number: int, seconds: float) -> None:
        if len(self._looks) >= _LOOKS:
            self._looks.clear()
        self._looks[number] = ledger.now + timedelta(seconds=seconds)

    async def _clean(self, ledger: Ledger) -> None:
        """Delete what the status says is over, before anything else is learned: who dies between a look at a job and
        the status that follows from it must find the job again, or it would be made again."""
        for job in ledger.to_delete:
            await self._client.delete(job.id)
            ledger.deleted(job)

    # What is missing.

    async def _submit(self, task: P2PTask, ledger: Ledger, credentials: Credentials | None, *, guarded: bool) -> bool:
        """Make the jobs that are missing. True: they carry credentials, so the task needs its finalizer first."""
        if not ledger.wanted():
            return False
        login = await self._login(task, credentials)
        if login is not NOBODY and not guarded:
            # First the finalizer, then the job: a task that is deleted in between must not leave a password behind.
            return True
        for number in ledger.adopt(await self._client.preheats(since=self._since(task))):
            await self._client.delete(number)
        self._wait_for_late(task, ledger)
        for submission in ledger.wanted():
            if ledger.ineffective:
                break
            request = compose(ledger.plan, submission, str(ledger.marker(submission)), login, self._settings)
            try:
                answer = await self._client.submit(request)
            except JobRefused as error:
                ledger.refuse(submission, error)
            else:
                ledger.submit(submission, answer, credentials=request.args.carries_credentials)
                self._looked(ledger, answer.id, pace.look_in(0.0, self._rng))
        return False

    def _wait_for_late(self, task: P2PTask, ledger: Ledger) -> None:
        """Nothing new is made while a job may still appear. Raises what was the matter with the one given up on."""
        until, error = self._late.get(task.metadata.uid, (ledger.now, None))
        if error is not None and ledger.now < until and ledger.wanted():
            raise error
        self._late.pop(task.metadata.uid, None)

    async def _login(self, task: P2PTask, credentials: Credentials | None) -> Login:
        if task.spec.image is not None:
            return await self._images.login(task)
        token = (credentials.hub_token or credentials.modelscope_token) if credentials is not None else None
        # A task may name this engine and come with a token: then the files are tried without it.
        if token is None or not self._settings.allow_gated or _is_public(task):
            return NOBODY
        return Login(headers={"Authorization": f"Bearer {token}"})

    # What the manager does not tell in time.

    async def _probe(self, ledger: Ledger, uid: str) -> None:
        """Ask about one file of a job that has been pending for long, per cluster, one question at a time."""
        for cluster in self._settings.clusters:
            if self._glances.tells(uid, cluster):
                continue
            probe = ledger.probe(cluster)
            if probe is None:
                await self._ask_about(ledger, cluster, after=-1)
                continue
            age = (ledger.now - probe.asked_at).total_seconds()
            if probe.id == 0:
                if age >= pace.PROBE_EVERY:
                    await self._ask_about(ledger, cluster, after=probe.item)
                continue
            if age < pace.PROBE_SECONDS or self._look_in(ledger, probe.id) > 0:
                continue
            answer = await self._client.job(probe.id)
            if answer is not None and not answer.is_over and age < pace.PROBE_LOST:
                self._looked(ledger, probe.id, pace.look_in(age, self._rng))
                continue
            await self._client.delete(probe.id)
            ledger.answered(probe)
            if answer is not None and is_held(answer):
                ledger.confirm(cluster, frozenset({probe.item}))

    async def _ask_about(self, ledger: Ledger, cluster: int, *, after: int) -> None:
        slow = [job for job in ledger.live if job.cluster == cluster and ledger.age(job) >= pace.PROBE_AGE]
        open_items = sorted(frozenset[int]().union(*(ledger.items_of(job) for job in slow)))
        if not open_items:
            return
        item = next((number for number in open_items if number > after), open_items[0])
        task_id = ledger.plan.entries[item].task_id
        answer = await self._client.submit(
            GetTask(bio=f"{PROBE}/{ledger.plan.id}/c{cluster}", scheduler_cluster_ids=(cluster,), task_id=task_id)
        )
        ledger.ask(DragonflyProbe(id=answer.id, cluster=cluster, item=item, asked_at=ledger.now))

    # The end.

    async def _finish(self, task: P2PTask, ledger: Ledger, *, holds: bool, changed: bool) -> Observation:
        """Ready in any case; complete once nothing of ours is left at the manager that must not stay there.

        What this pass found out (``changed``) is written down before a job is deleted that says the same.
        """
        self._plans.pop(self._plan_key(task, ledger.plan.id), None)
        self._glances.forget(task.metadata.uid)
        if ledger.ineffective:
            self._upkeep.cannot_do_digests(ledger.now)
        # A job whose files were confirmed before the manager looked at it runs out by itself.
        ending = {job.id for job in ledger.build().jobs if job.state == CONFIRMED and not job.credentials}
        try:
            jobs = await self._client.preheats(since=self._since(task))
            doomed = superfluous(jobs, task.metadata.uid, ending=ending, useless=ledger.ineffective)
            if changed and doomed and not ledger.ineffective:
                return replace(report.ready(ledger.build()), holds=holds, poll_after=SOON)
            for number in doomed:
                await self._client.delete(number)
            for cluster in self._settings.clusters:
                if (probe := ledger.probe(cluster)) is not None and probe.id:
                    await self._client.delete(probe.id)
                    ledger.answered(probe)
        except DragonflyError:
            return replace(report.ready(ledger.build()), holds=holds, poll_after=TROUBLE)
        for job in ledger.build().jobs:
            self._looks.pop(job.id, None)
        ledger.close()
        status = ledger.build(complete=True)
        _, wait = await self._keep(task, status)  # nobody else would come back to it
        return replace(report.ready(status), poll_after=wait)

    def _next_pass(self, ledger: Ledger, uid: str) -> float:
        """Seconds until something can be seen or done."""
        if ledger.to_delete:
            return SOON
        waits = [self._look_in(ledger, job.id) for job in ledger.live]
        for cluster in self._settings.clusters:
            if (probe := ledger.probe(cluster)) is not None:
                age = (ledger.now - probe.asked_at).total_seconds()
                if probe.id:
                    waits.append(max(pace.PROBE_SECONDS - age, self._look_in(ledger, probe.id)))
                elif age < pace.PROBE_EVERY:
                    waits.append(pace.PROBE_EVERY - age)
        slow = [pace.PROBE_AGE - ledger.age(job) for job in ledger.live]
        waits += [wait for wait in slow if wait > 0]
        waits += [wait for wait in (ledger.next_retry(), self._glances.next_in(ledger, uid)) if wait is not None]
        return max(SOON, min(waits, default=pace.AT_MOST))

    def _is_hub(self, task: P2PTask) -> bool:
        try:
            return task.spec.model is not None and isinstance(parse_source(task.spec.model.source), HubSource)
        except ContentError:
            return False

    def _since(self, task: P2PTask) -> datetime:
        return (task.metadata.creation_timestamp or datetime.fromtimestamp(0, UTC)) - CLOCK_SLACK


def _is_public(task: P2PTask) -> bool:
    return task.status.resolved is not None and task.status.resolved.public is True
