"""Taking over what is on the disk already: hashed, then linked; neither trusted nor thrown away. Blocking."""

import os
import threading
from collections.abc import Sequence
from contextlib import suppress

from modelswarm.agent.store import files
from modelswarm.agent.store.records import Record
from modelswarm.agent.store.shelf import MODELS, Shelf
from modelswarm.agent.store.verify import hash_file
from modelswarm.content.manifest import ManifestFile, OriginKind
from modelswarm.loader.digests import Verdict

_HUBS = (OriginKind.HUGGINGFACE, OriginKind.MODELSCOPE)


def known_layouts(record: Record) -> list[tuple[str, ...]]:
    """Directories below the root in which a content may lie: ours, and the one that llmaz and OME's users have."""
    places: list[tuple[str, ...]] = [(MODELS, record.content)]
    if record.manifest is not None:
        origin = record.manifest.origin
        name = origin.id if origin.kind in _HUBS else origin.id.rpartition("/")[2]
        places.append((f"models--{name.replace('/', '--')}",))
    return places


def adopt(
    shelf: Shelf,
    record: Record,
    file: ManifestFile,
    places: Sequence[tuple[str, ...]],
    stopped: threading.Event,
) -> bool:
    """Make a blob of the file in the first of ``places`` (directories below the root) that has the right bytes.

    What is wrong in the content's own directory is removed, for nobody should read it; elsewhere it is left alone.
    """
    key = record.keys[file.path]
    for place in places:
        if stopped.is_set():
            return False
        parts = (*place, *file.path.split("/"))
        try:
            fd = files.open_file(shelf.root, parts)
        except OSError:
            continue
        try:
            found = os.fstat(fd)
            state = hash_file(fd, file, stopped) if found.st_size == file.size else None
            if state is not None and state.verdict() is Verdict.RIGHT:
                with suppress(OSError):
                    # Another file system, or a file that this process may not link to: it is fetched instead.
                    shelf.shelve(fd, key, state.hexdigest(), durable=True)
                    return True
            if not stopped.is_set() and place == (MODELS, record.content):
                files.unlink(shelf.root, parts, only=found)
        finally:
            os.close(fd)
    return False
