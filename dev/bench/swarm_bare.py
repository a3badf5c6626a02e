"""One node of the unshaped benchmark: ``python -m dev.bench.swarm_bare PLAN NUMBER``. Node 0 has everything.

It says that it is ready, begins when it is told, and says how it went. The three ways do the same work: what arrives is
hashed, and is in the file at the end.
"""

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

import libtorrent as lt

from modelswarm.agent.swarm import (
    Event,
    Part,
    Peer,
    Swarm,
    SwarmSettings,
    Window,
    make_metainfo,
    piece_hashes,
    piece_length,
    read_metainfo,
)
from modelswarm.agent.swarm.bencoding import Dictionary, encode
from modelswarm.agent.swarm.settings import DISK_THREADS
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind

SECRET = b"benchmark"
CONTENT = "c" * 64
PORT = 6881
_ALONE: dict[str, str | int | bool] = {
    "alert_mask": int(lt.alert_category.status | lt.alert_category.storage),
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # Between machines of one network uTP is slow: TCP as ours.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
}
Done = Callable[[], None]


class Way(StrEnum):
    """How the bytes travel."""

    BARE = "bare"
    """One torrent in a libtorrent session as it is by default, on TCP, without what finds peers."""
    WINDOWS = "windows"
    """As files in flight travel: a window per file."""
    MODEL = "model"
    """As complete models travel to late comers: one BitTorrent v2 torrent."""


@dataclass(frozen=True, slots=True)
class BarePlan:
    """``hosts``: addresses of the nodes. ``made``: the directory with torrents and hashes; ``seed``: with the files."""

    way: Way
    hosts: list[str]
    files: dict[str, int]
    seed: Path
    made: Path
    scratch: Path
    disk_threads: int = DISK_THREADS

    def dump(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def load(cls, text: str) -> "BarePlan":
        told = json.loads(text)
        paths = {key: Path(told[key]) for key in ("seed", "made", "scratch")}
        return cls(**{**told, **paths, "way": Way(told["way"])})

    def manifest(self) -> Manifest:
        files = tuple(ManifestFile(name, size, None) for name, size in sorted(self.files.items()))
        return Manifest(Origin(OriginKind.S3, "bench"), None, files)


@dataclass(frozen=True, slots=True)
class BareResult:
    """``finished``: on the machine's monotonic clock; ``threads``: CPU seconds by kind of thread."""

    finished: float
    cpu: float
    system: float
    threads: dict[str, float]


@contextlib.asynccontextmanager
async def bare(plan: BarePlan, number: int, done: Done) -> AsyncIterator[Done]:
    """``done`` is called when everything is in the files. Yields what begins it."""
    params = lt.load_torrent_file(str(plan.made / "bare.torrent"))
    params.save_path = str(plan.seed.parent if number == 0 else plan.scratch)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    params.peers = [(host, PORT) for host in plan.hosts if host != plan.hosts[number]]
    if number == 0:
        params.flags |= lt.torrent_flags.seed_mode
    else:
        params.renamed_files = {index: str(plan.scratch / name) for index, name in enumerate(sorted(plan.files))}
    session = lt.session(cast("lt.settings_pack", {**_ALONE, "listen_interfaces": f"{plan.hosts[number]}:{PORT}"}))
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)

    def hear() -> None:
        with contextlib.suppress(BlockingIOError):
            ours.recv(4096)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_finished_alert):
                alert.handle.flush_cache()
            elif isinstance(alert, lt.cache_flushed_alert):
                done()

    loop = asyncio.get_running_loop()
    loop.add_reader(ours, hear)
    session.set_alert_fd(theirs.fileno())

    def begin() -> None:
        session.async_add_torrent(params)

    if number == 0:
        begin()
    try:
        yield begin
    finally:
        loop.remove_reader(ours)
        session.set_alert_fd(-1)


