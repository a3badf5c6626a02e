"""One file: there already, or fetched from the first leg that can, verified, and only then under its own name."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import ContentReason, LoadError
from modelswarm.loader.detours import LIMIT, Detours
from modelswarm.loader.digests import SLICE, Expected, HashState, Verdict, hash_range
from modelswarm.loader.effort import Effort
from modelswarm.loader.leg import Leg
from modelswarm.loader.outcome import Reason, Transient, Unserved
from modelswarm.loader.part import Part, Span
from modelswarm.loader.progress import PRESENT, Meter
from modelswarm.loader.sink import SpanSink
from modelswarm.loader.threads import in_thread
from modelswarm.loader.tree import Tree, inspect, storage_error

WRONG_BYTES_TRIES = 3
"""How often a file is fetched from the last leg, from zero, before its bytes are called wrong for good."""
_EARLIER_LEG_ATTEMPTS = 2


class Bringer:
    """Brings files. ``slots`` bounds the connections of all files together."""

    def __init__(
        self,
        tree: Tree,
        legs: Sequence[Leg],
        effort: Effort,
        meter: Meter,
        say: Callable[[str], None],
        detours: Detours,
    ) -> None:
        self._tree = tree
        self._legs = legs
        self._effort = effort
        self._meter = meter
        self._say = say
        self._detours = detours
        self._slots = asyncio.Semaphore(effort.parallel)
        self._turns = asyncio.Semaphore(effort.parallel)

    async def bring(self, file: ManifestFile) -> None:
        """Return when the file is in place, durable and (where the manifest has a digest) verified."""
        try:
            target = self._tree.target(file.path)
            expected = Expected(file)
            found = await inspect(target, file, expected)
            if found in (Verdict.RIGHT, Verdict.UNVERIFIED):
                self._meter.received(PRESENT, file.size)
                self._meter.finished(verified=found is Verdict.RIGHT)
                return
            if found is Verdict.WRONG:
                self._say(f"{file.path}: what is there is not what it should be; fetching it again")
                target.unlink()
            part = Part(self._tree.stem(file), file.size, self._effort.span_bytes, self._meter)
            try:
                await in_thread(part.open)
                async with self._turns:
                    verdict = await self._fill(file, part, expected)
                # The next file may come in while this one is made durable.
                await in_thread(part.commit, target)
            finally:
                part.close()
            self._meter.finished(verified=verdict is Verdict.RIGHT)
        except OSError as error:
            raise storage_error(error, file.path) from error

    async def _fill(self, file: ManifestFile, part: Part, expected: Expected) -> Verdict:
        serving = [leg for leg in self._legs if leg.serves(file)]
        legs = [*(leg for leg in serving[:-1] if not self._detours.is_off(leg.name)), *serving[-1:]]
        wrong: set[str] = set()
        for leg in [*legs[:-1], *legs[-1:] * WRONG_BYTES_TRIES]:
            last = leg is legs[-1]
            if not leg.splittable and part.done and not last:
                # It would begin again from the first byte; the next leg continues.
                continue
            fetch = _Fetch(leg, file, part, self._effort, self._slots)
            try:
                state = await fetch.run(expected, self._effort.attempts if last else _EARLIER_LEG_ATTEMPTS)
            except (Transient, Unserved) as error:
                if last:
                    raise
                self._say(f"{file.path}: not from {leg.name}: {error.message}")
                self._note(leg, error.reason, error.message)
                continue
            verdict = expected.verdict(state)
            if verdict is not Verdict.WRONG:
                self._detours.served(leg.name)
                return verdict
            got = state.hexdigest() if state is not None else ""
            if not expected.binding and got in wrong:
                # The same bytes twice: the ETag is not an MD5 (a store that encrypts has something else there).
                return Verdict.UNVERIFIED
            wrong.add(got)
            self._say(f"{file.path}: wrong bytes from {leg.name}; fetching it again from the start")
            if not last:
                self._note(leg, Reason.DIGEST_MISMATCH, file.path)
            part.restart()
        part.discard()
        raise LoadError(
            Reason.DIGEST_MISMATCH,
            f"{file.path}: the bytes that arrive do not have the digest {file.digest} "
            f"(tried {WRONG_BYTES_TRIES} times); a proxy or mirror on the way changes them",
        )

    def _note(self, leg: Leg, reason: str, message: str) -> None:
        if self._detours.failed(leg.name, reason, message):
            self._say(f"{leg.name} failed {LIMIT} times in a row; it is not asked any more")


class _Fetch:
    """One pass over one file with one leg."""

    def __init__(self, leg: Leg, file: ManifestFile, part: Part, effort: Effort, slots: asyncio.Semaphore) -> None:
        self._leg = leg
        self._file = file
        self._part = part
        self._effort = effort
        self._slots = slots
        self._answered = asyncio.Event()
        self._spread = False

    async def run(self, expected: Expected, attempts: int) -> HashState | None:
        """Fetch what is missing; returns the hash over the whole file as it is on disk then."""
        if self._part.done == 0:
            self._part.respan(whole=not self._leg.splittable)
        try:
            async with asyncio.TaskGroup() as group:
                follower = group.create_task(self._follow(expected))
                await self._fetch_all(group, attempts)
        except BaseExceptionGroup as errors:
            raise first_cause(errors) from None
        finally:
            ahead = self._part.ahead
            self._part.unwatch()
        state = follower.result()
        if ahead is not None and ahead.read and expected.verdict(state) is Verdict.WRONG:
            # It was read while another program wrote it: only what lies there now can be held against that program.
            state = await self._follow(expected)
        return state

    async def _fetch_all(self, group: asyncio.TaskGroup, attempts: int) -> None:
        pending = deque(self._part.pending)
        if not pending:
            return
        # The first span goes alone until the source has answered: if it ignores ranges, the others would be in vain.
        group.create_task(self._fetch_span(pending.popleft(), attempts))
        await self._answered.wait()
        if len(self._part.spans) == 1:
            return
        self._spread = True

        async def work() -> None:
            while pending:
                await self._fetch_span(pending.popleft(), attempts)

        for _ in range(min(self._effort.parallel, len(pending))):
            group.create_task(work())

    async def _fetch_span(self, span: Span, attempts: int) -> None:
        patience = _Patience(self._part, self._effort, attempts)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            after=patience.note,
            wait=patience.pause,
            stop=patience.exhausted,
            reraise=True,
        ):
            with attempt:
                span = await self._attempt(span)

    async def _attempt(self, span: Span) -> Span:
        """One request for what is missing of a span; returns the span, which is another one after a fresh start."""
        if span.done == span.end:
            return span
        async with self._slots:
            sink = SpanSink(self._part, span, self._leg.name, begun=self._answered, alone=not self._spread)
            try:
                await self._leg.fetch(self._file, sink, span.done, span.end)
            finally:
                await sink.flush()
                span = sink.span
        if span.done < span.end:
            raise Transient(
                ContentReason.SOURCE_UNAVAILABLE, f"{self._file.path}: the answer ends before the file does"
            )
        return span

    async def _follow(self, expected: Expected) -> HashState | None:
        """Hash the file from the front while it grows: when the last byte arrives, little is left to do."""
        part = self._part
        state, position, epoch = expected.hash(), 0, part.epoch
        while True:
            if epoch != part.epoch:
                state, position, epoch = expected.hash(), 0, part.epoch
            fd, end = part.readable()
            if position == part.frontier == part.size:
                return state
            if position >= end:
                await part.growth()
            elif state is None:
                position = end
            else:
                reached = await in_thread(hash_range, fd, state, position, min(position + SLICE, end))
                if reached == position and epoch == part.epoch:
                    if fd == part.fd:
                        raise LoadError(
                            Reason.STORAGE_ERROR, f"{self._file.path}: bytes that were written are not there"
                        )
                    await part.growth()
                position = reached


class _Patience:
    """When to ask again, and when to stop: counted are failures in a row without one new byte in the whole file."""

    def __init__(self, part: Part, effort: Effort, attempts: int) -> None:
        self._part = part
        self._effort = effort
        self._attempts = attempts
        self._failures = 0
        self._furthest = part.furthest

    def note(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if self._part.furthest > self._furthest:
            self._furthest = self._part.furthest
            self._failures = 0
        if not isinstance(error, Transient) or error.counts:
            self._failures += 1

    def pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        ceiling = min(self._effort.first_pause * 2 ** max(self._failures - 1, 0), self._effort.longest_pause)
        asked = error.retry_after if isinstance(error, Transient) and error.retry_after else 0.0
        # Jitter: a fleet of loaders that met the same outage must not come back in step.
        return max(random.uniform(ceiling / 2, ceiling), min(asked, self._effort.longest_pause))

    def exhausted(self, _: RetryCallState) -> bool:
        return self._failures >= self._attempts


def first_cause(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report of several that came together: a final one rather than one that might have passed."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [errors]
    while stack:
        error = stack.pop(0)
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        else:
            flat.append(error)
    return min(flat, key=lambda error: (isinstance(error, Transient), not isinstance(error, LoadError)))
