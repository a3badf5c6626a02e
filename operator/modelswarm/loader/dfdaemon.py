"""The Dragonfly leg: the node's dfdaemon, asked by its own program ``dfget``, for files that anybody may have.

``dfget`` gets the URL, tag and application with which the file was preheated, or it would arrive at another task id. It
writes beside the part file; what it has written counts when its size is right, and then only as what is to be verified:
``dfget`` checks no digest in this mode, and older versions end well with holes in the file.

There is never a token: command lines are readable, and Dragonfly hands what it has to whoever knows the URL. The
environment is not handed on either: it may hold secrets, and variables that change what ``dfget`` asks for.
"""

import asyncio
import os
import re
import signal
import stat
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from modelswarm.content.manifest import ManifestFile
from modelswarm.loader.leg import Sink
from modelswarm.loader.outcome import Unserved
from modelswarm.loader.settings import DfdaemonSettings
from modelswarm.loader.threads import in_thread
from modelswarm.loader.tree import BESIDE

SMALL = 4 << 20
"""Files up to this size go to the origin: a daemon fetches them from there anyway, preheated or not."""
_KEPT_OUTPUT = 8192
_REAP_SECONDS = 5.0
_MOST_WORDS = 200

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^\s/?#@\"']*@)?([^\s/?#\"'()<>\]]*)[^\s\"'()<>\]]*")
_TELLING = ("Bad Status Code:", "Bad Code:", "Message:")
_HEADLINE = "Failed!"


class Why(StrEnum):
    """Why a file does not come from the daemon. Bytes that turn out wrong are found by whoever verifies them."""

    SOCKET_MISSING = "SocketMissing"
    PROGRAM_MISSING = "ProgramMissing"
    FAILED = "DfgetFailed"
    STALLED = "Stalled"
    TOO_SLOW = "TooSlow"
    WRONG_SIZE = "WrongSize"


class Dfdaemon:
    """``url_of`` gives a file's address at the hub, at the pinned commit, as it was preheated."""

    name = "dfdaemon"
    splittable = False

    def __init__(self, settings: DfdaemonSettings, url_of: Callable[[str], str]) -> None:
        self._settings = settings
        self._url_of = url_of

    def serves(self, file: ManifestFile) -> bool:
        """Not what is small, and not what could not be verified."""
        return file.size > SMALL and file.digest is not None

    async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
        socket = self._settings.socket
        if not _is_socket(socket):
            raise Unserved(Why.SOCKET_MISSING, f"there is no socket {socket}: no dfdaemon on this node")
        output = sink.path.with_name(sink.path.name + BESIDE)
        await in_thread(output.unlink, missing_ok=True)
        try:
            await self._run(file, output)
            size = _size(output)
            if size != file.size:
                raise Unserved(Why.WRONG_SIZE, f"dfget wrote {size} bytes instead of {file.size}")
            output.replace(sink.path)
        finally:
            await in_thread(output.unlink, missing_ok=True)
        await sink.filled()

    def limit(self, size: int) -> float:
        """How long a file of ``size`` bytes may take, in seconds."""
        return self._settings.stall + size / self._settings.slowest

    def command(self, file: ManifestFile, output: Path) -> list[str]:
        """The command line of ``dfget``."""
        settings = self._settings
        identity = [f"--tag={settings.tag}"] if settings.tag else []
        identity += [f"--application={settings.application}"] if settings.application else []
        return [
            settings.program,
            "--transfer-from-dfdaemon",
            "--no-progress",
            f"--endpoint={settings.socket}",
            f"--timeout={int(self.limit(file.size)) + 1}s",
            *identity,
            f"--output={output}",
            self._url_of(file.path),
        ]

    async def _run(self, file: ManifestFile, output: Path) -> None:
        """Return when ``dfget`` has ended well; otherwise it is dead and ``Unserved`` says why."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(file, output),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise Unserved(Why.PROGRAM_MISSING, f"{self._settings.program} cannot be run: {why}") from error
        assert process.stdout is not None
        heard = bytearray()
        listener = asyncio.create_task(_listen(process.stdout, heard))
        try:
            await self._watch(process, output, file.size)
        finally:
            await _end(process)
            await asyncio.wait([listener], timeout=1.0)
            listener.cancel()
        if process.returncode != 0:
            raise Unserved(Why.FAILED, complaint(bytes(heard), process.returncode))

    async def _watch(self, process: asyncio.subprocess.Process, output: Path, size: int) -> None:
        """Return when it has ended. The file is as long as it will be from the start; its time shows progress."""
        settings, loop = self._settings, asyncio.get_running_loop()
        ended = loop.create_task(process.wait())
        began = moved = loop.time()
        seen: int | None = None
        while True:
            await asyncio.wait([ended], timeout=min(settings.stall / 4, 1.0))
            if ended.done():
                return
            now, written = loop.time(), _written(output)
            if written != seen:
                seen, moved = written, now
            if now - moved >= settings.stall:
                raise Unserved(Why.STALLED, f"dfget wrote nothing for {settings.stall:.0f} s")
            if now - began >= self.limit(size):
                raise Unserved(Why.TOO_SLOW, f"dfget was not done after {self.limit(size):.0f} s")


def complaint(output: bytes, code: int | None) -> str:
    """What ``dfget`` said, in one short line, without the headers and URLs that it prints (a CDN's are signed)."""
    told: list[str] = []
    for line in _STYLE.sub("", output.decode(errors="replace")).splitlines():
        text = " ".join(line.split())
        if text.startswith(("Header:", "Details:")):
            break
        if text.startswith(_TELLING) or text.endswith(_HEADLINE):
            told.append(_URL.sub(r"\1", text.removeprefix("Message:").strip(" ,")))
    ended = f"dfget was killed by signal {-code}" if code is not None and code < 0 else f"dfget ended with code {code}"
    words = ", ".join(told)
    if len(words) > _MOST_WORDS:
        words = words[: _MOST_WORDS - 3] + "..."
    return f"{ended}: {words}" if words else ended


async def _listen(stream: asyncio.StreamReader, heard: bytearray) -> None:
    """Keep the beginning and throw the rest away, so that the program never waits for a reader."""
    while data := await stream.read(_KEPT_OUTPUT):
        heard += data[: _KEPT_OUTPUT - len(heard)]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it with everything that it has started, unless it has ended, and wait for that."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # Not for ever: a process that waits for a broken disk cannot be killed.
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _REAP_SECONDS)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False


def _size(path: Path) -> int:
    """0 for what is not there or not a file."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def _written(path: Path) -> int | None:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return None
