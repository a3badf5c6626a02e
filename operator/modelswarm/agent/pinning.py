"""From a branch to a commit, once for all nodes: the holder of the model's Lease asks the hub and writes it there.

The Lease has the manifest's digest, so the list of files itself may come from any peer. What was pinned stays as long
as the Lease exists, wherever the branch moves.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace

from modelswarm.agent.election import Acquire
from modelswarm.agent.leases import ModelLease, Plan, Situation
from modelswarm.agent.parts import Parts
from modelswarm.agent.segments import choose_segment_bytes
from modelswarm.agent.wanted import Wanted
from modelswarm.content.manifest import Manifest
from modelswarm.content.source import HubSource
from modelswarm.errors import PeerError

LOOK_SECONDS = 2.0
ORPHANED_SECONDS = 20.0
"""A pinned list of files that no node can give for so long is made again, from the commit that is on the Lease."""
ABANDONED_SECONDS = 5.0
"""The same where nobody coordinates any more: the model has left all nodes, and is wanted again."""

log = logging.getLogger(__name__)


async def pin(
    wanted: Wanted, lease: ModelLease, parts: Parts, *, waits: Callable[[str], None], rng: random.Random
) -> Manifest:
    """The manifest of a model that is wanted by its branch. ``waits`` is told for whom this node waits.

    Raises ContentError, AgentError and KubeError.
    """
    loop = asyncio.get_running_loop()
    asked_since = loop.time()
    if not parts.settings.p2p_enabled:
        return await _resolve(wanted, parts, "")
    while True:
        record = await lease.look()
        if record is not None and record.manifest:
            found = await _find(record.manifest, record.coordinator, parts)
            if found is not None:
                return found
            waits("a node that has the list of files of the commit that is pinned")
            patience = ABANDONED_SECONDS if record.complete else ORPHANED_SECONDS
            if loop.time() - asked_since > patience and not lease.is_fresh():
                return await _resolve(wanted, parts, record.commit)
        elif not lease.is_fresh():
            decision = await lease.step(Situation())
            if isinstance(decision, Acquire) and lease.term is not None:
                return await _pin_as_holder(wanted, lease, parts)
        else:
            waits(f"{record.holder if record is not None else 'another node'}, which looks up the branch at its origin")
        await asyncio.sleep(LOOK_SECONDS * rng.uniform(0.1, 0.5))


async def _pin_as_holder(wanted: Wanted, lease: ModelLease, parts: Parts) -> Manifest:
    try:
        manifest = await _resolve(wanted, parts, "")
    except BaseException:
        await lease.release()
        raise
    parts.hosting.manifests[manifest.digest.removeprefix("sha256:")] = manifest
    nodes = 1 + len(parts.discovery.peers())
    plan: Plan = replace(
        lease.plan,
        commit=manifest.revision or "",
        manifest=manifest.digest,
        segment_bytes=choose_segment_bytes(manifest.bytes, nodes),
    )
    await lease.pin(plan)
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
    for url in urls:
        if not url or url == parts.address.url:
            continue
        try:
            if (found := await parts.client.manifest(url, digest)) is not None:
                return found
        except PeerError as error:
            log.debug("P2P: no manifest from %s: %s", url, error.message)
    return None
