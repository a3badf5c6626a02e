"""Which files, in which version: the manifest that the pod mounts, or else what the origin says now."""

import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt

from modelswarm.content.manifest import Manifest, Origin, OriginKind, decode
from modelswarm.content.patterns import select
from modelswarm.content.source import HubSource, StoreSource
from modelswarm.errors import ContentError, ContentReason, InvalidReference, LoadError
from modelswarm.loader.effort import Effort
from modelswarm.loader.gate import Gate
from modelswarm.loader.outcome import Reason, Transient, as_load_error

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARDS = "manifest*.json.gz"


def mounted_manifest(
    directory: Path | None, source: HubSource | StoreSource, say: Callable[[str], None]
) -> Manifest | None:
    """The manifest in a directory, or None where there is none to use.

    The volume is optional: it may be absent, empty, or not complete yet. A manifest of something else is refused: the
    pod was put together wrongly, and fetching what it does not ask for would hide that.
    """
    if directory is None:
        return None
    try:
        shards = [path.read_bytes() for path in sorted(directory.glob(_SHARDS))]
    except OSError as error:
        say(f"no manifest: {directory}: {error.strerror}; asking the origin")
        return None
    if not shards:
        return None
    try:
        manifest = decode(shards)
    except InvalidReference as error:
        say(f"not using the mounted manifest: {error.message}; asking the origin")
        return None
    if problem := contradiction(manifest, source):
        raise LoadError(Reason.MANIFEST_MISMATCH, f"the mounted manifest is not of this model: {problem}")
    return manifest


def contradiction(manifest: Manifest, source: HubSource | StoreSource) -> str | None:
    """What shows that ``manifest`` is not of ``source``, or None. (A branch says nothing about its commit.)"""
    wanted = origin_of(source)
    if manifest.origin != wanted:
        return f"it is of {_name(manifest.origin)}, wanted is {_name(wanted)}"
    if not isinstance(source, HubSource):
        return None
    if _COMMIT.fullmatch(source.revision) and manifest.revision != source.revision:
        return f"it is of revision {manifest.revision}, wanted is {source.revision}"
    paths = [file.path for file in manifest.files]
    wanted_paths = select(
        paths,
        filename=source.filename,
        allow_patterns=source.allow_patterns,
        ignore_patterns=source.ignore_patterns,
    )
    if wanted_paths != paths:
        return "it has files that are not asked for"
    return None


def origin_of(source: HubSource | StoreSource) -> Origin:
    """The origin that a manifest of ``source`` names."""
    if isinstance(source, HubSource):
        return Origin(OriginKind(source.hub.lower()), source.model_id)
    return Origin(OriginKind(source.provider.lower()), f"{source.bucket}/{source.path}", source.endpoint)


async def ask_origin(resolve: Callable[[], Awaitable[Manifest]], effort: Effort, gate: Gate, host: str) -> Manifest:
    """``resolve()``, repeated with patience while the origin is unwell or asks to wait."""

    def pause(state: RetryCallState) -> float:
        ceiling = min(effort.first_pause * 2 ** (state.attempt_number - 1), effort.longest_pause)
        return random.uniform(ceiling / 2, ceiling)

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Transient), wait=pause, stop=stop_after_attempt(effort.attempts), reraise=True
    ):
        with attempt:
            await gate.wait()
            try:
                return await resolve()
            except ContentError as error:
                if error.reason is ContentReason.RATE_LIMITED:
                    gate.close(error.retry_after, host)
                raise as_load_error(error) from error
    raise AssertionError("unreachable")


def _name(origin: Origin) -> str:
    return f"{origin.kind} {origin.id}" + (f" at {origin.endpoint}" if origin.endpoint else "")
