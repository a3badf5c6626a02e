"""The model's directory: where files go, what is there already, and where the unfinished ones are kept."""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from modelswarm.content.manifest import ManifestFile
from modelswarm.errors import LoadError
from modelswarm.loader.digests import SLICE, Expected, Verdict, hash_range
from modelswarm.loader.outcome import Reason
from modelswarm.loader.threads import in_thread

PARTS = ".modelswarm"
"""Directory of part files, in the root: on the same file system as the model, and no model file may be named so."""
BESIDE = ".beside"
"""Ending of what another program writes for a leg until it is whole; nothing continues it after a crash."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Tree:
    """``directory`` is the model's own, or ``root`` itself where the model is a single file.

    ``key`` names the model among those that share the root; its part files are kept apart from theirs. ``node`` is
    the one directory outside of the root that links may lead to.
    """

    def __init__(self, root: Path, directory: Path, key: str, *, node: Path | None = None) -> None:
        self.root = Path(os.path.realpath(root))
        self.directory = self.root / directory.relative_to(root)
        self.parts = self.root / PARTS / hashlib.sha256(key.encode()).hexdigest()[:16]
        self._node = Path(os.path.realpath(node)) if node is not None else None
        self._lock = -1

    def target(self, path: str) -> Path:
        """Where a file of the manifest belongs; refused when a symbolic link on the way leads out of the root."""
        target = self.directory / path
        if target.relative_to(self.root).parts[0] == PARTS:
            raise LoadError(Reason.UNSAFE_PATH, f"{path}: {PARTS} is the loader's own directory")
        real = Path(os.path.realpath(target))
        kept = self._node is not None and target.is_symlink() and real.is_relative_to(self._node)
        for place in (Path(os.path.realpath(target.parent)), self.root if kept else real):
            if not place.is_relative_to(self.root):
                raise LoadError(Reason.UNSAFE_PATH, f"{path}: a symbolic link leads out of {self.root}")
        return target

    def link(self, path: str, source: Path) -> None:
        """Put a symbolic link to ``source`` where a file belongs; whatever is there is replaced, in one step."""
        target = self.target(path)
        if target.is_symlink() and target.readlink() == source:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = self.parts / f"link{BESIDE}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(source)
        beside.replace(target)

    def stem(self, file: ManifestFile) -> Path:
        """Name of a file's part: it depends on the content, so that another version never continues it."""
        identity = f"{file.path}\0{file.size}\0{file.digest}\0{file.version}"
        return self.parts / hashlib.sha256(identity.encode()).hexdigest()[:32]

    def open(self) -> bool:
        """Make the directories and take the model's lock; False while another loader holds it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.parts.mkdir(parents=True, exist_ok=True)
        for path in (self.directory, self.parts):
            if not Path(os.path.realpath(path)).is_relative_to(self.root):
                raise LoadError(Reason.UNSAFE_PATH, f"{path} is a symbolic link that leads out of {self.root}")
        if self._lock < 0:
            self._lock = os.open(self.parts, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            # Not every network file system has locks; a pod's own volume has one writer anyway.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        for path in self.parts.glob(f"*{BESIDE}"):
            path.unlink(missing_ok=True)
        return True

    def clean(self) -> None:
        """Remove the part files of this model, those of its earlier versions too."""
        shutil.rmtree(self.parts, ignore_errors=True)
        with suppress(OSError):
            self.parts.parent.rmdir()

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def needed(self, files: Iterable[ManifestFile]) -> int:
        """Bytes that the volume must still take; what is there in the right size, or in part, is not counted twice."""
        missing = 0
        for file in files:
            try:
                found = self.target(file.path).stat()
            except OSError:
                found = None
            if found is not None and found.st_size == file.size:
                continue
            missing += file.size - (_occupied(found) if found is not None else 0)
            with suppress(OSError):
                part = self.stem(file)
                missing -= min(_occupied(part.with_name(part.name + ".part").stat()), file.size)
        return max(missing, 0)


async def inspect(target: Path, file: ManifestFile, expected: Expected) -> Verdict | None:
    """What is at ``target``: None when nothing is. Everything is hashed; neither size nor date is trusted."""
    try:
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise LoadError(Reason.STORAGE_ERROR, f"{file.path}: something that is not a file is in its place")
        if status.st_size != file.size:
            return Verdict.WRONG
        state = expected.hash()
        position = 0
        while state is not None and position < file.size:
            reached = await in_thread(hash_range, fd, state, position, min(position + SLICE, file.size))
            if reached == position:
                return Verdict.WRONG
            position = reached
    finally:
        os.close(fd)
    verdict = expected.verdict(state)
    if verdict is Verdict.WRONG and not expected.binding:
        # It was complete when it was renamed, and the store's ETag need not be an MD5.
        return Verdict.UNVERIFIED
    return verdict


def storage_error(error: OSError, path: str) -> LoadError:
    """What the volume said, as the loader's own error."""
    if error.errno in _NO_SPACE:
        return LoadError(Reason.INSUFFICIENT_CAPACITY, f"{path}: the volume is full")
    return LoadError(Reason.STORAGE_ERROR, f"{path}: {error.strerror or type(error).__name__}")


def free_space(path: Path) -> int:
    """Bytes that an ordinary user may still write to the volume of ``path``."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _occupied(found: os.stat_result) -> int:
    return found.st_blocks * 512
