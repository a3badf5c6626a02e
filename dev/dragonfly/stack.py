"""A whole Dragonfly, on loopback by default: databases, manager, scheduler, seeds and the daemons of ordinary nodes.

with DragonflyStack(daemons=2) as stack:
    stack.wait_preheatable()
    job = stack.api.wait_for_job(stack.api.preheat([url])["id"])
    stack.dfget(0, url, Path("out"))

Starting it takes six seconds and no root. Up to thirty more pass until the scheduler has noticed the seeds,
which only preheating needs: ``wait_preheatable`` waits for the rest of them.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from dev.binaries import BinaryUnavailable
from dev.dragonfly.builds import Programs, locate
from dev.dragonfly.configs import (
    SEED_REFRESH_SECONDS,
    DaemonOptions,
    DaemonPorts,
    Endpoint,
    Servers,
    manager_config,
    scheduler_config,
)
from dev.dragonfly.daemon import ENVIRONMENT, Daemon, Download
from dev.dragonfly.databases import install_mariadb, listens, mariadb, redis, wait_for_mariadb, wait_for_redis
from dev.dragonfly.manager import Manager
from dev.dragonfly.network import FIRST_DAEMON, FIRST_SEED, SERVER_HOST, LoopbackNetwork, StackNetwork
from dev.dragonfly.packages import PackagesMissing, ensure_packages
from dev.process import Child, StartupFailed, interrupt_on_stop_signals

READY_TIMEOUT = 90.0
POLL_INTERVAL = 0.1
# Between the tick of the scheduler's timer and the end of its health checks of the seeds.
_REFRESH_MARGIN = 2.0
_NOTICE_TIMEOUT = 10.0
_LONGEST_SOCKET_PATH = 107

_MOST_SEEDS, _MOST_DAEMONS = 10, 200


class DragonflyStack:
    """One Dragonfly. Its parts can be killed and started again one by one; addresses, ports and data stay.

    ``directory``, if given, has to be empty or missing and is kept. ``options`` apply to the ordinary daemons,
    ``seed_options`` (by default the same) to the seeds. ``network`` says where the parts are.
    """

    def __init__(
        self,
        *,
        daemons: int = 2,
        seeds: int = 1,
        directory: Path | None = None,
        options: DaemonOptions | None = None,
        seed_options: DaemonOptions | None = None,
        network: StackNetwork | None = None,
    ) -> None:
        if not (0 <= daemons <= _MOST_DAEMONS and 0 <= seeds <= _MOST_SEEDS):
            raise ValueError(f"at most {_MOST_DAEMONS} daemons and {_MOST_SEEDS} seeds")
        self.daemons: list[Daemon] = []
        """Those of ordinary nodes."""
        self.seeds: list[Daemon] = []
        self.token = ""
        """A personal access token for jobs and clusters."""
        self.timings: dict[str, float] = {}
        """Seconds that each step of the last start took."""
        self._counts = daemons, seeds
        self._options = options or DaemonOptions()
        self._seed_options = seed_options or self._options
        self._given_network = network
        self._given_directory = directory.absolute() if directory else None
        self._children: list[Child] = []
        self._resources = ExitStack()
        self._ring_since = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything. Raises StartupFailed, BinaryUnavailable or PackagesMissing."""
        if self._children:
            raise RuntimeError("this Dragonfly is already running")
        ensure_packages()
        self.programs = locate()
        try:
            self._prepare(self.programs)
            for step, action in self._start_steps():
                started = time.monotonic()
                action()
                self.timings[step] = time.monotonic() - started
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything at once, and forget the data unless a directory was given. Harmless when nothing runs."""
        for child in reversed(self._children):
            child.stop()
        self._children.clear()
        self._resources.close()
        self.daemons, self.seeds, self.token = [], [], ""

    # Access

    @property
    def manager_url(self) -> str:
        return self.servers.manager.url

    @property
    def scheduler_address(self) -> str:
        """``host:port`` of the scheduler's gRPC."""
        return str(self.servers.scheduler)

    def dfget(
        self,
        daemon: int,
        url: str,
        output: Path,
        *,
        tag: str = "",
        application: str = "",
        headers: Mapping[str, str] | None = None,
        filtered_query_params: Sequence[str] | None = None,
        timeout: float = 120.0,
    ) -> Download:
        """Download ``url`` through one of the ordinary daemons, as ``Daemon.dfget``."""
        return self.daemons[daemon].dfget(
            url,
            output,
            tag=tag,
            application=application,
            headers=headers,
            filtered_query_params=filtered_query_params,
            timeout=timeout,
        )

    def wait_preheatable(self) -> None:
        """Return when a job would find the seeds; before, it ends with ``no available seed peer``.

        The scheduler looks for seeds by a timer of its own, which nothing outside can see or hurry.
        """
        remaining = self._ring_since + SEED_REFRESH_SECONDS + _REFRESH_MARGIN - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)

    # Failures

    def kill_manager(self) -> None:
        self.manager.stop()

    def start_manager(self) -> None:
        """Start it again on its database, with the tokens and jobs in there. Its polling of old jobs is lost."""
        self.manager.start()
        self._wait(self.manager, self.api.healthy)

    def restart_manager(self) -> None:
        self.kill_manager()
        self.start_manager()

    def kill_scheduler(self) -> None:
        """Kill it and wait until the manager has noticed, which it does at once if the two were connected.

        A manager that was started a moment before goes on calling it active, by what its database says.
        """
        self.scheduler.stop()
        deadline = time.monotonic() + _NOTICE_TIMEOUT
        while self.manager.running and time.monotonic() < deadline and _all_active(self.api.schedulers(), 1):
            time.sleep(POLL_INTERVAL)

    def start_scheduler(self) -> None:
        """Start it and wait until the manager counts on it. Preheating has to wait for the seeds again."""
        self.scheduler.start()
        self._wait(self.scheduler, lambda: listens(self.servers.scheduler) and _all_active(self.api.schedulers(), 1))
        self._ring_since = time.monotonic()  # its timer began when it began to serve

    def restart_scheduler(self) -> None:
        self.kill_scheduler()
        self.start_scheduler()

    # Start-up

    def _prepare(self, programs: Programs) -> None:
        if self._given_directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="modelswarm-dragonfly-"))
            self._resources.callback(shutil.rmtree, self.directory, ignore_errors=True)
        else:
            self.directory = self._given_directory
            self.directory.mkdir(parents=True, exist_ok=True)
            if any(self.directory.iterdir()):
                raise ValueError(f"{self.directory} is not empty")
        longest = self.directory / f"daemon-{_MOST_DAEMONS}" / "dfdaemon.sock"
        if len(str(longest)) > _LONGEST_SOCKET_PATH:
            raise ValueError(f"{self.directory} is too long for the path of a Unix socket")
        self._network = network = self._given_network or LoopbackNetwork()
        self._resources.callback(network.release)
        self.servers = _servers(network)
        self.mariadb = self._child(mariadb(self.directory / "mariadb", self.servers.mariadb, self._log("mariadb")))
        self.redis = self._child(redis(self.directory / "redis", self.servers.redis, self._log("redis")))
        host = network.address(SERVER_HOST)
        metrics = Endpoint(host, network.port(host, 8001))
        self.manager = self._server("manager", programs.manager, manager_config(self.directory, self.servers))
        config = scheduler_config(self.directory, self.servers, metrics)
        self.scheduler = self._server("scheduler", programs.scheduler, config)
        self.api = Manager(self.manager_url)
        self._resources.callback(self.api.close)
        daemons, seeds = self._counts
        self.seeds = [
            self._daemon(programs, f"seed-{number + 1}", FIRST_SEED + number, seed=True) for number in range(seeds)
        ]
        self.daemons = [
            self._daemon(programs, f"daemon-{number + 1}", FIRST_DAEMON + number, seed=False)
            for number in range(daemons)
        ]

    def _start_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "databases", self._start_databases
        yield "manager", self._start_new_manager
        yield "scheduler", self.start_scheduler
        yield "daemons", self._start_daemons

    def _start_databases(self) -> None:
        self.redis.start()
        install_mariadb(self.directory / "mariadb")
        self.mariadb.start()
        wait_for_redis(self.redis, self.servers.redis)
        wait_for_mariadb(self.mariadb, self.servers.mariadb)

    def _start_new_manager(self) -> None:
        self.start_manager()
        self.token = self.api.token = self.api.create_token("modelswarm")

    def _start_daemons(self) -> None:
        for daemon in (*self.seeds, *self.daemons):
            daemon.launch()
        # A daemon announces itself to the scheduler before it opens its socket. The manager never hears of a seed.
        for daemon in (*self.seeds, *self.daemons):
            daemon.wait_ready()

    def _server(self, name: str, program: Path, config: Mapping[str, object]) -> Child:
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
        flags: list[str | Path] = ["--config", path, "--console"]
        return self._child(Child(name, [program, *flags], log=self._log(name), cwd=self.directory, env=ENVIRONMENT))

    def _daemon(self, programs: Programs, name: str, host: int, *, seed: bool) -> Daemon:
        address = self._network.address(host)
        usual = DaemonPorts()
        ports = DaemonPorts(**{field: self._network.port(address, getattr(usual, field)) for field in usual.__slots__})
        daemon = Daemon(
            self.directory / name,
            programs,
            self.servers,
            name=name,
            address=address,
            ports=ports,
            seed=seed,
            options=self._seed_options if seed else self._options,
        )
        self._child(daemon.child, host)
        return daemon

    def _child(self, child: Child, host: int = SERVER_HOST) -> Child:
        child.start_through(self._network.wrapper(host))
        self._children.append(child)
        return child

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _wait(self, child: Child, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not ready():
            if not child.running:
                raise child.failure("ended during start-up")
            if time.monotonic() > deadline:
                raise child.failure(f"not ready in {READY_TIMEOUT:.0f} s")
            time.sleep(POLL_INTERVAL)


def _servers(network: StackNetwork) -> Servers:
    host = network.address(SERVER_HOST)
    mariadb, redis, manager, manager_grpc, scheduler = (
        Endpoint(host, network.port(host, port)) for port in (3306, 6379, 8080, 65003, 8002)
    )
    return Servers(mariadb, redis, manager, manager_grpc, scheduler)


def _all_active(items: Sequence[Mapping[str, object]], count: int) -> bool:
    return len([item for item in items if item.get("state") == "active"]) >= count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.dragonfly.stack", description="Run a Dragonfly on loopback.")
    parser.add_argument("--daemons", type=int, default=2, help="how many daemons of ordinary nodes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--directory", type=Path, help="keep state and logs in this new or empty directory")
    options = parser.parse_args()
    interrupt_on_stop_signals()
    try:
        stack = DragonflyStack(daemons=options.daemons, seeds=options.seeds, directory=options.directory)
        with stack:
            timings = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in stack.timings.items())
            print(f"started: {timings}\nmanager {stack.manager_url}\ntoken {stack.token}", flush=True)
            for daemon in (*stack.seeds, *stack.daemons):
                print(f"{daemon.name} {daemon.address} {daemon.socket}", flush=True)
            while True:
                signal.pause()
    except KeyboardInterrupt:
        return 0
    except (BinaryUnavailable, PackagesMissing, StartupFailed, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
