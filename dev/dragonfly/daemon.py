"""One dfdaemon: an ordinary node's or a seed, with its socket, its disk, and the dfget that talks to it."""

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx
import yaml

from dev.dragonfly.builds import Programs
from dev.dragonfly.configs import DaemonOptions, DaemonPorts, Servers, daemon_config
from dev.dragonfly.network import can_listen
from dev.process import Child, free_port

READY_TIMEOUT = 60.0
POLL_INTERVAL = 0.05
_KILL_AFTER = 10.0
_LOG_TIMEOUT = 5.0
_LOG_SILENCE = 0.3
_TRAFFIC = re.compile(r'^dragonfly_client_download_traffic\{[^}]*type="(\w+)"[^}]*\} (\d+)', re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

# The address space of the machine is ours; a proxy of the environment must not get between a daemon and its origin.
ENVIRONMENT = {"NO_PROXY": "*", "no_proxy": "*"}


@dataclass(frozen=True, slots=True)
class Download:
    """How a dfget ended. ``returncode`` is None when it had to be killed."""

    returncode: int | None
    output: str
    """What it printed, without colours."""
    seconds: float

    @property
    def succeeded(self) -> bool:
        return self.returncode == 0


class Daemon:
    """One dfdaemon and its files. ``child`` starts and stops it; the disk cache stays when it is stopped.

    ``socket`` is where it listens, if not in its directory; ``seen_at`` is that file as this program sees it, if the
    daemon is started into mounts of its own.
    """

    def __init__(
        self,
        directory: Path,
        programs: Programs,
        servers: Servers,
        *,
        name: str,
        address: str,
        ports: DaemonPorts,
        seed: bool,
        options: DaemonOptions,
        socket: Path | None = None,
        seen_at: Path | None = None,
    ) -> None:
        directory.mkdir()
        self.name = name
        self.address = address
        self.ports = ports
        self.seed = seed
        self.socket = socket or directory / "dfdaemon.sock"
        self._seen_at = seen_at or self.socket
        self.storage = directory / "storage"
        self._dfget = programs.dfget
        self._config = directory / "dfdaemon.yaml"
        self._content = partial(
            daemon_config,
            directory,
            servers,
            name=name,
            address=address,
            socket=self.socket,
            seed=seed,
            options=options,
        )
        flags: list[str | Path] = [
            "--config",
            self._config,
            "--log-dir",
            directory / "log",
            "--log-level",
            "info",
            "--console",
        ]
        self.child = Child(
            name, [programs.dfdaemon, *flags], log=directory / "dfdaemon.log", cwd=directory, env=ENVIRONMENT
        )

    @property
    def proxy_url(self) -> str:
        return f"http://{self.address}:{self.ports.proxy}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.address}:{self.ports.metrics}/metrics"

    def start(self) -> None:
        """Start it and wait until its socket answers. It ends by itself when there is no scheduler."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it without waiting."""
        # dfdaemon opens this one port without SO_REUSEADDR, so for a minute after its death the connections of its
        # peers would keep it from starting. They ask for the port anew with each download.
        if not can_listen(self.address, self.ports.tcp, reuse=False):
            self.ports = replace(self.ports, tcp=free_port())
        self._config.write_text(yaml.safe_dump(self._content(ports=self.ports), sort_keys=False))
        self.child.start()

    def wait_ready(self) -> None:
        """Raises StartupFailed."""
        deadline = time.monotonic() + READY_TIMEOUT
        health = f"http://{self.address}:{self.ports.health}/healthy"
        with httpx.Client(timeout=2, trust_env=False) as client:
            while not (_answers(client, health) and self._seen_at.exists()):
                if not self.child.running:
                    raise self.child.failure("ended during start-up")
                if time.monotonic() > deadline:
                    raise self.child.failure(f"not ready in {READY_TIMEOUT:.0f} s")
                time.sleep(POLL_INTERVAL)

    def stop(self, grace: float = 0.0) -> None:
        self.child.stop(grace)

    def traffic(self) -> Counter[str]:
        """Bytes that it has got since its start, by where from: ``REMOTE_PEER``, ``LOCAL_PEER``, ``BACK_TO_SOURCE``.

        By its own account, which may be a moment behind a download.
        """
        found = Counter[str]()
        for kind, value in _TRAFFIC.findall(httpx.get(self.metrics_url, trust_env=False, timeout=10).text):
            found[kind] += int(value)
        return found

    def tasks(self) -> set[str]:
        """The ids of the tasks on its disk, computed by the daemon itself, complete or not."""
        return {path.name for path in (self.storage / "content" / "tasks").glob("*/*")}

    @contextmanager
    def recorded_tasks(self) -> Iterator[set[str]]:
        """Holds, after the block, the ids of the tasks that the daemon logged something about during it."""
        ids: set[str] = set()
        start = -1
        while start != (now := self.child.log.stat().st_size):  # lines are written a moment late
            start = now
            time.sleep(_LOG_SILENCE)
        yield ids
        deadline = time.monotonic() + _LOG_TIMEOUT
        while not ids and time.monotonic() < deadline:
            with self.child.log.open("rb") as log:
                log.seek(start)
                text = _COLOUR.sub("", log.read().decode(errors="replace"))
            ids.update(re.findall(r"\btask_id[=:] ?\"?([0-9a-f]{64})\b", text))
            time.sleep(POLL_INTERVAL)

    def task_file(self, task_id: str) -> Path:
        """Where the bytes of a task are."""
        return self.storage / "content" / "tasks" / task_id[:3] / task_id

    def command(
        self,
        url: str,
        output: Path,
        *,
        tag: str = "",
        application: str = "",
        headers: Mapping[str, str] | None = None,
        filtered_query_params: Sequence[str] | None = None,
        piece_length: str | None = None,
    ) -> list[str]:
        """The command line that downloads ``url`` through this daemon into ``output``."""
        command = [str(self._dfget), "--endpoint", str(self.socket), "--output", str(output), "--no-progress"]
        command += ["--transfer-from-dfdaemon", "--overwrite"]
        command += ["--tag", tag] if tag else []
        command += ["--application", application] if application else []
        command += ["--piece-length", piece_length] if piece_length else []
        for key, value in (headers or {}).items():
            command += ["--header", f"{key}: {value}"]
        for name in filtered_query_params or ():
            command += ["--filtered-query-param", name]
        return [*command, url]

    def dfget(
        self,
        url: str,
        output: Path,
        *,
        tag: str = "",
        application: str = "",
        headers: Mapping[str, str] | None = None,
        filtered_query_params: Sequence[str] | None = None,
        piece_length: str | None = None,
        timeout: float = 120.0,
    ) -> Download:
        """Download and wait. Nothing is raised when it fails: see the returned object."""
        command = self.command(
            url,
            output,
            tag=tag,
            application=application,
            headers=headers,
            filtered_query_params=filtered_query_params,
            piece_length=piece_length,
        )
        # Without the variables that would change what the flags do not say.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DFGET_")}
        started = time.monotonic()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        returncode: int | None
        try:
            output_bytes, _ = process.communicate(timeout=timeout)
            returncode = process.returncode
        except BaseException as error:
            process.kill()
            output_bytes, _ = process.communicate(timeout=_KILL_AFTER)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            returncode = None
        text = _COLOUR.sub("", output_bytes.decode(errors="replace"))
        return Download(returncode, text, time.monotonic() - started)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
