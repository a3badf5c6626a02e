"""A content in a directory that a user chose, below the root. Blocking."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from modelswarm.agent.store import files, marker
from modelswarm.agent.store.keys import COMPLETE
from modelswarm.agent.store.records import Placement
from modelswarm.agent.store.shelf import BLOBS, MODELS, OWN, PARTIAL, READ_ONLY, Shelf
from modelswarm.errors import PathOutsideRoot, StorageFailed

_OURS = (BLOBS, PARTIAL, MODELS, OWN)


def parts_below(shelf: Shelf, path: Path) -> tuple[str, ...]:
    """The names that lead from the root to ``path``, judged by the text alone: links are refused when it is walked.

    Raises ``PathOutsideRoot``, also for the root itself and for the store's own directories.
    """
    for root in (shelf.settings.root, shelf.root):
        if path.is_absolute() and ".." not in path.parts and path.is_relative_to(root):
            parts = path.relative_to(root).parts
            break
    else:
        raise PathOutsideRoot(f"{path} is not below {shelf.settings.root}")
    if not parts:
        raise PathOutsideRoot(f"{path} is the root of all models; name a directory below it")
    if parts[0] in _OURS:
        raise PathOutsideRoot(f"{path} is in a directory of the store itself")
    return parts


def materialize(shelf: Shelf, content: str, parts: tuple[str, ...]) -> None:
    """``parts`` come from ``parts_below``."""
    record, found = shelf.records.get(content), shelf.marker(content)
    if record is None or found is None:
        # Evicted, perhaps a moment ago.
        raise StorageFailed(f"{shelf.root.joinpath(MODELS, content)} is not complete any more")
    earlier = shelf.placements.get(parts)
    placement = Placement(content, parts)
    if files.status(shelf.root, parts) is None:
        # Noted first: killed at any point, it is known which directory may hold links.
        shelf.note_placement(placement)
        _fresh(shelf, record.keys, parts, found.encode())
        return
    if earlier is not None and earlier.content != content:
        shelf.clear_placement(earlier, except_paths=sorted(record.keys))
    shelf.note_placement(placement)
    for path, key in record.keys.items():
        files.link(shelf.blob(key), shelf.root, (*parts, *path.split("/")))
    files.sync_directories(shelf.root, parts)
    if files.status(shelf.root, (*parts, COMPLETE)) is None or marker.read(shelf.root, parts) is not None:
        files.write(shelf.root, (*parts, COMPLETE), found.encode(), mode=READ_ONLY)


def _fresh(shelf: Shelf, keys: Mapping[str, str], parts: tuple[str, ...], mark: bytes) -> None:
    """Put together aside, then moved: whoever looks sees nothing or everything."""
    aside = (OWN, "new", "-".join(("placement", *parts))[-200:])
    shutil.rmtree(shelf.root.joinpath(*aside), ignore_errors=True)
    for path, key in keys.items():
        files.link(shelf.blob(key), shelf.root, (*aside, *path.split("/")))
    files.write(shelf.root, (*aside, COMPLETE), mark, mode=READ_ONLY)
    files.sync_directories(shelf.root, aside)
    with (
        files.directory(shelf.root, aside[:-1]) as source,
        files.directory(shelf.root, parts[:-1], create=True) as target,
    ):
        os.rename(aside[-1], parts[-1], src_dir_fd=source, dst_dir_fd=target)
        os.fsync(target)
