"""Repositories with several revisions, held in memory over real files on disk."""

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self

from dev.hub.gitobjects import blob_oid, commit_oid, lfs_pointer, tree_oids

Gate = Literal[False, "auto", "manual"]
Content = Path | str | Mapping[str, bytes]

FIRST_COMMIT_AT = datetime(2024, 1, 1, tzinfo=UTC)
DEFAULT_LFS_THRESHOLD = 10 << 20
_SKIPPED_FOLDERS = frozenset({".git", ".cache", ".huggingface", "__pycache__"})
_COMMIT = re.compile(r"[0-9a-f]{40}")


class ContentChanged(RuntimeError):
    """A file that a commit points to is no longer the file that was committed."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One file's content and ids.

    `oid` is the git id of what git stores, which for a large file is its pointer. A blob over a file on
    disk remembers that file's size and time of change, for the file must stay as it is while it is served.
    """

    size: int
    sha256: str
    oid: str
    source: bytes | Path = field(repr=False)
    pointer: bytes | None = field(default=None, repr=False)
    mtime_ns: int = 0

    @property
    def is_lfs(self) -> bool:
        return self.pointer is not None

    def open_fd(self) -> int:
        """A file descriptor over the content on disk, refused when that content was changed since the commit."""
        if isinstance(self.source, bytes):
            raise TypeError("a blob in memory has no file")
        fd = os.open(self.source, os.O_RDONLY)
        state = os.fstat(fd)
        if (state.st_size, state.st_mtime_ns) != (self.size, self.mtime_ns):
            os.close(fd)
            raise ContentChanged(f"{self.source} was changed after it was committed")
        return fd

    @classmethod
    def of(cls, source: bytes | Path, *, lfs: bool) -> Self:
        """Hash `source`; a file is read in pieces, never as a whole."""
        if isinstance(source, bytes):
            sha256, size, mtime_ns = hashlib.sha256(source).hexdigest(), len(source), 0
        else:
            with source.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                state = os.fstat(stream.fileno())
            size, mtime_ns = state.st_size, state.st_mtime_ns
        pointer = lfs_pointer(sha256, size) if lfs else None
        stored = pointer if pointer is not None else source if isinstance(source, bytes) else source.read_bytes()
        return cls(size, sha256, blob_oid(stored), source, pointer, mtime_ns)


@dataclass(frozen=True, slots=True)
class Commit:
    """One immutable state of a repository. `touched` names, per path, the commit that last changed it."""

    id: str
    message: str
    at: datetime
    files: Mapping[str, Blob]
    folders: Mapping[str, str]
    touched: Mapping[str, str]


class Repository:
    """A model repository: commits by id, branches and tags that name them.

    Commits are never dropped, so a client that pinned one keeps reading it after the branch has moved.

        repository = Repository.from_folder(folder, id="org/model")
        second = repository.commit({"config.json": b"{}"}, base="main")
        repository.move("main", second)
    """

    def __init__(
        self,
        id: str,
        *,
        gated: Gate = False,
        private: bool = False,
        lfs_threshold: int = DEFAULT_LFS_THRESHOLD,
        default_branch: str = "main",
    ) -> None:
        self.id = id
        self.gated: Gate = gated
        self.private = private
        self.default_branch = default_branch
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commits: dict[str, Commit] = {}
        self._lfs_threshold = lfs_threshold
        self._lock = threading.Lock()

    @classmethod
    def from_folder(
        cls,
        folder: Path | str,
        *,
        id: str,
        gated: Gate = False,
        private: bool = False,
        lfs_threshold: int = DEFAULT_LFS_THRESHOLD,
        default_branch: str = "main",
    ) -> Self:
        """A repository whose default branch is the files of `folder`, which are served from where they are."""
        repository = cls(id, gated=gated, private=private, lfs_threshold=lfs_threshold, default_branch=default_branch)
        repository.move(default_branch, repository.commit(folder, message="Upload model"))
        return repository

    @property
    def head(self) -> str:
        """The commit of the default branch."""
        return self.branches[self.default_branch]

    def commit(self, content: Content, *, base: str | None = None, message: str = "Update model") -> str:
        """Record a state and return its id; no branch moves.

        Without `base` the content is the whole state; with it, the content is laid over that revision.
        The id depends on the files and the message only: the same state again is the same commit.
        """
        with self._lock:
            files: dict[str, Blob] = {}
            if base is not None:
                files.update(self.get(base).files)
            files.update(self._blobs(content))
            folders = tree_oids({path: blob.oid for path, blob in files.items()})
            id = commit_oid(folders[""], message)
            if id not in self.commits:
                previous = self.resolve(base or self.default_branch)
                touched = {
                    path: previous.touched[path] if previous and previous.files.get(path) == blob else id
                    for path, blob in files.items()
                }
                at = FIRST_COMMIT_AT + timedelta(minutes=len(self.commits))
                ordered = {path: files[path] for path in sorted(files)}
                self.commits[id] = Commit(id, message, at, ordered, folders, touched)
            return id

    def move(self, branch: str, commit: str) -> None:
        """Point `branch` at `commit`, creating the branch when it is new."""
        self.branches[branch] = self.get(commit).id

    def tag(self, name: str, commit: str) -> None:
        """Point the tag `name` at `commit`."""
        self.tags[name] = self.get(commit).id

    def resolve(self, revision: str) -> Commit | None:
        """The commit a branch, tag, full reference or commit id names."""
        for prefix, names in (("refs/heads/", self.branches), ("refs/tags/", self.tags)):
            if revision in names:
                return self.commits[names[revision]]
            if revision.startswith(prefix) and revision.removeprefix(prefix) in names:
                return self.commits[names[revision.removeprefix(prefix)]]
        return self.commits.get(revision) if _COMMIT.fullmatch(revision) else None

    def get(self, revision: str) -> Commit:
        """Like `resolve`, for a revision that has to exist."""
        found = self.resolve(revision)
        if found is None:
            raise KeyError(f"{self.id} has no revision {revision!r}")
        return found

    def _blobs(self, content: Content) -> dict[str, Blob]:
        sources: Mapping[str, bytes | Path]
        sources = content if isinstance(content, Mapping) else dict(_walk(Path(content)))
        attributes = sources.get(".gitattributes", b"")
        text = attributes if isinstance(attributes, bytes) else attributes.read_bytes()
        patterns = _lfs_patterns(text.decode())

        def blob(item: tuple[str, bytes | Path]) -> tuple[str, Blob]:
            path, source = item
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            lfs = size >= self._lfs_threshold or any(_matches(path, pattern) for pattern in patterns)
            return path, Blob.of(source, lfs=lfs)

        # hashlib lets go of the interpreter lock, so threads do hash at the same time.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            return dict(pool.map(blob, sources.items()))


def _walk(root: Path) -> Iterable[tuple[str, Path]]:
    if not root.is_dir():
        raise NotADirectoryError(root)
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in _SKIPPED_FOLDERS)
        for name in sorted(files):
            path = Path(folder, name)
            yield path.relative_to(root).as_posix(), path


def _lfs_patterns(attributes: str) -> list[str]:
    lines = (line.split() for line in attributes.splitlines() if not line.startswith("#"))
    return [words[0] for words in lines if "filter=lfs" in words[1:]]


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern)