@contextlib.asynccontextmanager
async def ours(plan: BarePlan, number: int, done: Done) -> AsyncIterator[Done]:
    missing = set(plan.files) if plan.way is Way.WINDOWS else {CONTENT}

    def hear(event: Event) -> None:
        missing.pop()
        if not missing:
            done()

    swarm = Swarm(_settings(plan, number), report=hear)
    await swarm.start()
    directory = plan.seed if number == 0 else plan.scratch
    paths = {name: directory / name for name in plan.files}
    peers = [Peer(f"node-{index}", host, PORT) for index, host in enumerate(plan.hosts)]

    def begin() -> None:
        if plan.way is Way.MODEL:
            whole = read_metainfo((plan.made / "model.torrent").read_bytes(), plan.manifest(), CONTENT, SECRET)
            if number == 0:
                swarm.seed_model(whole, paths)
            else:
                swarm.fetch_model(whole, paths, have=(), peers=peers)
            return
        for name, size in plan.files.items():
            part = Part(0, size, (plan.made / f"{name}.sha1").read_bytes())
            window = Window(name, size, piece_length(size), (part,))
            have = frozenset(window.piece_numbers()) if number == 0 else frozenset[int]()
            swarm.share(window, paths[name], content=CONTENT, have=have, peers=peers, holders=["node-0"])

    if number == 0:
        begin()
    try:
        yield begin
    finally:
        await swarm.stop()


def _settings(plan: BarePlan, number: int) -> SwarmSettings:
    return SwarmSettings(
        node=f"node-{number}", host=plan.hosts[number], port=PORT, secret=SECRET, disk_threads=plan.disk_threads
    )


async def run(plan: BarePlan, number: int) -> BareResult:
    complete = asyncio.Event()
    for name, size in plan.files.items() if number else ():
        with (plan.scratch / name).open("wb") as file:
            file.truncate(size)
    way = bare if plan.way is Way.BARE else ours
    async with way(plan, number, complete.set) as begin:
        before, threads = _used(), _threads()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if number:
            begin()
            await complete.wait()
        finished = asyncio.get_running_loop().time()
        if number:
            print("done", flush=True)
        # The others may need what is here, and what is served costs as well.
        await asyncio.to_thread(sys.stdin.readline)
        used = [after - before for before, after in zip(before, _used(), strict=True)]
        spent = {kind: round(seconds - threads.get(kind, 0.0), 2) for kind, seconds in _threads().items()}
    return BareResult(finished, sum(used), used[1], spent)


def _used() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def _threads() -> dict[str, float]:
    """CPU seconds by kind of thread: the first one is Python's, and of the others the busiest is the network's."""
    python, others = 0.0, [0.0]
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            fields = (task / "stat").read_text().rpartition(") ")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            if int(task.name) == os.getpid():
                python = seconds
            else:
                others.append(seconds)
    return {"python": python, "network": max(others), "disk": sum(others) - max(others)}


def make(way: Way, seed: Path, files: dict[str, int], made: Path) -> None:
    """What the nodes have to know before they begin."""
    plan = BarePlan(way, [], files, seed, made, made)
    if way is Way.MODEL:
        (made / "model.torrent").write_bytes(make_metainfo(plan.manifest(), CONTENT, seed, SECRET))
        return
    if way is Way.WINDOWS:
        for name in files:
            with (seed / name).open("rb") as file:
                chunks = iter(lambda file=file: file.read(1 << 24), b"")  # type: ignore[misc]
                (made / f"{name}.sha1").write_bytes(b"".join(piece_hashes(chunk, 1 << 20) for chunk in chunks))
        return
    entries = [lt.create_file_entry(f"{seed.name}/{name}", size) for name, size in sorted(files.items())]
    torrent = lt.create_torrent(entries, 1 << 20, lt.create_torrent.v1_only)
    lt.set_piece_hashes(torrent, str(seed.parent))
    (made / "bare.torrent").write_bytes(encode(cast(Dictionary, torrent.generate())))


def main() -> None:
    plan, number = BarePlan.load(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    print(json.dumps(asdict(asyncio.run(run(plan, number)))), flush=True)


if __name__ == "__main__":
    main()
