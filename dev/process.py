"""Child processes that cannot outlive the program which started them.

Test runs get interrupted in every possible way: Ctrl-C, a CI time-out, ``SIGKILL`` of the runner. An etcd or an API
server left behind would hold memory and ports for days, so every child here is ended three times over: by its owner's
``stop()``, by ``atexit``, and (Linux only) by the kernel through ``PR_SET_PDEATHSIG`` when nothing of ours is left.
"""

import atexit
import collections
import contextlib
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import FrameType

LOOPBACK = "127.0.0.1"
RESERVED_PORTS = 200
"""That many, the latest ones, of those that ``free_port`` has given are kept from others."""
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Runs in the child between fork and exec. A separate interpreter instead of ``preexec_fn``, because Python code between
# fork and exec can deadlock in a program with threads, and a test runner has threads. The parent check closes the gap
# in which the parent dies before prctl (1 = PR_SET_PDEATHSIG) took effect.
_EXEC_TIED_TO_PARENT = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

_running: weakref.WeakSet["Child"] = weakref.WeakSet()


class StartupFailed(RuntimeError):
    """A child ended or stayed silent instead of becoming ready. The message carries the end of its log."""


class Child:
    """One program with its log file. ``start`` and ``stop`` may alternate any number of times; the log is appended to.

    The child leads a session of its own: Ctrl-C in a terminal reaches only us, and ``stop`` ends whatever it forked.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._argv = [str(argument) for argument in argv]
        self._cwd = cwd
        self._env = {**os.environ, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._wrapper: list[str] = []

    def start_through(self, wrapper: Sequence[str | Path]) -> None:
        """From now on it is started by another program, given by its full path, that becomes it: ``nsenter``."""
        self._wrapper = [str(argument) for argument in wrapper]

    def start(self) -> None:
        if self.running:
            raise RuntimeError(f"{self.name} is already running with pid {self.pid}")
        self._owner = os.getpid()
        launcher = [sys.executable, "-I", "-S", "-c", _EXEC_TIED_TO_PARENT, str(self._owner)]
        with self.log.open("ab") as log:
            self._process = _spawner().popen(
                [*launcher, *self._wrapper, *self._argv], cwd=self._cwd, env=self._env, log=log.fileno()
            )
        _running.add(self)

    @property
    def pid(self) -> int | None:
        """The process id of the last start, also after the process ended; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the last run, if that has ended; negative: the number of the signal that ended it."""
        return self._process.poll() if self._process else None

    def stop(self, grace: float = 0.0) -> None:
        """End the child and wait until it is gone. With ``grace`` seconds it gets SIGTERM first, else SIGKILL at once.

        Harmless when it has already ended, or when it was started by the process that this one was forked from.
        """
        process = self._process
        if process is None or self._owner != os.getpid():
            return
        if grace > 0 and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        if process.poll() is None:
            # Only while the leader is not reaped: afterwards the group id may belong to somebody else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _running.discard(self)

    def log_tail(self, lines: int = 15) -> str:
        try:
            text = self.log.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def failure(self, reason: str) -> StartupFailed:
        """The exception for ``reason``, with the end of the log."""
        return StartupFailed(f"{self.name}: {reason}; the end of {self.log}:\n{self.log_tail()}")

    def lost_port(self) -> bool:
        """Whether the child ended because somebody else took its port between the choice of the port and its bind."""
        return not self.running and "address already in use" in self.log_tail(50)


def free_port() -> int:
    """A loopback port that nobody listens on right now, and that no other program with this function is given while
    this one runs.

    Taken from below the kernel's range for outgoing connections. Inside that range a client which keeps dialling a
    stopped server can be given the server's own port as its source port; it then talks to itself, and the server
    cannot come back. A stranger may still be faster than our child, so callers retry when ``Child.lost_port()``.
    """
    # Not the shared generator: test tools seed it, and then parallel test processes would all choose the same ports.
    choice = random.SystemRandom()
    for _ in range(1000):
        port = choice.randint(20000, 29999)
        reservation = reserve(f"port-{port}")
        if reservation is None:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                reservation.close()
                continue
        _reserved.append(reservation)
        if len(_reserved) > RESERVED_PORTS:
            _reserved.popleft().close()
        return port
    raise RuntimeError("no free loopback port between 20000 and 29999")


_reserved: collections.deque[socket.socket] = collections.deque()
"""Of the ports chosen last, because a child that is started later binds its port many seconds after the choice."""


def reserve(what: str) -> socket.socket | None:
    """Hold a name until the socket is closed or this program ends; None while somebody else holds it. Names without a
    file belong to the network namespace, as ports do."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if sys.platform == "linux":
        try:
            name.bind(f"\0modelswarm-{what}")
        except OSError:
            name.close()
            return None
    return name


class _Spawner:
    """Starts children from one thread that lives as long as the process.

    The kernel sends the parent-death signal when the *thread* that forked ends. Started from a worker thread, a child
    would be killed as soon as that thread returned to nowhere.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._requests: queue.SimpleQueue[
            tuple[Future[subprocess.Popen[bytes]], list[str], Path | None, dict[str, str], int]
        ] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="dev-spawner", daemon=True).start()

    def popen(self, argv: list[str], *, cwd: Path | None, env: dict[str, str], log: int) -> subprocess.Popen[bytes]:
        future: Future[subprocess.Popen[bytes]] = Future()
        self._requests.put((future, argv, cwd, env, log))
        return future.result()

    def _serve(self) -> None:
        while True:
            future, argv, cwd, env, log = self._requests.get()
            try:
                process = subprocess.Popen(
                    argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            except OSError as error:
                future.set_exception(error)
            else:
                future.set_result(process)
            del future


_spawner_lock = threading.Lock()
_spawners: dict[int, _Spawner] = {}


def _spawner() -> _Spawner:
    # Children are in the network of the thread that starts them, so every network that we are in (dev.netns) has one.
    network = _network()
    with _spawner_lock:
        found = _spawners.get(network)
        if found is None or found.pid != os.getpid():  # a thread does not survive a fork
            found = _spawners[network] = _Spawner()
        return found


def _network() -> int:
    """Which network the calling thread is in."""
    try:
        return os.stat("/proc/thread-self/ns/net").st_ino
    except OSError:
        return 0


@atexit.register
def _stop_all() -> None:
    for child in list(_running):
        child.stop()


def interrupt_on_stop_signals() -> None:
    """From now on a signal that asks this program to stop raises KeyboardInterrupt in its main thread, once."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in _STOP_SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the clean-up
    raise KeyboardInterrupt
