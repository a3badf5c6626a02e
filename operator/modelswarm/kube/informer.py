"""A local picture of the objects of one kind that selectors let through, kept current by list and watch.

For processes of which there are many: kopf cannot select by fields, and an agent must not follow every Pod and Node of
a large cluster. A watch that ends goes on where it was; one that is too old (410) begins with a new list, which also
shows what was deleted meanwhile. A kind that does not exist (its CRD may come later) has no objects, and is looked for
again now and then.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

from modelswarm.api.meta import JsonObject
from modelswarm.errors import Forbidden, KubeError, NotFound
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import Kind
from modelswarm.kube.objects import key_of, metadata, version_of
from modelswarm.kube.port import Change, KubePort

logger = logging.getLogger(__name__)

GONE = 410
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
ABSENT_PAUSE = 30.0
"""Seconds between two looks for a kind that does not exist."""
WATCH_SECONDS = 300.0
RELIST_AFTER = 3
"""Failed watches in a row after which a list is asked for: an API server that was restored from a backup does not know
our version and does not say 410 either."""
SHORT_WATCH = 1.0
"""A watch that ends sooner, without news, counts as a failure: otherwise it would be asked for in a busy loop."""

Listener = Callable[[Key, JsonObject | None, JsonObject | None], None]
"""Told the key, the object as it was (None: new) and as it is (None: gone). Must not wait, and must not fail."""


class Informer:
    """Follows one kind; ``run`` it as a task. Not for threads.

    ``on_change`` is told each difference once, in order, also those that only a new list shows. Objects come without
    ``managedFields``; whoever reads them must not change them.
    """

    def __init__(
        self,
        kube: KubePort,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
        on_change: Listener = lambda key, before, after: None,
        watch_seconds: float = WATCH_SECONDS,
        absent_pause: float = ABSENT_PAUSE,
        rng: random.Random | None = None,
    ) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        """Set when the objects were listed once, or the kind is known not to exist."""
        self.exists: bool | None = None
        """Whether the API server has the kind; None before it was asked."""
        self._kube = kube
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._metadata_only = metadata_only
        self._on_change = on_change
        self._watch_seconds = watch_seconds
        self._absent_pause = absent_pause
        self._rng = rng or random.Random()
        self._objects: dict[Key, JsonObject] = {}
        self._version = ""
        self._failures = 0
        self._complaint = ""

    @property
    def objects(self) -> Mapping[Key, JsonObject]:
        """What is known now."""
        return MappingProxyType(self._objects)

    async def run(self) -> None:
        """Follow the kind until cancelled. Failures are logged once and tried again, more and more slowly."""
        while True:
            try:
                if not self._version:
                    await self._relist()
                await self._follow()
            except NotFound:
                self._vanish()
                await asyncio.sleep(self._absent_pause * self._rng.uniform(0.8, 1.2))
            except KubeError as error:
                if error.status == GONE or self._failures >= RELIST_AFTER:
                    self._version = ""
                if error.status != GONE:
                    self._complain(error)
                await self._pause(error.retry_after or 0.0)

    async def _relist(self) -> None:
        listing = await self._kube.list(
            self.kind,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            metadata_only=self._metadata_only,
        )
        listed = {key_of(obj): obj for obj in listing}
        for key in [key for key in self._objects if key not in listed]:
            self._take(key, None)
        for key, obj in listed.items():
            known = self._objects.get(key)
            if known is None or _identity(known) != _identity(obj):
                self._take(key, obj)
        self._version = listing.resource_version
        self._found()

    async def _follow(self) -> None:
        """Watch from where we are until the server ends it."""
        # Not all at once: agents that were started together would otherwise come back together for ever.
        seconds = self._watch_seconds * self._rng.uniform(0.75, 1.25)
        clock = asyncio.get_running_loop().time
        started, news = clock(), False
        watch = self._kube.watch(
            self.kind,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            metadata_only=self._metadata_only,
            seconds=seconds,
        )
        async with aclosing(watch) as events:
            async for event in events:
                self._failures, self._complaint, news = 0, "", True
                key = key_of(event.object)
                if event.change is Change.DELETED:
                    self._take(key, None)
                elif event.change is not Change.BOOKMARK:
                    self._take(key, event.object)
                self._version = version_of(event.object) or self._version
        if news or clock() - started > SHORT_WATCH:
            self._failures, self._complaint = 0, ""
        else:
            await self._pause(0.0)

    def _take(self, key: Key, obj: JsonObject | None) -> None:
        before = self._objects.pop(key, None)
        if obj is not None:
            obj = _without_managed_fields(obj)
            self._objects[key] = obj
        if before is None and obj is None:
            return
        try:
            self._on_change(key, before, obj)
        except Exception:
            # A bug in a listener must not end the watch that everybody else depends on.
            logger.exception("a listener of %s failed for %s", self.kind.plural, key)

    def _vanish(self) -> None:
        """The kind is not there (any more), and so none of its objects is."""
        if self.exists is not False:
            logger.info("%s.%s is not installed; looking again later", self.kind.plural, self.kind.group)
        self.exists, self._version = False, ""
        for key in list(self._objects):
            self._take(key, None)
        self.synced.set()

    def _found(self) -> None:
        if self.exists is False or self._complaint:
            logger.info("following %s", self.kind.plural)
        self.exists, self._complaint = True, ""
        self.synced.set()

    def _complain(self, error: KubeError) -> None:
        if error.message != self._complaint:
            level = logging.ERROR if isinstance(error, Forbidden) else logging.WARNING
            logger.log(level, "cannot follow %s: %s; trying again", self.kind.plural, error.message)
        self._complaint = error.message

    async def _pause(self, least: float) -> None:
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        await asyncio.sleep(least + self._rng.uniform(longest / 2, longest))


async def follow(*informers: Informer) -> None:
    """Run several informers until cancelled."""
    async with asyncio.TaskGroup() as group:
        for informer in informers:
            group.create_task(informer.run(), name=f"informer-{informer.kind.plural}")


async def wait_synced(*informers: Informer, seconds: float | None = None) -> bool:
    """Wait until all of them know what there is; says whether that came to pass in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(informer.synced.wait() for informer in informers))
    return all(informer.synced.is_set() for informer in informers)


def _identity(obj: JsonObject) -> tuple[str, str]:
    return str(metadata(obj).get("uid") or ""), version_of(obj)


def _without_managed_fields(obj: JsonObject) -> JsonObject:
    meta = metadata(obj)
    if "managedFields" not in meta:
        return obj
    kept: dict[str, Any] = {name: value for name, value in meta.items() if name != "managedFields"}
    return {**obj, "metadata": kept}
