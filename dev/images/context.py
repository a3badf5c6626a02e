"""The build context: what an image is made of, in a directory of its own, so that nobody changes it during a build."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

FILES = ("Dockerfile", ".dockerignore", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
FOLDERS = ("operator/modelswarm", "dev/images/inside")
WHEELS, DFGET = "build/wheels", "build/dfget"


def lay_out(root: Path, directory: Path) -> str:
    """Copy the project's own files to ``directory``, and return a digest of what was copied: names and contents.

    Modes do not depend on anybody's umask.
    """
    total = hashlib.sha256()
    for place in sorted(sources(root)):
        copy = directory / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / place, copy)
        copy.chmod(0o644)
        total.update(f"{place}\0{hashlib.sha256(copy.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def sources(root: Path) -> Iterator[str]:
    """The project's own files in a context, as ``.dockerignore`` lets them in."""
    yield from FILES
    for folder in FOLDERS:
        for path in (root / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(root).as_posix()


def add_wheels(wheels: Path, directory: Path) -> None:
    for wheel in wheels.glob("*.whl"):
        _link(wheel, directory / WHEELS / wheel.name)


def add_dfget(dfget: Path, directory: Path) -> None:
    _link(dfget, directory / DFGET)


def _link(path: Path, place: Path) -> None:
    """Both are in the cache, and large."""
    place.parent.mkdir(parents=True, exist_ok=True)
    os.link(path, place)
