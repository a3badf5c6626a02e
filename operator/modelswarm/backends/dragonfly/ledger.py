"""The books of one task: which files are confirmed where, which jobs bring the others, what is to be done next. Pure.

Per scheduler cluster every file is in exactly one place::

    not asked for ──submit──► in a running job ──┬──► confirmed
          ▲                     ▲                │
          │                     └──submit again──┴──► in a job that did not bring it, waiting for its next attempt
          └── (plan changed)

Jobs are numbered per cluster. A job at the manager with a higher number than the books know was submitted by a process
that died before it could write it down: it is adopted, never made again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelswarm.api.p2ptask import DragonflyCluster, DragonflyJob, DragonflyProbe, DragonflyStatus, DragonflyTaskID
from modelswarm.backends.dragonfly import pace
from modelswarm.backends.dragonfly.answers import FAILURE, PENDING, SUCCESS, Job
from modelswarm.backends.dragonfly.coverage import divisible, judge
from modelswarm.backends.dragonfly.items import Items, format_items, parse_items
from modelswarm.backends.dragonfly.marker import Marker
from modelswarm.backends.dragonfly.plan import Plan, cut, split
from modelswarm.backends.dragonfly.reasons import DragonflyError, DragonflyReason
from modelswarm.backends.dragonfly.settings import DragonflySettings

REFUSED, LOST, GONE, CONFIRMED = "REFUSED", "LOST", "GONE", "CONFIRMED"
_OVER = frozenset({SUCCESS, FAILURE, REFUSED, LOST, GONE, CONFIRMED})
KEPT = 4
"""Jobs that ended well and are still shown, per cluster."""
MERGE_ABOVE = 32
"""With so many failed jobs in a cluster, those of one attempt and reason become one entry: a status has its limits."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that should be made."""

    cluster: int
    attempt: int
    items: Items
    reason: str | None = None
    message: str | None = None
    """Why the job before it did not bring these files."""


def is_live(job: DragonflyJob) -> bool:
    """Whether the manager may still be working on it."""
    return job.state not in _OVER


