"""Directories and links below one root, without following a symbolic link on the way.

Pods may own parts of what they mount. A path is therefore walked name by name from a descriptor of the root, and every
step refuses links: what is planted between two steps cannot lead elsewhere.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from modelswarm.errors import PathOutsideRoot

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
TEMPORARY = ".modelswarm-new-"
"""What files and directories are called before they have their name."""


def is_full(error: OSError) -> bool:
    """Whether the disk, or its owner's share of it, has no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def directory(root: Path, parts: Sequence[str] = (), *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory ``root/parts``; ``root`` itself may be reached through links.

    Raises ``PathOutsideRoot`` where a step is a symbolic link or not a directory, ``FileNotFoundError`` where it is
    not there and ``create`` is not set.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for index, part in enumerate(parts):
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
            try:
                below = os.open(part, _DIRECTORY, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    here = root.joinpath(*parts[: index + 1])
                    raise PathOutsideRoot(f"{here} is not a directory of its own (a link or a file)") from error
                raise
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def open_file(root: Path, parts: Sequence[str]) -> int:
    """A read-only descriptor of a regular file. ``FileNotFoundError`` for everything else that may be there."""
    try:
        with directory(root, parts[:-1]) as parent:
            fd = os.open(parts[-1], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    except PathOutsideRoot as error:
        raise FileNotFoundError(errno.ENOENT, "not a file of its own", str(root.joinpath(*parts))) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", str(root.joinpath(*parts))) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "not a regular file", str(root.joinpath(*parts)))
    return fd


def status(root: Path, parts: Sequence[str]) -> os.stat_result | None:
    """Of the thing at ``root/parts`` itself, or None where there is nothing (or only behind a link)."""
    try:
        with directory(root, parts[:-1]) as parent:
            return os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
    except (FileNotFoundError, PathOutsideRoot):
        return None


def statuses(directory: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of what is in a directory. Others work in it: what goes meanwhile is left out."""
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield entry.name, found


def link(source: Path, root: Path, parts: Sequence[str]) -> None:
    """Make ``root/parts`` a hard link to ``source``, in place of the file that may be there; never half.

    Raises ``PathOutsideRoot``, or ``IsADirectoryError`` where a directory is in the way.
    """
    with directory(root, parts[:-1], create=True) as parent:
        try:
            os.link(source, parts[-1], dst_dir_fd=parent, follow_symlinks=False)
            return
        except FileExistsError:
            pass
        found = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
        if os.path.samestat(found, os.stat(source, follow_symlinks=False)):
            return
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory is in the file's place", str(root.joinpath(*parts)))
        # Renaming one link of a file over another link of it does nothing, which the comparison above has excluded.
        fresh = f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}"
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=parent)
        os.link(source, fresh, dst_dir_fd=parent, follow_symlinks=False)
        os.rename(fresh, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)


def unlink(root: Path, parts: Sequence[str], *, only: os.stat_result | None = None) -> bool:
    """Remove a file (with ``only``: that very file); False where it is not there."""
    try:
        with directory(root, parts[:-1]) as parent:
            if only is not None:
                found = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
                if not os.path.samestat(found, only):
                    return False
            os.unlink(parts[-1], dir_fd=parent)
    except (FileNotFoundError, PathOutsideRoot):
        return False
    return True


def write(root: Path, parts: Sequence[str], data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Put a small file in place: whole or not at all, and (``durable``) there after a power cut."""
    with directory(root, parts[:-1], create=True) as parent:
        fresh = f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=parent)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(fresh, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
        if durable:
            os.fsync(parent)


def sync_directories(root: Path, parts: Sequence[str]) -> None:
    """Make a directory, those in it and the ones on the way to it durable; what a killed run left half goes."""
    for depth in range(len(parts)):
        with directory(root, parts[:depth]) as fd:
            os.fsync(fd)
    with directory(root, parts) as top:
        for _, _, names, fd in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            for name in names:
                if name.startswith(TEMPORARY):
                    os.unlink(name, dir_fd=fd)
            os.fsync(fd)


def remove_empty(root: Path, parts: Sequence[str], *, above: int) -> None:
    """Remove the directory ``root/parts`` and those above it, as long as they are empty and longer than ``above``."""
    for depth in range(len(parts), above, -1):
        try:
            with directory(root, parts[: depth - 1]) as parent:
                os.rmdir(parts[depth - 1], dir_fd=parent)
        except (OSError, PathOutsideRoot):
            return
