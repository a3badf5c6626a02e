"""Object ids computed exactly as git does, so that clients which check them can be tested for it."""

import hashlib
from collections.abc import Iterable, Mapping

_FILE_MODE = "100644"
_FOLDER_MODE = "40000"


def _oid(kind: str, body: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()


def blob_oid(content: bytes) -> str:
    """The id of a file, as `git hash-object` prints it."""
    return _oid("blob", content)


def lfs_pointer(sha256: str, size: int) -> bytes:
    """What git stores in place of a large file; its length is the hub's `pointerSize`."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_oids(blobs: Mapping[str, str]) -> dict[str, str]:
    """The id of every folder of a tree, the root under the empty path.

    `blobs` maps slash separated paths to blob ids.
    """
    children: dict[str, dict[str, str | None]] = {"": {}}
    for path, oid in blobs.items():
        name = path
        value: str | None = oid
        while True:
            folder, _, leaf = name.rpartition("/")
            siblings = children.setdefault(folder, {})
            siblings[leaf] = value
            if not folder:
                break
            name, value = folder, None
    found: dict[str, str] = {}

    # Deepest first: a folder's id covers the ids of the folders in it.
    for folder in sorted(children, key=lambda path: (path != "", path.count("/")), reverse=True):
        entries: list[tuple[str, str, str]] = []
        for leaf, oid_or_folder in children[folder].items():
            path = f"{folder}/{leaf}" if folder else leaf
            if oid_or_folder is None:
                entries.append((_FOLDER_MODE, leaf, found[path]))
            else:
                entries.append((_FILE_MODE, leaf, oid_or_folder))
        found[folder] = _oid("tree", _tree_body(entries))
    return found


def _tree_body(entries: Iterable[tuple[str, str, str]]) -> bytes:
    # git sorts a folder as if its name ended in a slash.
    ordered = sorted(entries, key=lambda entry: entry[1] + ("/" if entry[0] == _FOLDER_MODE else ""))
    return b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for mode, name, oid in ordered)


def commit_oid(tree: str, message: str) -> str:
    """The id of a commit without parents by a fixed author at a fixed time.

    Leaving the parents out makes the id a function of the content and the message alone, so a test can
    build the same repository twice and compare.
    """
    author = "hub stand-in <hub@example.invalid> 1704067200 +0000"
    return _oid("commit", f"tree {tree}\nauthor {author}\ncommitter {author}\n\n{message}\n".encode())
