"""``dfget``, Dragonfly's own program: asks the node's dfdaemon for files that anybody may have.

It gets the URL, tag and application with which the file was preheated, or it would arrive at another task id.

There is never a token: command lines are readable, and Dragonfly hands what it has to whoever knows the URL. The
environment is not handed on either: it may hold secrets, and variables that change what ``dfget`` asks for.

By itself ``dfget`` has every node read small files from the origin, preheated or not. It is told not to, in the one
way that versions which cannot be told do not stumble over: by a variable.
"""

import asyncio
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

from modelswarm.loader.dfdaemon import Why, shown
from modelswarm.loader.outcome import Unserved
from modelswarm.loader.settings import DfdaemonSettings

_POLICY = {"DFGET_SCHEDULING_POLICY": "always"}
_HANDED_ON = ("PATH", "HOME", "TMPDIR")
_KEPT_OUTPUT = 8192
_REAP_SECONDS = 5.0

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TELLING = ("Bad Status Code:", "Bad Code:", "Message:")
_HEADLINE = "Failed!"


class Dfget:
    """A writer (``dfdaemon.Writer``)."""

    name = "dfget"

    def __init__(self, settings: DfdaemonSettings) -> None:
        self._settings = settings

    def command(self, url: str, size: int, output: Path) -> list[str]:
        """The command line."""
        settings = self._settings
        identity = [f"--tag={settings.tag}"] if settings.tag else []
        identity += [f"--application={settings.application}"] if settings.application else []
        return [
            settings.program,
            "--transfer-from-dfdaemon",
            "--no-progress",
            f"--endpoint={settings.socket}",
            f"--timeout={int(settings.limit(size)) + 1}s",
            *identity,
            f"--output={output}",
            url,
        ]

    async def write(self, url: str, size: int, output: Path) -> None:
        """Return when ``dfget`` has ended well; otherwise it is dead and ``Unserved`` says why."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(url, size, output),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=_POLICY | {name: os.environ[name] for name in _HANDED_ON if name in os.environ},
                start_new_session=True,
            )
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise Unserved(Why.PROGRAM_MISSING, f"{self._settings.program} cannot be run: {why}") from error
        assert process.stdout is not None
        heard = bytearray()
        listener = asyncio.create_task(_listen(process.stdout, heard))
        try:
            await self._watch(process, output, size)
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
            if now - began >= settings.limit(size):
                raise Unserved(Why.TOO_SLOW, f"dfget was not done after {settings.limit(size):.0f} s")


def complaint(output: bytes, code: int | None) -> str:
    """What ``dfget`` said, in one short line, without the headers and URLs that it prints (a CDN's are signed)."""
    told: list[str] = []
    for line in _STYLE.sub("", output.decode(errors="replace")).splitlines():
        text = " ".join(line.split())
        if text.startswith(("Header:", "Details:")):
            break
        if text.startswith(_TELLING) or text.endswith(_HEADLINE):
            told.append(text.removeprefix("Message:").strip(" ,"))
    ended = f"dfget was killed by signal {-code}" if code is not None and code < 0 else f"dfget ended with code {code}"
    words = shown(", ".join(told))
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


def _written(path: Path) -> int | None:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return None
