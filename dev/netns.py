"""Several machines on this one: a network namespace for each node, with links of a known speed between them.

    with Network(["origin", "n1", "n2"], rates={"origin": 200 * MBIT, "n1": 200 * MBIT}) as net:
        server = net.popen("origin", [sys.executable, "-m", "http.server", "80"], log=scratch / "origin.log")
        net.run("n1", ["curl", "-sf", f"http://{net.address('origin')}/"])
        net.traffic()["n1"].received

The nodes and the bridge between them are all inside namespaces of their own: nothing of this network is visible on
the host, and nothing of the host (no default route, no DNS) from inside. Linux, root and iproute2 are needed; whoever
lacks them gets ``NetnsUnavailable``.

Everything goes when the block ends: processes, namespaces, and with these the links. What a killed run left is
removed by the next one.
"""

import atexit
import contextlib
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from dev import netns_commands as commands
from dev.netns_commands import Names, Traffic
from dev.process import Child

__all__ = ["MBIT", "NetnsUnavailable", "Network", "Traffic", "require_netns"]

MBIT = 1_000_000
"""Bits per second."""
COMMAND_TIMEOUT = 30.0
# Where ip keeps the names.
_NAMES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_serials = itertools.count(1)
_open: set["Network"] = set()


class NetnsUnavailable(RuntimeError):
    """This machine or user cannot make network namespaces. The message is one line that says what is missing."""


def require_netns() -> None:
    """Raises NetnsUnavailable if something obvious is missing. What the kernel lacks shows when it is asked."""
    if sys.platform != "linux":
        raise NetnsUnavailable("network namespaces need Linux")
    programs = all(shutil.which(program) for program in ("ip", "tc"))
    if os.geteuid() != 0 or not programs:
        raise NetnsUnavailable("network namespaces need root and iproute2 (apt-get install iproute2)")
    if shutil.which("nsenter") is None:
        raise NetnsUnavailable("network namespaces need nsenter (apt-get install util-linux)")


class Network:
    """Nodes on one bridge. ``rates``: bits per second, each way, by node; a node without one is not limited.

    Two processes on one node share its link and its loopback. Files, process ids and users are those of the host.
    """

    def __init__(self, nodes: Sequence[str], *, rates: Mapping[str, int | None] | None = None) -> None:
        self.nodes = tuple(nodes)
        self._wanted = dict(rates or {})
        commands.check_nodes(self.nodes, self._wanted)
        self._names = Names(os.getpid(), commands.start_time() or 0, next(_serials))
        self._rates: dict[str, int] = {}
        self._children: list[Child] = []
        self.has_ipv6 = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Raises NetnsUnavailable."""
        require_netns()
        remove_abandoned()
        self.has_ipv6 = Path("/proc/sys/net/ipv6").exists()
        _open.add(self)
        try:
            for command in commands.create_bridge(self._names):
                _execute(command)
            for index, node in enumerate(self.nodes):
                for command in commands.create_node(self._names, node, index, ipv6=self.has_ipv6):
                    _execute(command)
            for node, rate in self._wanted.items():
                self.shape(node, rate)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the processes, the newest first, and remove the namespaces. Harmless if that has been done."""
        for child in reversed(self._children):
            child.stop()
        self._children.clear()
        self._rates.clear()
        for name in (*map(self._names.of, self.nodes), self._names.bridge):
            _remove(name)
        _open.discard(self)

    # Addresses

    def address(self, node: str) -> str:
        return commands.address(self.nodes.index(node))

    def address6(self, node: str) -> str:
        """Only if ``has_ipv6``."""
        return commands.address6(self.nodes.index(node))

    # Processes

    def command(self, node: str, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs ``argv`` on the node; it becomes that program, with the same process id."""
        # Not "ip netns exec", which also mounts another /sys, without the control groups. The full path, because Child
        # looks for no program.
        return [shutil.which("nsenter") or "nsenter", f"--net={_NAMES / self._namespace(node)}", "--", *map(str, argv)]

    def run(
        self,
        node: str,
        argv: Sequence[str | Path],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the node and wait. ``env`` is added to the environment.

        Raises subprocess.TimeoutExpired, and with ``check`` CalledProcessError.
        """
        return subprocess.run(
            self.command(node, argv),
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    def popen(
        self,
        node: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Child:
        """Start a program on the node; its output goes to ``log``. It ends with the network at the latest."""
        child = Child(name or f"{Path(argv[0]).name} on {node}", self.command(node, argv), log=log, env=env, cwd=cwd)
        self._children.append(child)
        child.start()
        return child

    @contextlib.contextmanager
    def entered(self, node: str) -> Iterator[None]:
        """The calling thread is on the node while the block lasts.

        Sockets and threads stay where they were made, so a client or a server thread that was started in the block
        goes on working on the node after it.
        """
        with open("/proc/thread-self/ns/net", "rb") as before, (_NAMES / self._namespace(node)).open("rb") as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(before.fileno())

    # Links

    def shape(self, node: str, rate: int | None) -> None:
        """Change the speed of the node's link, bits per second each way; None: as fast as the machine."""
        commands.check_nodes(self.nodes, {node: rate})
        for command in commands.shape(self._names, node, rate, shaped_before=node in self._rates):
            _execute(command)
        self._rates.pop(node, None)
        if rate is not None:
            self._rates[node] = rate

    def unplug(self, node: str) -> None:
        """Pull the node's cable: its packets vanish, and its connections notice only by their own timeouts."""
        _execute(commands.plug(self._names, self._known(node), up=False))

    def plug(self, node: str) -> None:
        _execute(commands.plug(self._names, self._known(node), up=True))

    def traffic(self) -> dict[str, Traffic]:
        """Bytes on every node's link so far."""
        return commands.parse_traffic(_execute(commands.read_traffic(self._names)))

    def rate(self, node: str) -> int | None:
        """Bits per second, each way; None where nothing limits it."""
        return self._rates.get(self._known(node))

    def _known(self, node: str) -> str:
        if node not in self.nodes:
            raise ValueError(f"no such node: {node}")
        return node

    def _namespace(self, node: str) -> str:
        return self._names.of(self._known(node))


def remove_abandoned() -> None:
    """Remove the namespaces of processes that are gone, and what still runs in them."""
    names = [entry.name for entry in _NAMES.iterdir()] if _NAMES.is_dir() else []
    for name in commands.abandoned(names, alive=commands.start_times()):
        _remove(name)


def _execute(command: Sequence[str]) -> str:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT)
    if result.returncode:
        reason = (result.stderr or result.stdout).strip().splitlines()
        raise NetnsUnavailable(f"{' '.join(command)}: {reason[0] if reason else f'ended with {result.returncode}'}")
    return result.stdout


def _remove(name: str) -> None:
    if not (_NAMES / name).exists():
        return
    for _ in range(3):  # whatever these have started in the meantime
        pids = _execute(("ip", "netns", "pids", name)).split()
        for pid in {int(pid) for pid in pids} - {os.getpid()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            break
    # Somebody else who cleans up may be faster.
    with contextlib.suppress(NetnsUnavailable):
        _execute(("ip", "netns", "delete", name))


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise NetnsUnavailable(f"cannot enter a network namespace: {os.strerror(number)}")


@atexit.register
def _close_all() -> None:
    for network in list(_open):
        # After a fork the networks are the parent's.
        if network._names.pid == os.getpid():
            network.close()
