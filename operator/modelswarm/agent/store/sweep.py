"""Removing what nothing refers to any more. Blocking."""

import shutil
from collections.abc import Collection, Set

from modelswarm.agent.store import files
from modelswarm.agent.store.keys import is_blob_key
from modelswarm.agent.store.shelf import BLOBS, MODELS, PARTIAL, Shelf


def sweep(shelf: Shelf, kept: Collection[str], open_keys: Set[str], complete: Collection[str], deadline: float) -> int:
    """Contents that are neither complete nor ``kept``, then blobs and partials of no content; returns bytes freed.

    Only what has not changed since ``deadline`` (seconds since the epoch) goes: what is new may be somebody's who is
    about to say so.
    """
    freed = 0
    for content in [it for it in list(shelf.records) if it not in kept and it not in complete]:
        if shelf.usage.changed(content) < deadline:
            freed += shelf.remove(content, held=open_keys)
    for content in shelf.directories():
        path = shelf.root / MODELS / content
        if content not in shelf.records and content not in kept and path.lstat().st_ctime < deadline:
            shutil.rmtree(path, ignore_errors=True)
    needed = set(open_keys).union(*(record.sizes for record in list(shelf.records.values())))
    for name, found in list(files.statuses(shelf.root / BLOBS)):
        if found.st_ctime < deadline and name not in needed:
            if is_blob_key(name):
                freed += shelf.discard([name])
            elif name.startswith(files.TEMPORARY):
                files.unlink(shelf.root, (BLOBS, name))
    for name, found in list(files.statuses(shelf.root / PARTIAL)):
        key = name.removesuffix(".new").removesuffix(".json")
        stale = key not in needed or (key not in open_keys and (shelf.root / BLOBS / key).exists())
        if is_blob_key(key) and stale and found.st_ctime < deadline and files.unlink(shelf.root, (PARTIAL, name)):
            freed += found.st_blocks * 512 if found.st_nlink == 1 else 0
    return freed
