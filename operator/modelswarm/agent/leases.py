"""The Lease of a model at the API server: read it, write it, and hold it.

API writes per model do not grow with its size: one to acquire, one every 30 s while it is under way (which also lists
the nodes that read the origin), one to complete or to release. A conflict costs one more. Everybody else reads.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from modelswarm.agent.election import (
    DURATION,
    RENEW,
    Acquire,
    Complete,
    Decision,
    Fetch,
    Hold,
    Join,
    Record,
    Release,
    Renew,
    StandDown,
    Term,
    View,
    Wait,
    decide,
    still_holds,
)
from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, KubeError, NotFound
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.objects import metadata
from modelswarm.kube.port import KubePort

NAME_PREFIX = "ome-model-"
TYPE_LABEL, TYPE = "ome.io/type", "model-download"
STATUS_LABEL, COMPLETE = "ome.io/status", "complete"
HASH_LABEL = "ome.io/model-hash"
"""The first 63 digits of the model's hash: a label's value may not be longer."""

_ANNOTATION = "modelswarm.io/"
COORDINATOR = _ANNOTATION + "coordinator"
SEGMENT_BYTES = _ANNOTATION + "segment-bytes"
READERS = _ANNOTATION + "origin-readers"
REPO = _ANNOTATION + "repo"
COMMIT = _ANNOTATION + "commit"
MANIFEST = _ANNOTATION + "manifest"
EPOCH = _ANNOTATION + "epoch"

TIMEOUT = 10.0
"""Of one request. A release gets its own, whatever happened before."""
RETRY = 1.0
_SHOWN_READERS = 100

log = logging.getLogger(__name__)


def lease_name(model_hash: str) -> str:
    return NAME_PREFIX + model_hash[:16]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the holder writes for its successors and for people."""

    coordinator: str
    segment_bytes: int = 0
    repo: str = ""
    commit: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the session knows; see ``election.View``."""

    have: bool = False
    seeders: int = 0
    unseeded_since: float | None = None
    wanted: bool = True
    finished: bool = False
    failed: bool = False
    joined: bool = False


class ModelLease:
    """One node's dealings with one model's Lease.

    ``step`` looks, decides and writes; its result says what the caller has to do, and ``term`` whether we hold the
    Lease. ``plan`` is what an acquisition writes; where the Lease has values of a predecessor (commit, manifest,
    segment size), those stay, so that a successor has the same plan. ``readers`` is asked at every renewal.
    """

    def __init__(
        self,
        kube: KubePort,
        *,
        namespace: str,
        model_hash: str,
        me: str,
        plan: Plan,
        readers: Callable[[], Sequence[str]] = tuple,
        duration: float = DURATION,
        renew_every: float = RENEW,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not 0 < renew_every < duration / 2:
            raise ValueError(f"renewals every {renew_every} s are too rare for a lease of {duration} s")
        self.name = lease_name(model_hash)
        self.plan = plan
        self.term: Term | None = None
        self.record: Record | None = None
        self.predecessor: Record | None = None
        """The Lease as it was when we took it: who read the origin, and under which plan."""
        self._kube = kube
        self._namespace = namespace
        self._hash = model_hash
        self._me = me
        self._readers = readers
        self._duration = duration
        self._renew_every = renew_every
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._now = now or (lambda: datetime.now(UTC))
        self._rng = rng or random.Random()
        self._object: JsonObject | None = None
        self._changed_at = 0.0

    @property
    def holds(self) -> bool:
        """Whether we are the coordinator at this moment, also if the process was frozen and does not know better."""
        return self.term is not None and still_holds(self.term, self._duration, self._clock())

    async def step(self, situation: Situation) -> Decision:
        """One look and at most one write. Raises KubeError when the API server cannot be asked and we do not hold.

        After ``Acquire`` see ``term``: None means that somebody was faster, or that the answer got lost; step again
        after a moment. After ``StandDown``, ``Complete`` and ``Release`` we do not hold the Lease any more.
        """
        if self.term is None or self._clock() >= self.term.renewed_at + self._renew_every:
            await self._look()
        decision = decide(self._view(situation))
        match decision:
            case Acquire():
                await self._acquire(decision.why)
            case Renew():
                await self._renew()
            case Complete():
                await self._end(complete=True)
            case Release():
                log.info("P2P lease %s: released, %s", self.name, decision.why)
                await self._end(complete=False)
            case StandDown():
                log.warning("P2P lease %s: not the coordinator any more, %s", self.name, decision.why)
                self.term = None
        return decision

    def pause(self, decision: Decision) -> float:
        """Seconds after which to ``step`` again (sooner, if the situation changes)."""
        match decision:
            case Hold(after) | Wait(after) | Fetch(after) | Join(after=after):
                return after
            case Renew() if self.term is not None and self._clock() - self.term.renewed_at < self._renew_every:
                return 0.0
            case Acquire() if self.term is not None:
                return 0.0
        return RETRY * (0.5 + self._rng.random())

    async def look(self) -> Record | None:
        """The Lease as it is now, without a decision. Raises KubeError."""
        await self._look()
        return self.record

    def is_fresh(self) -> bool:
        """Whether somebody else holds the Lease, and renews it."""
        record = self.record
        if record is None or record.complete or record.holder in ("", self._me):
            return False
        return self._clock() < self._changed_at + record.duration

    async def pin(self, plan: Plan) -> None:
        """Write what was found out as the holder (commit, manifest, segment size), with a renewal."""
        self.plan = plan
        if self.term is not None:
            await self._renew(overwrite=True)

    async def release(self) -> None:
        """Let the next one begin at once, if we hold the Lease. Does not fail; takes up to ``TIMEOUT`` seconds."""
        if self.term is not None:
            await self._end(complete=False)

    def _view(self, situation: Situation) -> View:
        return View(
            me=self._me,
            now=self._clock(),
            record=self.record,
            changed_at=self._changed_at,
            term=self.term,
            have=situation.have,
            seeders=situation.seeders,
            unseeded_since=situation.unseeded_since,
            wanted=situation.wanted,
            finished=situation.finished,
            failed=situation.failed,
            joined=situation.joined,
            jitter=self._rng.random(),
            renew_every=self._renew_every,
        )

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                found: JsonObject | None = await self._kube.get(LEASE, self.name, self._namespace)
        except NotFound:
            found = None
        except (KubeError, TimeoutError) as error:
            if self.term is None:
                raise
            log.warning("P2P lease %s: %s", self.name, str(error) or "no answer in time")
            return
        self._observe(found)

    def _observe(self, found: JsonObject | None) -> None:
        record = read(found) if found is not None else None
        if record != self.record or not self._changed_at:
            self._changed_at = self._clock()
        self._object, self.record = found, record

    async def _acquire(self, why: str) -> None:
        known = self.record
        moment = self._now()
        record = replace(
            self._planned(known or Record()),
            holder=self._me,
            duration=self._duration,
            acquired=_micro_time(moment),
            renewed=_micro_time(moment),
            transitions=known.transitions + 1 if known is not None else 0,
            complete=False,
            epoch=max(int(moment.timestamp() * 1_000_000), known.epoch + 1 if known is not None else 1),
        )
        sent = self._clock()
        self.term = None
        written = await self._write(record)
        if written:
            self.term = Term(record.epoch, sent)
            self.predecessor = known
            log.info("P2P lease %s: %s coordinates, %s", self.name, self._me, why)

    async def _renew(self, *, overwrite: bool = False) -> None:
        if self.term is None or self.record is None:
            return
        sent, term = self._clock(), self.term
        record = replace(self._planned(Record() if overwrite else self.record), renewed=_micro_time(self._now()))
        record = replace(
            record,
            holder=self._me,
            duration=self._duration,
            acquired=self.record.acquired,
            transitions=self.record.transitions,
            epoch=term.epoch,
            readers=tuple(self._readers())[:_SHOWN_READERS],
        )
        if await self._write(record):
            self.term = Term(term.epoch, sent)

    def _planned(self, known: Record) -> Record:
        """What a predecessor has pinned stays."""
        return replace(
            known,
            coordinator=self.plan.coordinator,
            segment_bytes=known.segment_bytes or self.plan.segment_bytes,
            repo=known.repo or self.plan.repo,
            commit=known.commit or self.plan.commit,
            manifest=known.manifest or self.plan.manifest,
        )

    async def _end(self, *, complete: bool) -> None:
        """Stop holding. If the write fails, the Lease runs out, or we find it ours and take it again."""
        self.term = None
        if self.record is None:
            return
        record = replace(self.record, holder="" if not complete else self._me, complete=complete, readers=())
        record = replace(
            record, renewed=_micro_time(self._now()), coordinator="" if not complete else record.coordinator
        )
        await self._write(record)

    async def _write(self, record: Record) -> bool:
        """Whether the API server confirms it. Whatever else happens, the next look tells."""
        body = render(record, name=self.name, namespace=self._namespace, model_hash=self._hash, onto=self._object)
        try:
            async with asyncio.timeout(TIMEOUT):
                found = await (self._kube.create(body) if self._object is None else self._kube.replace(body))
        except (Conflict, NotFound):
            return False
        except (KubeError, TimeoutError) as error:
            log.warning("P2P lease %s: %s", self.name, str(error) or "no answer in time")
            return False
        self._observe(found)
        return True


def render(record: Record, *, name: str, namespace: str, model_hash: str, onto: JsonObject | None) -> JsonObject:
    """The Lease as an object; what others put on it stays."""
    meta = dict(metadata(onto)) if onto is not None else {"name": name, "namespace": namespace}
    meta.pop("managedFields", None)
    labels = {**_strings(meta.get("labels")), TYPE_LABEL: TYPE, HASH_LABEL: model_hash[:63]}
    labels.pop(STATUS_LABEL, None)
    if record.complete:
        labels[STATUS_LABEL] = COMPLETE
    ours = {
        COORDINATOR: record.coordinator,
        SEGMENT_BYTES: str(record.segment_bytes or ""),
        READERS: ",".join(record.readers),
        REPO: record.repo,
        COMMIT: record.commit,
        MANIFEST: record.manifest,
        EPOCH: str(record.epoch or ""),
    }
    annotations = {key: value for key, value in _strings(meta.get("annotations")).items() if key not in ours}
    annotations.update((key, value) for key, value in ours.items() if value)
    spec: JsonObject = {
        "leaseDurationSeconds": max(1, round(record.duration)),
        "acquireTime": record.acquired,
        "renewTime": record.renewed,
        "leaseTransitions": record.transitions,
    }
    if record.holder:
        spec["holderIdentity"] = record.holder
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {**meta, "labels": {**labels}, "annotations": {**annotations}},
        "spec": spec,
    }


def read(lease: JsonObject) -> Record:
    """The record in a Lease, whoever wrote it: what makes no sense is as if it were not there."""
    meta, spec = metadata(lease), lease.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    annotations, labels = _strings(meta.get("annotations")), _strings(meta.get("labels"))
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Record(
        holder=str(spec.get("holderIdentity") or ""),
        duration=float(duration) if isinstance(duration, int) and duration > 0 else DURATION,
        renewed=str(spec.get("renewTime") or ""),
        acquired=str(spec.get("acquireTime") or ""),
        transitions=transitions if isinstance(transitions, int) else 0,
        complete=labels.get(STATUS_LABEL) == COMPLETE,
        coordinator=str(annotations.get(COORDINATOR) or ""),
        segment_bytes=_number(annotations.get(SEGMENT_BYTES)),
        readers=tuple(filter(None, str(annotations.get(READERS) or "").split(","))),
        repo=str(annotations.get(REPO) or ""),
        commit=str(annotations.get(COMMIT) or ""),
        manifest=str(annotations.get(MANIFEST) or ""),
        epoch=_number(annotations.get(EPOCH)),
    )


def _strings(found: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _number(text: object) -> int:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 19 else 0


def _micro_time(moment: datetime) -> str:
    """``metav1.MicroTime``, in UTC whatever the zone of the machine."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
