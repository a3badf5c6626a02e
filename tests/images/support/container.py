"""An unpacked image in which programs run as in a pod: read-only root, no capabilities, no new privileges.

There is no container runtime in this: namespaces, a read-only bind mount and chroot are what one would use. The images
in real pods are a matter of the tests of the cluster.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.images.archive import Config, config, unpack
from dev.images.targets import UID

LAUNCHER = Path(__file__).with_name("launch.py")
TIMEOUT = 120
# $R is the root, $V a directory of the host or nothing, $M where the image has it.
PREPARE = """
mount --bind "$R" "$R"
mount --bind -o ro,remount "$R"
mount --rbind /dev "$R/dev"
mount -t proc proc "$R/proc"
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
if [ -n "$V" ]; then mount --bind "$V" "$R$M"; fi
if [ -n "$LOOPBACK" ]; then ip link set lo up; fi
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    output: str
    """Of both streams."""


@dataclass(frozen=True, slots=True)
class Container:
    target: str
    root: Path
    config: Config

    @classmethod
    def unpacked(cls, target: str, archive: Path, root: Path) -> "Container":
        unpack(archive, root)
        return cls(target, root, config(archive))

    def run(
        self,
        *arguments: str,
        uid: int = UID,
        serve: str = "",
        volume: tuple[Path, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """The image's entrypoint with ``arguments``."""
        return self.execute(
            *self.config.Entrypoint, *arguments, uid=uid, serve=serve, volume=volume, environment=environment
        )

    def execute(
        self,
        *command: str,
        uid: int = UID,
        serve: str = "",
        volume: tuple[Path, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Any program, as ``kubectl exec`` does. With a ``volume`` (a directory, and where the image has it) it is in
        the host's network, else in one where nothing is but what ``serve`` says."""
        variables = dict(entry.split("=", 1) for entry in self.config.Env) | dict(environment or {})
        request = {
            "root": str(self.root),
            "uid": uid,
            "environment": variables,
            "command": command,
            "serve": serve,
        }
        source, place = volume or ("", "")
        network = [] if volume else ["--net"]
        isolated = [
            "setpriv",
            "--pdeathsig=KILL",
            "unshare",
            *network,
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
        ]
        launch: Sequence[str] = [sys.executable, "-I", "-S", str(LAUNCHER), json.dumps(request)]
        done = subprocess.run(
            [*isolated, "sh", "-ec", PREPARE, "sh", *launch],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "R": str(self.root),
                "V": str(source),
                "M": place,
                "LOOPBACK": "" if volume else "yes",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
        )
        return Result(done.returncode, done.stdout)
