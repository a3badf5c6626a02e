"""Debian's buildah, with a storage of its own in the cache and without a network.

Every command runs in namespaces of its own: it sees no network, so that nothing in a build can depend on what somebody
else serves that day, and whatever it mounts or starts is gone when it ends, however that happens.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dev.dragonfly.packages import SEARCH_PATH, Package

PACKAGES = (Package("buildah", ("buildah",)), Package("debootstrap", ("debootstrap",)))
# Ends with us, and everything in the namespaces with it.
ISOLATED = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")
TIMEOUT = 1800

_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class BuildFailed(RuntimeError):
    """buildah ended with an error. The message has the end of what it said."""


class Buildah:
    """One storage; whoever uses it holds the lock of the cache. Nothing of the machine's configuration is read."""

    def __init__(self, directory: Path) -> None:
        self._scratch = directory / "scratch"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._policy = directory / "policy.json"
        self._policy.write_text(_POLICY)
        storage, registries = directory / "storage.conf", directory / "registries.conf"
        driver = _driver(directory)
        graph, run = directory / driver, directory / "run"
        storage.write_text(f'[storage]\ndriver = "{driver}"\ngraphroot = "{graph}"\nrunroot = "{run}"\n')
        registries.write_text("")
        self._environment = {
            "PATH": SEARCH_PATH,
            "HOME": str(directory),
            "TMPDIR": str(self._scratch),
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_REGISTRIES_CONF": str(registries),
            "CONTAINERS_CONF": os.devnull,
        }

    def clear(self) -> None:
        """Remove what targets have in common, and what is left of builds that were interrupted; bases stay."""
        self._run("rm", "--all")
        self._run("rmi", "--prune", "--force")
        shutil.rmtree(self._scratch)
        self._scratch.mkdir()

    def has(self, name: str) -> bool:
        return bool(self._run("images", "--quiet", "--filter", f"reference={name}"))

    def load_base(self, archive: Path, name: str) -> None:
        """Make an image of one layer out of a tar archive."""
        container = self._run("from", "scratch")
        try:
            self._run("add", "--quiet", container, str(archive), "/")
            self._run("config", "--env", _PATH, container)
            self._run("commit", "--quiet", "--signature-policy", str(self._policy), container, name)
        finally:
            self._run("rm", container)

    def build(
        self,
        directory: Path,
        target: str,
        name: str,
        *,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        afresh: bool = False,
    ) -> None:
        """Build a target of ``directory``'s Dockerfile. Raises BuildFailed.

        What it has in common with the targets before it is taken from them, unless ``afresh``. All files are from 1970:
        a layer that did not change stays the same, and is on the nodes already.
        """
        options = ["--isolation=chroot", "--pull=never", "--layers", "--force-rm", "--identity-label=false"]
        options += ["--format=oci", "--timestamp=0", f"--signature-policy={self._policy}", f"--jobs={os.cpu_count()}"]
        options += ["--no-cache"] if afresh else []
        options += [f"--build-arg={key}={value}" for key, value in arguments.items()]
        options += [f"--label={key}={value}" for key, value in labels.items()]
        self._run("build", *options, f"--target={target}", f"--tag={name}", str(directory))

    def write_layout(self, name: str, directory: Path) -> None:
        """Write an image as an OCI layout, its layers compressed."""
        self._run("push", "--quiet", "--signature-policy", str(self._policy), name, f"oci:{directory}:image")

    def remove(self, name: str) -> None:
        self._run("rmi", "--force", name)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*ISOLATED, "--net", "--mount-proc", "buildah", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT,
        )
        if done.returncode:
            end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
            raise BuildFailed(f"buildah {arguments[0]} failed:\n{end}")
        return done.stdout.strip()


def _driver(directory: Path) -> str:
    """``overlay`` needs a file system below it that is not one itself, as the root of a container is."""
    told = subprocess.run(["stat", "--file-system", "--format=%T", str(directory)], capture_output=True, text=True)
    return "vfs" if told.stdout.strip() == "overlayfs" else "overlay"
