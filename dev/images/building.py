"""Builds images as OCI archives in the cache. What is there already for the same content is taken from there."""

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dev.binaries import _locked, cache_directory
from dev.dragonfly.builds import CLIENTS, _clients, cache_key, pinned_crate
from dev.dragonfly.packages import ensure_packages
from dev.images.archive import Contents, pack, read
from dev.images.base import Base, base_image
from dev.images.buildah import PACKAGES, Buildah
from dev.images.context import add_dfget, add_wheels, lay_out
from dev.images.revision import Revision, current_revision
from dev.images.targets import TARGETS, WITH_DFGET, image_name
from dev.images.wheelhouse import wheelhouse
from dev.installation import ROOT

MIB = 1 << 20
KEPT_SECONDS = 3600
"""Archives that nobody has asked for in so long are removed when a new image is built."""
WHEELS_KEPT_SECONDS = 7 * 86_400
"""The same of wheels, which have to be downloaded again."""


class NotRoot(RuntimeError):
    """Only root can build images: buildah and debootstrap make device files and mounts."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that has been built."""

    target: str
    archive: Path
    contents: Contents
    seconds: float
    """What the build took; 0 when it came from the cache."""

    def __str__(self) -> str:
        of, took = self.contents, f"{self.seconds:5.1f} s" if self.seconds else "  cache"
        size = f"{of.size / MIB:5.1f} MiB, {of.unpacked / MIB:5.1f} MiB unpacked"
        return f"{of.name:<36} {took}  {size}  {of.digest}"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What decides what comes out of a build."""

    directory: Path
    """The build context."""
    sources: str
    """Digest of the project's files in it."""
    wheels: Path
    base: Base
    revision: Revision

    def key(self, target: str) -> str:
        dfget = cache_key(pinned_crate()) if target == WITH_DFGET else ""
        ways = [path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))]
        content = repr((self.sources, self.wheels.name, self.base.name, self.revision, dfget, ways))
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def usual_targets() -> tuple[str, ...]:
    """All of them; the one with dfget only where that is built already, because it takes half an hour."""
    dfget = cache_directory() / "bin" / cache_key(pinned_crate())
    return tuple(target for target in TARGETS if target != WITH_DFGET or dfget.exists())


def build(targets: Iterable[str] | None = None) -> Mapping[str, Path]:
    """The OCI archive of each target (``usual_targets`` if none is named), built if it is not in the cache.

    Raises NotRoot, PackagesMissing (with the command that installs buildah and debootstrap), BaseUnavailable,
    WheelsUnavailable, BuildFailed, and BinaryUnavailable (dfget).
    """
    return {target: image.archive for target, image in prepare(targets).items()}


def prepare(targets: Iterable[str] | None = None, *, root: Path = ROOT, afresh: bool = False) -> dict[str, Image]:
    """Like ``build``, with what is in each archive and what it took; also of another clone.

    ``afresh``: whether it is in the cache or not.
    """
    wanted = usual_targets() if targets is None else tuple(targets)
    if unknown := set(wanted) - set(TARGETS):
        raise ValueError(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if os.geteuid() != 0:
        raise NotRoot("building images needs root")
    ensure_packages(PACKAGES, purpose="building images")
    dfget = _clients()[CLIENTS[1]].path if WITH_DFGET in wanted else None
    home = cache_directory() / "images"
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / "build.lock"), _plan(root, home) as plan, ExitStack() as stack:
        buildah: Buildah | None = None
        images: dict[str, Image] = {}
        for target in wanted:
            archive = home / f"{target}-v{plan.revision.version}-{plan.key(target)}.tar"
            seconds = 0.0
            if afresh or not archive.exists():
                started = time.monotonic()
                if buildah is None:
                    buildah = stack.enter_context(_buildah(home, plan))
                if target == WITH_DFGET and dfget is not None:
                    add_dfget(dfget, plan.directory)
                _build(buildah, plan, target, archive, afresh)
                seconds = time.monotonic() - started
            archive.touch()
            images[target] = Image(target, archive, read(archive), seconds)
        if buildah is not None:
            _remove_old(home)
    return images


@contextmanager
def _plan(root: Path, home: Path) -> Iterator[_Plan]:
    # Of builds that were killed. Whoever holds the lock is the only one who has such directories.
    for remains in (*home.glob("context-*"), *home.glob("layout-*"), *home.glob("debootstrap-*")):
        shutil.rmtree(remains)
    wheels, base = wheelhouse(root), base_image()
    with tempfile.TemporaryDirectory(dir=home, prefix="context-") as scratch:
        sources = lay_out(root, Path(scratch))
        yield _Plan(Path(scratch), sources, wheels, base, current_revision(root))


@contextmanager
def _buildah(home: Path, plan: _Plan) -> Iterator[Buildah]:
    """Ready to build: with the base, and with the wheels in the context."""
    buildah = Buildah(home / "buildah")
    buildah.clear()
    if not buildah.has(plan.base.name):
        buildah.load_base(plan.base.archive, plan.base.name)
    add_wheels(plan.wheels, plan.directory)
    yield buildah
    buildah.clear()


def _build(buildah: Buildah, plan: _Plan, target: str, archive: Path, afresh: bool) -> None:
    revision, name = plan.revision, image_name(target, plan.revision.version)
    print(f"building {name} of {revision.commit}", file=sys.stderr, flush=True)
    arguments = {"BASE": plan.base.name, "VERSION": revision.version, "REVISION": revision.commit}
    labels = {"org.opencontainers.image.source": revision.source} if revision.source else {}
    local = f"localhost/{name}"
    buildah.build(plan.directory, target, local, arguments=arguments, labels=labels, afresh=afresh)
    try:
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix="layout-") as scratch:
            layout, packed = Path(scratch) / "layout", Path(scratch) / archive.name
            buildah.write_layout(local, layout)
            pack(layout, name, packed, created=datetime.fromtimestamp(revision.epoch, UTC))
            packed.rename(archive)
    finally:
        buildah.remove(local)


def _remove_old(home: Path) -> None:
    now = time.time()
    for path in home.glob("*-v*.tar"):
        if path.stat().st_mtime < now - KEPT_SECONDS:
            path.unlink()
    for path in home.glob("wheels-*"):
        if path.stat().st_mtime < now - WHEELS_KEPT_SECONDS:
            shutil.rmtree(path)
