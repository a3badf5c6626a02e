"""A whole load: check the disk, bring every file, tell how far it is, sum up."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelswarm.content.manifest import Manifest, ManifestFile
from modelswarm.errors import LoadError
from modelswarm.loader.bring import Bringer, first_cause
from modelswarm.loader.detours import Detours
from modelswarm.loader.digests import Expected, Verdict
from modelswarm.loader.effort import Effort
from modelswarm.loader.leg import Leg
from modelswarm.loader.node import NAME as NODE
from modelswarm.loader.node import NodeModel
from modelswarm.loader.outcome import Reason
from modelswarm.loader.progress import PRESENT, Meter, size
from modelswarm.loader.tree import Tree, free_space, inspect, storage_error

_NAMED_PROBLEMS = 5
_LOCK_SECONDS = 0.5


@dataclass(slots=True)
class Load:
    """``say`` prints a line; ``free`` tells the free bytes of a volume; ``progress`` is in seconds."""

    manifest: Manifest
    tree: Tree
    legs: Sequence[Leg]
    effort: Effort
    meter: Meter
    say: Callable[[str], None] = print
    free: Callable[[Path], int] = free_space
    progress: float = 5.0
    detours: Detours = field(default_factory=Detours)
    node: NodeModel | None = None

    async def run(self) -> None:
        """Return when every file is in place. May be cancelled at any time; a later run continues."""
        try:
            await self._lock()
            files = await self._from_node()
            self._check_space(files)
            teller = asyncio.create_task(self._tell())
            try:
                await self._bring_all(files)
            finally:
                teller.cancel()
            self.tree.clean()
        except OSError as error:
            raise storage_error(error, str(error.filename or self.tree.root)) from error
        finally:
            self.tree.close()

    async def check(self) -> None:
        """Verify what is there and fetch nothing; raises ``LoadError`` with what is missing or wrong."""
        problems: list[str] = []
        for file in self.manifest.files:
            try:
                found = await inspect(self.tree.target(file.path), file, Expected(file))
            except OSError as error:
                raise storage_error(error, file.path) from error
            if found is None or found is Verdict.WRONG:
                problems.append(f"{file.path} is {'missing' if found is None else 'not what it should be'}")
            else:
                self.meter.received(PRESENT, file.size)
                self.meter.finished(verified=found is Verdict.RIGHT)
        if problems:
            named = "; ".join(problems[:_NAMED_PROBLEMS])
            more = f"; and {len(problems) - _NAMED_PROBLEMS} more" if len(problems) > _NAMED_PROBLEMS else ""
            raise LoadError(Reason.INCOMPLETE, f"{len(problems)} of {len(self.manifest.files)} files: {named}{more}")

    async def _lock(self) -> None:
        if self.tree.open():
            return
        self.say("another loader is working on this model here; waiting for it")
        while not self.tree.open():  # noqa: ASYNC110  (the other one is another process)
            await asyncio.sleep(_LOCK_SECONDS)

    async def _from_node(self) -> Sequence[ManifestFile]:
        """Link what the node's agent has or is fetching; returns what has to come another way."""
        if self.node is None:
            return self.manifest.files
        files, why = await self.node.take(self.manifest, self.tree, self.meter, self.say)
        if files:
            self.say(f"{len(files)} of {len(self.manifest.files)} files do not come from the node: {why}")
            self.detours.failed(NODE, Reason.NODE_UNAVAILABLE, why)
        return files

    def _check_space(self, files: Sequence[ManifestFile]) -> None:
        needed = self.tree.needed(files)
        available = self.free(self.tree.root)
        if needed > available:
            raise LoadError(
                Reason.INSUFFICIENT_CAPACITY,
                f"the model needs {size(needed)} more, {size(available)} are free ({needed} and {available} bytes)",
            )

    async def _bring_all(self, wanted: Sequence[ManifestFile]) -> None:
        async def work(files: Iterator[ManifestFile], bringer: Bringer) -> None:
            for file in files:
                await bringer.bring(file)

        try:
            async with asyncio.TaskGroup() as group:
                for files, parallel in lanes_of(wanted, self.effort, apart=len(self.legs) > 1):
                    effort, lane = replace(self.effort, parallel=parallel), iter(files)
                    bringer = Bringer(self.tree, self.legs, effort, self.meter, self.say, self.detours)
                    # One more than are fetched at once: while it is made durable, another one comes in.
                    for _ in range(parallel + 1):
                        group.create_task(work(lane, bringer))
        except BaseExceptionGroup as errors:
            raise first_cause(errors) from None

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(self.progress)
            self.say(self.meter.line())


def lanes_of(files: Sequence[ManifestFile], effort: Effort, *, apart: bool) -> list[tuple[list[ManifestFile], int]]:
    """Files in the order in which they are brought, and how many at once.

    Largest first, so that the last file is not one that everybody waits for. ``apart``: small ones have a lane of their
    own, in which many can wait for an answer and none for a large file.
    """
    ordered = sorted(files, key=lambda file: (-file.size, file.path))
    if not apart:
        return [(ordered, effort.parallel)]
    large = [file for file in ordered if file.size > effort.small_bytes]
    return [(large, effort.parallel), (ordered[len(large) :], effort.small_parallel)]
