"""Kubernetes Events (``events.k8s.io/v1``): told to whoever looks, never in the way of a reconcile."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from modelswarm.api.meta import JsonObject, Resource
from modelswarm.errors import Conflict, KubeError
from modelswarm.kube.kinds import EVENT
from modelswarm.kube.objects import key_of, metadata
from modelswarm.kube.port import KubePort
from modelswarm.metrics import ClientMetrics

logger = logging.getLogger(__name__)

DEDUP_SECONDS = 600.0
QUEUE_SIZE = 1000
REMEMBERED = 10_000
LONGEST_NOTE = 1024
"""Bytes; the API server refuses longer notes."""
LONGEST_NAME = 253


class EventRecorder:
    """Queues Events and writes them from a task of its own.

    The same news (object, reason, message) is told once in ``dedup_seconds``. Names follow from the content, so that an
    operator that was restarted, or a second one, does not tell it again either. What does not fit into the queue or is
    refused is dropped and counted.
    """

    def __init__(
        self,
        kube: KubePort,
        *,
        component: str = "modelswarm",
        instance: str = "modelswarm",
        metrics: ClientMetrics | None = None,
        dedup_seconds: float = DEDUP_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._component = component
        self._instance = instance[:128] or component
        self._metrics = metrics or ClientMetrics()
        self._dedup_seconds = dedup_seconds
        self._clock = clock
        self._queue: asyncio.Queue[JsonObject] = asyncio.Queue(QUEUE_SIZE)
        self._told: dict[str, None] = {}

    def emit(
        self, regarding: Resource | JsonObject, type_: str, reason: str, message: str, action: str = "Reconcile"
    ) -> None:
        """Tell ``Normal`` or ``Warning`` news about an object, and log them. Returns at once and does not fail."""
        about = _reference(regarding)
        event = self._event(about, type_, reason, message, action)
        name = str(metadata(event)["name"])
        if name in self._told:
            return
        self._told[name] = None
        while len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        level = logging.INFO if type_ == "Normal" else logging.WARNING
        kind, key = str(about.get("kind")), str(key_of({"metadata": about}))
        extra = {"controller": kind.lower(), "object": key, "reason": reason}
        logger.log(level, "%s %s: %s: %s", kind, key, reason, message, extra=extra)
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._drop("queue_full", name)

    async def run(self) -> None:
        """Write what was queued, until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            finally:
                self._queue.task_done()

    async def drain(self, seconds: float = 5.0) -> bool:
        """Wait until everything is written (``run`` must still run); says whether that came to pass in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            return False
        return True

    async def _write(self, event: JsonObject) -> None:
        name = str(metadata(event)["name"])
        try:
            await self._kube.create(event)
        except Conflict:
            return  # told already, by whoever led before us
        except KubeError as error:
            self._drop(type(error).__name__, name)
            logger.debug("event %s was not written: %s", name, error.message)

    def _drop(self, cause: str, name: str) -> None:
        self._metrics.events_dropped.labels(cause).inc()
        self._told.pop(name, None)

    def _event(self, about: JsonObject, type_: str, reason: str, message: str, action: str) -> JsonObject:
        now = self._clock()
        note = message.encode()[:LONGEST_NOTE].decode(errors="ignore")
        window = int(now // self._dedup_seconds)
        news = "\0".join((str(about.get("uid")), type_, reason, note, str(window)))
        digest = hashlib.sha256(news.encode()).hexdigest()[:16]
        name = f"{str(about['name'])[: LONGEST_NAME - len(digest) - 1].rstrip('.-')}.{digest}"
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            # Events about cluster-scoped objects live in the namespace "default".
            "metadata": {"name": name, "namespace": about.get("namespace") or "default"},
            "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": self._component,
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "type": type_,
            "note": note,
            "regarding": about,
        }


def _reference(regarding: Resource | JsonObject) -> JsonObject:
    if isinstance(regarding, Resource):
        meta = regarding.metadata
        found = {
            "apiVersion": regarding.api_version_of_kind(),
            "kind": regarding.KIND,
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        }
    else:
        raw = metadata(regarding)
        found = {
            "apiVersion": str(regarding.get("apiVersion") or ""),
            "kind": str(regarding.get("kind") or ""),
            **{field: str(raw.get(field) or "") for field in ("name", "namespace", "uid", "resourceVersion")},
        }
    return {field: value for field, value in found.items() if value}