class Ledger:
    """A working copy of ``status.dragonfly`` for one pass; ``build`` gives the status to write."""

    def __init__(
        self, status: DragonflyStatus, plan: Plan, settings: DragonflySettings, uid: str, now: datetime
    ) -> None:
        self.plan = plan
        self.now = now
        self.failure: DragonflyJob | None = None
        """A job that failed just now, after more attempts than any that had failed before."""
        self.ineffective = status.ineffective
        """The manager cannot bring an image's layers under the ids that the nodes ask for."""
        self._status = status
        self._settings = settings
        self._uid = uid
        self._jobs = [job for job in status.jobs if job.cluster in settings.clusters]
        self._probes = {probe.cluster: probe for probe in status.probes}
        known = {cluster.cluster: cluster for cluster in status.clusters}
        self._submitted = {number: known[number].submitted if number in known else 0 for number in settings.clusters}
        self._confirmed = {
            number: self._parse(known[number].confirmed) if number in known else frozenset()
            for number in settings.clusters
        }
        self._failed_attempts = status.failed_attempts

    # What there is.

    @property
    def live(self) -> list[DragonflyJob]:
        return [job for job in self._jobs if is_live(job)]

    @property
    def waiting(self) -> list[DragonflyJob]:
        """Jobs that did not bring everything and will be tried again."""
        return [job for job in self._jobs if not is_live(job) and job.items]

    @property
    def troubled(self) -> list[DragonflyJob]:
        """Those, and the ones that try again what such a one did not bring; the most often tried first."""
        found = [job for job in self._jobs if job.items and (job.reason is not None or not is_live(job))]
        return sorted(found, key=lambda job: (-job.attempt, job.cluster, job.serial, job.id))

    @property
    def to_delete(self) -> list[DragonflyJob]:
        """Jobs whose record has to go from the manager: it holds credentials and is over, or nobody waits for it."""
        return [job for job in self._jobs if job.id and (job.state == LOST or (job.credentials and not is_live(job)))]

    @property
    def holds_credentials(self) -> bool:
        return any(job.credentials for job in self._jobs)

    @property
    def is_settled(self) -> bool:
        """Nothing is left to be brought, or to be hoped for."""
        return self.ineffective or all(confirmed >= self.plan.everything for confirmed in self._confirmed.values())

    @property
    def done_bytes(self) -> int:
        return sum(self.plan.size_of(confirmed) for confirmed in self._confirmed.values())

    @property
    def clusters(self) -> tuple[int, ...]:
        return self._settings.clusters

    def under_way(self, cluster: int) -> Items:
        """What running jobs of the cluster have not brought yet, as far as is known."""
        return frozenset[int]().union(*(self.items_of(job) for job in self._of(cluster) if is_live(job)))

    def confirmed(self, cluster: int) -> Items:
        return self._confirmed[cluster]

    def items_of(self, job: DragonflyJob) -> Items:
        return self._parse(job.items)

    def probe(self, cluster: int) -> DragonflyProbe | None:
        return self._probes.get(cluster)

    def age(self, job: DragonflyJob) -> float:
        return (self.now - job.submitted_at).total_seconds()

    # What happened.

    def confirm(self, cluster: int, items: Items) -> None:
        """A seed peer of the cluster has every byte of these. A job that has no others is over for us."""
        self._confirmed[cluster] |= items & self.plan.everything
        for job in self._of(cluster):
            rest = self.items_of(job) - items
            if is_live(job) and job.items and not rest:
                done = {"items": "", "suspects": "", "state": CONFIRMED, "reason": None, "message": None}
                self._replace(job, job.model_copy(update=done))
            else:
                self._put(job, rest)

    def settle(self, job: DragonflyJob, answer: Job | None) -> None:
        """What the manager says of a job (None: it does not know it)."""
        if answer is None:
            self._fail(job, GONE, DragonflyReason.JOB_LOST, "the manager no longer knows the job")
            return
        self._check_ids(answer)
        verdict = judge(answer, self.plan, self.items_of(job))
        missing = self.items_of(job) - verdict.confirmed
        self.confirm(job.cluster, verdict.confirmed)
        job = self._find(job)
        if verdict.over:
            if missing and verdict.reason is not None:
                self._fail(job, FAILURE, verdict.reason, verdict.message, verdict.suspects)
            else:
                self._replace(job, job.model_copy(update={"state": SUCCESS, "reason": None, "message": None}))
            return
        if job.state == CONFIRMED:
            return
        looked = (answer.updated_at - answer.created_at).total_seconds()
        if self.age(job) > self._settings.deadline:
            self._fail(job, LOST, DragonflyReason.JOB_LOST, "the job is pending for longer than any job may take")
        elif pace.is_forgotten(looked, self.age(job)):
            self._fail(job, LOST, DragonflyReason.JOB_LOST, "the manager stopped looking at the job: it was restarted")
        else:
            self._replace(job, job.model_copy(update={"state": answer.state}))

    def submit(self, submission: Submission, answer: Job, *, credentials: bool) -> None:
        """A job was made."""
        self._check_ids(answer)
        self._take(submission.cluster, submission.items)
        self._submitted[submission.cluster] += 1
        self._jobs.append(
            self._job(submission, answer.id, answer.state, self._submitted[submission.cluster], credentials)
        )

    def refuse(self, submission: Submission, error: DragonflyError) -> None:
        """The manager would not make it."""
        self._take(submission.cluster, submission.items)
        job = self._job(submission, 0, REFUSED, 0, credentials=False)
        self._jobs.append(job)
        self._fail(job, REFUSED, error.reason, error.message)

    def adopt(self, answers: Iterable[Job]) -> list[int]:
        """Take over what a predecessor submitted and did not write down; returns jobs that are there twice."""
        ours = [(marker, answer) for answer in answers if (marker := self._mine(answer)) is not None]
        recorded = {(job.cluster, job.serial): job.id for job in self._jobs}
        twice: list[int] = []
        for marker, answer in sorted(ours, key=lambda pair: (pair[0].serial, pair[1].id)):
            keep = recorded.setdefault((marker.cluster, marker.serial), answer.id)
            if keep != answer.id:
                if marker.serial in {job.serial for job in self._of(marker.cluster)}:
                    twice.append(answer.id)
            elif marker.serial > self._submitted[marker.cluster]:
                self._adopt(marker, answer)
        return twice

    def deleted(self, job: DragonflyJob) -> None:
        """The manager's record of it is gone."""
        state = GONE if job.state == LOST else job.state
        self._replace(job, job.model_copy(update={"state": state, "credentials": False}))

    def close(self) -> None:
        """Nothing runs any more, and nothing is left at the manager."""
        self._probes = {}
        ended = [job for job in self._jobs if job.state in (SUCCESS, CONFIRMED) and not self.ineffective]
        self._jobs = [job.model_copy(update={"items": "", "credentials": False}) for job in ended]

    def ask(self, probe: DragonflyProbe) -> None:
        self._probes[probe.cluster] = probe

    def answered(self, probe: DragonflyProbe) -> None:
        """It is gone from the manager, and kept only to know when the next one may be asked."""
        self._probes[probe.cluster] = probe.model_copy(update={"id": 0})

    # What is to be done.

    def wanted(self) -> list[Submission]:
        """The jobs that should be made now: what failed and may be tried again, then what was never asked for."""
        found: list[Submission] = []
        for cluster in self._settings.clusters:
            free = self._settings.jobs_in_flight - sum(is_live(job) for job in self._of(cluster))
            found += [*self._again(cluster), *self._fresh(cluster)][: max(0, free)]
        return found

    def marker(self, submission: Submission) -> Marker:
        """The mark of the job that is submitted next on this cluster."""
        serial = self._submitted[submission.cluster] + 1
        return Marker.of(self._uid, self.plan.id, submission.cluster, serial, submission.attempt, submission.items)

    def next_retry(self) -> float | None:
        """Seconds until a job that did not bring everything may be tried again."""
        times = [job.retry_at for job in self.waiting if job.retry_at is not None]
        return max(0.0, (min(times) - self.now).total_seconds()) if times else None

    def build(self, *, complete: bool = False) -> DragonflyStatus:
        jobs = [job for cluster in self._settings.clusters for job in self._shown(cluster)]
        return self._status.model_copy(
            update={
                "plan": self.plan.id,
                "files": len(self.plan.entries),
                "bytes": self.plan.bytes,
                "clusters": tuple(
                    DragonflyCluster(
                        cluster=number,
                        submitted=self._submitted[number],
                        confirmed=format_items(self._confirmed[number]),
                    )
                    for number in self._settings.clusters
                ),
                "jobs": tuple(jobs),
                "probes": tuple(self._probes[number] for number in sorted(self._probes)),
                "failed_attempts": self._failed_attempts,
                "complete": complete,
                "ineffective": self.ineffective,
                "examples": tuple(DragonflyTaskID(name=e.name, id=e.task_id) for e in self.plan.largest(3)),
            }
        )

    # How it is kept.

    def _again(self, cluster: int) -> Iterable[Submission]:
        for job in self._of(cluster):
            if is_live(job) or not job.items or job.state == LOST or job.credentials:
                continue
            waits = job.retry_at is not None and job.retry_at > self.now
            items, suspects = self.items_of(job), self._parse(job.suspects)
            ones = divisible(job.reason or "")
            for part in split(self.plan, items, suspects) if ones or suspects else [items]:
                blamed = not suspects or part <= suspects
                # What fails by itself only held the others up, and they do not wait with it. A limit is everybody's.
                if waits and (blamed or not ones):
                    continue
                why = (job.reason, job.message) if blamed else (None, None)
                for chunk in self._cut(part):
                    yield Submission(cluster, job.attempt + 1, chunk, *why)

    def _fresh(self, cluster: int) -> Iterable[Submission]:
        asked = frozenset[int]().union(*(self.items_of(job) for job in self._of(cluster)))
        rest = self.plan.everything - self._confirmed[cluster] - asked
        for chunk in self._cut(rest):
            yield Submission(cluster, 1, chunk)

    def _cut(self, items: Items) -> list[Items]:
        return cut(self.plan, items, max_files=self._settings.job_files, max_bytes=self._settings.job_bytes)

    def _check_ids(self, answer: Job) -> None:
        """Managers that know the option for digest ids repeat it in their answers; others drop it."""
        if self.plan.manifest_url is not None and self._settings.digest_ids:
            self.ineffective = answer.args.get("enable_task_id_based_blob_digest") is not True

    def _job(self, submission: Submission, number: int, state: str, serial: int, credentials: bool) -> DragonflyJob:
        return DragonflyJob(
            id=number,
            cluster=submission.cluster,
            state=state,
            attempt=submission.attempt,
            submitted_at=self.now,
            files=len(submission.items),
            serial=serial,
            items=format_items(submission.items),
            reason=submission.reason,
            message=submission.message,
            credentials=credentials,
        )

    def _adopt(self, marker: Marker, answer: Job) -> None:
        items = marker.numbers(below=len(self.plan.entries)) - self._confirmed[marker.cluster]
        self._take(marker.cluster, items)
        self._submitted[marker.cluster] = marker.serial
        # Its age counts from now: the manager's clock may be another one.
        submission = Submission(marker.cluster, marker.attempt, items)
        job = self._job(submission, answer.id, PENDING, marker.serial, answer.carries_credentials)
        self._jobs.append(job)
        self.settle(job, answer)

    def _mine(self, answer: Job) -> Marker | None:
        marker = Marker.parse(answer.bio)
        if marker is None or (marker.uid, marker.plan) != (self._uid, self.plan.id):
            return None
        return marker if marker.cluster in self._submitted else None

    def _fail(
        self, job: DragonflyJob, state: str, reason: DragonflyReason, message: str, suspects: Items = frozenset()
    ) -> None:
        failed = job.model_copy(
            update={
                "state": state,
                "reason": reason.value,
                "message": message,
                "suspects": format_items(suspects & self.items_of(job)),
                "retry_at": self.now + timedelta(seconds=pace.backoff(job.attempt, reason)),
            }
        )
        self._replace(job, failed)
        if job.attempt > self._failed_attempts and failed.items:
            self._failed_attempts = job.attempt
            self.failure = failed

    def _take(self, cluster: int, items: Items) -> None:
        """A new job brings these: no other one is to. One that is left with nothing to bring is not waited for."""
        for job in self._of(cluster):
            rest = self.items_of(job) - items
            if is_live(job) and job.items and not rest:
                self._replace(job, job.model_copy(update={"items": "", "state": LOST}))
            else:
                self._put(job, rest)

    def _put(self, job: DragonflyJob, items: Items) -> None:
        suspects = format_items(self._parse(job.suspects) & items)
        self._replace(job, job.model_copy(update={"items": format_items(items), "suspects": suspects}))

    def _shown(self, cluster: int) -> list[DragonflyJob]:
        jobs = self._of(cluster)
        needed = [job for job in jobs if is_live(job) or job.items or job.credentials or job.state == LOST]
        ended = [job for job in jobs if job not in needed and job.state in (SUCCESS, CONFIRMED)]
        return sorted([*ended[-KEPT:], *self._merge(needed)], key=lambda job: (job.serial, job.id))

    def _merge(self, jobs: list[DragonflyJob]) -> list[DragonflyJob]:
        failed = [job for job in jobs if not is_live(job) and not job.credentials and job.state != LOST]
        if len(failed) <= MERGE_ABOVE:
            return jobs
        merged: dict[tuple[int, str | None], DragonflyJob] = {}
        for job in failed:
            first = merged.setdefault((job.attempt, job.reason), job)
            items = self.items_of(first) | self.items_of(job)
            suspects = self._parse(first.suspects) | self._parse(job.suspects)
            merged[job.attempt, job.reason] = first.model_copy(
                update={"items": format_items(items), "suspects": format_items(suspects), "files": len(items)}
            )
        return [*(job for job in jobs if job not in failed), *merged.values()]

    def _of(self, cluster: int) -> list[DragonflyJob]:
        return [job for job in self._jobs if job.cluster == cluster]

    def _find(self, job: DragonflyJob) -> DragonflyJob:
        return next(other for other in self._jobs if (other.cluster, other.serial, other.id) == _key(job))

    def _replace(self, old: DragonflyJob, new: DragonflyJob) -> None:
        index = next(i for i, job in enumerate(self._jobs) if job is old or job == old)
        self._jobs[index] = new

    def _parse(self, text: str) -> Items:
        return parse_items(text, below=len(self.plan.entries))


def _key(job: DragonflyJob) -> tuple[int, int, int]:
    return (job.cluster, job.serial, job.id)
