"""From a branch to a commit, once for all nodes: the holder of the model's Lease asks the hub and writes it there.

The Lease has the manifest's digest, so the list of files itself may come from any peer. What was pinned stays as long
as one of the BaseModels exists for which it was pinned, wherever the branch moves; one that is deleted and made again
gets the commit that the branch has then. Nobody asks the hub without holding the Lease.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TypeAlias

from modelswarm.agent.election import Record
from modelswarm.agent.leases import ModelLease, Plan
from modelswarm.agent.parts import Parts
from modelswarm.agent.segments import choose_segment_bytes
from modelswarm.agent.wanted import Wanted
from modelswarm.content.manifest import Manifest
from modelswarm.content.source import HubSource
from modelswarm.errors import PeerError

LOOK_SECONDS = 2.0
STAGGER_SECONDS = 0.25
"""How long one node may take to give the list of files before the next one is asked, too."""
ORPHANED_SECONDS = 20.0
"""A pinned list of files that no node can give for so long is made again, from the commit that is on the Lease."""
ABANDONED_SECONDS = 5.0
"""The same where nobody coordinates any more: the model has left all nodes, and is wanted again."""
PAST_SECONDS = 10.0
"""How long a pin for other BaseModels than there are now is left alone. Nodes that have the content and know better (a
model came while an earlier one was there) say so on the Lease by then; see ``agent.custody``."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Use:
    """The commit is known: get the list of files from whoever has it."""

    manifest: str


@dataclass(frozen=True, slots=True)
class Take:
    """Become the holder, and ask the hub. ``commit`` is the one to resolve; empty: the branch as it is now."""

    commit: str
    why: str


@dataclass(frozen=True, slots=True)
class Await:
    """Somebody else is about to find out."""

    whom: str


Move: TypeAlias = Use | Take | Await


def consider(record: Record | None, *, held: bool, models: Collection[str], waited: float, missed: float) -> Move:
    """What a node does that wants a branch and does not know its commit.

    ``record``: the model's Lease as it is now; ``held``: another node holds it, and renews it. ``models``: UIDs of the
    BaseModels of the branch that exist. ``waited``: seconds since this node began to ask; ``missed``: seconds since it
    began to look for the list of files that the Lease names.
    """
    if record is None:
        return Take("", "there is no Lease")
    if held:
        if record.manifest and not is_past(record, models):
            return Use(record.manifest)
        return Await(f"{record.holder}, which looks up the branch at its origin")
    if not record.manifest:
        return Take("", "nobody has pinned the branch")
    if is_past(record, models):
        if waited < PAST_SECONDS:
            return Await("a node that knows whether the commit that is pinned still holds")
        return Take("", "it was pinned for models that are gone")
    if missed >= (ABANDONED_SECONDS if record.complete else ORPHANED_SECONDS):
        return Take(record.commit, "no node has the list of files that is pinned")
    return Use(record.manifest)


def is_past(record: Record, models: Collection[str]) -> bool:
    """Whether the pin belongs to an earlier life: none of the BaseModels that it was made for exists any more."""
    return bool(record.models) and not set(record.models) & set(models)


async def pin(
    wanted: Callable[[], Wanted],
    lease: ModelLease,
    parts: Parts,
    *,
    waits: Callable[[str], None],
    rng: random.Random,
) -> Manifest:
    """The manifest of a model that is wanted by its branch. ``waits`` is told for whom this node waits.

    ``wanted`` is asked again and again, because claims come and go. Raises ContentError, AgentError and KubeError.
    """
    if not parts.settings.p2p_enabled:
        return await _resolve(wanted(), parts, "")
    clock = asyncio.get_running_loop().time
    began, sought, since = clock(), "", 0.0
    while True:
        record = await lease.look()
        now = clock()
        missed = now - since if record is not None and record.manifest == sought else 0.0
        move = consider(record, held=lease.is_fresh(), models=wanted().models, waited=now - began, missed=missed)
        match move:
            case Use(digest):
                assert record is not None
                if digest != sought:
                    sought, since = digest, now
                found = await _find(digest, record.coordinator, parts)
                if found is not None:
                    return found
                waits("a node that has the list of files of the commit that is pinned")
            case Take(commit, why):
                if await lease.take(why, anew=not commit) and (
                    pinned := await _pin_as_holder(wanted(), lease, parts, commit)
                ):
                    return pinned
            case Await(whom):
                waits(whom)
        await asyncio.sleep(LOOK_SECONDS * rng.uniform(0.1, 0.5))


async def _pin_as_holder(wanted: Wanted, lease: ModelLease, parts: Parts, commit: str) -> Manifest | None:
    """None: the origin took longer than the Lease lasts, and another node has taken that."""
    try:
        manifest = await _resolve(wanted, parts, commit)
    except BaseException:
        await lease.release()
        raise
    content = manifest.digest.removeprefix("sha256:")
    parts.hosting.manifests[content] = manifest  # others ask for it as soon as they see the Lease
    nodes = 1 + len(parts.discovery.peers())
    plan: Plan = replace(
        lease.plan,
        commit=manifest.revision or "",
        manifest=manifest.digest,
        segment_bytes=choose_segment_bytes(manifest.bytes, nodes),
    )
    if not await lease.pin(plan):
        parts.hosting.manifests.pop(content, None)
        log.warning("P2P %s: another node has pinned %s meanwhile", wanted.name, wanted.revision)
        return None
    log.info("P2P %s: %s is pinned to %s", wanted.name, wanted.revision, manifest.revision)
    return manifest


async def _resolve(wanted: Wanted, parts: Parts, commit: str) -> Manifest:
    source = wanted.source
    if commit and isinstance(source, HubSource):
        source = replace(source, revision=commit)
    return await parts.resolver.resolve_model(source, await parts.provisions.credentials(wanted))


async def _find(digest: str, coordinator: str, parts: Parts) -> Manifest | None:
    """On this disk, at the holder, at any peer."""
    content = digest.removeprefix("sha256:")
    if (found := await parts.hosting.manifest(content)) is not None:
        return found
    urls = dict.fromkeys([coordinator, *(peer.url for peer in parts.discovery.peers())])
    others = iter([url for url in urls if url and url != parts.address.url])
    asking: set[asyncio.Task[Manifest | None]] = set()
    try:
        while True:
            # One after the other; but who is silent delays the next by a moment only.
            url = next(others, None)
            if url is not None:
                asking.add(asyncio.create_task(_ask(url, digest, parts)))
            elif not asking:
                return None
            patience = STAGGER_SECONDS if url is not None else None
            done, asking = await asyncio.wait(asking, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for found in (task.result() for task in done):
                if found is not None:
                    return found
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _ask(url: str, digest: str, parts: Parts) -> Manifest | None:
    try:
        return await parts.client.manifest(url, digest)
    except PeerError as error:
        log.debug("P2P: no manifest from %s: %s", url, error.message)
        return None
