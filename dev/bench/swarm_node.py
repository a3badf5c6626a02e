"""One node of the swarm benchmark, a process in a namespace: ``python -m dev.bench.swarm_node PLAN NAME RESULT``."""

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

from dev.bench.swarm_desk import Desk, decode, encode, ranges
from dev.bench.swarm_plan import NodeResult, Plan, Program
from modelswarm.agent.swarm import Event, Part, Peer, Swarm, SwarmSettings, Window, WindowDone, piece_length

TORRENT_PORT, DESK_PORT = 6881, 8081
READ_BYTES = 1 << 18


class Node:
    def __init__(self, plan: Plan, name: str, http: aiohttp.ClientSession) -> None:
        self.plan = plan
        self.name = name
        self.http = http
        self.segments = ranges(plan)
        self.directory = plan.directory / name
        self.desk = f"http://{plan.nodes[0][1]}:{DESK_PORT}"
        self.windows: dict[str, int] = {}  # the bytes of each that others have read
        self.troubles: list[str] = []
        self.here = 0
        self.complete = asyncio.Event()
        self._files: dict[str, int] = {}
        settings = SwarmSettings(
            node=name,
            host=dict(plan.nodes)[name],
            port=TORRENT_PORT,
            secret=b"benchmark",
            disk_threads=plan.disk_threads,
        )
        self.swarm = Swarm(settings, report=self._hear)

    def prepare(self) -> None:
        self.directory.mkdir(parents=True)
        for name, size in self.plan.files.items():
            self._files[name] = os.open(self.directory / name, os.O_RDWR | os.O_CREAT)
            os.ftruncate(self._files[name], size)

    async def enter(self) -> float:
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                return float((await self._post("enter", {}))["began"])
            await asyncio.sleep(0.1)

    async def read_origin(self) -> None:
        """Read what the desk gives out until there is nothing left, and publish it."""
        published: list[tuple[int, str]] = []
        while True:
            given = await self._post("publish", {"published": published, "wants": 1})
            if not given["segments"]:
                return
            published = []
            for number in given["segments"]:
                segment = self.segments[number]
                hashes = await self._download(segment.file, segment.offset, segment.length)
                published.append((number, encode(hashes)))

    async def read_everything(self) -> None:
        """Without a swarm: four files at a time, as a loader does."""
        limit = asyncio.Semaphore(4)

        async def read(name: str, size: int) -> None:
            async with limit:
                await self._download(name, 0, size)

        async with asyncio.TaskGroup() as group:
            for name, size in self.plan.files.items():
                group.create_task(read(name, size))

    async def join_windows(self) -> None:
        peers = [Peer(name, address, TORRENT_PORT) for name, address in self.plan.nodes]
        cursor = 0
        while True:
            async with self.http.get(f"{self.desk}/news", params={"cursor": cursor}) as response:
                news = await response.json()
            cursor = news["cursor"]
            for entries in news["windows"]:
                self._join(entries, peers)

    def _join(self, entries: list[tuple[int, str, str]], peers: list[Peer]) -> None:
        file = self.segments[entries[0][0]].file
        size = self.plan.files[file]
        parts, have, wanted = [], set[int](), 0
        for number, hashes, publisher in entries:
            segment = self.segments[number]
            parts.append(Part(segment.offset, segment.length, decode(hashes)))
            if publisher == self.name:
                first = segment.offset // piece_length(size)
                have.update(range(first, first + len(parts[-1].hashes) // 20))
            else:
                wanted += segment.length
        window = Window(file, size, piece_length(size), tuple(parts))
        self.windows[window.id] = wanted
        holders = {publisher for _, _, publisher in entries}
        self.swarm.share(window, self.directory / file, content="model", have=have, peers=peers, holders=holders)

    async def leave(self) -> None:
        await self._post("leave", {})

    async def _download(self, file: str, offset: int, length: int) -> bytes:
        piece, at, hashes = piece_length(self.plan.files[file]), offset, b""
        state, filled = hashlib.sha1(), 0
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        async with self.http.get(f"{self.plan.origin}/{file}", headers=headers) as response:
            response.raise_for_status()
            async for chunk in response.content.iter_any():
                at += os.pwrite(self._files[file], chunk, at)
                view = memoryview(chunk)
                while view:
                    part = view[: piece - filled]
                    state.update(part)
                    filled, view = filled + len(part), view[len(part) :]
                    if filled == piece:
                        hashes, state, filled = hashes + state.digest(), hashlib.sha1(), 0
        if at != offset + length:
            raise RuntimeError(f"{file}: {at - offset} of {length} bytes")
        self._count(length)
        return hashes + state.digest() if filled else hashes

    def _hear(self, event: Event) -> None:
        if isinstance(event, WindowDone):
            self._count(self.windows[event.window_id])
        else:
            self.troubles.append(str(event))

    def _count(self, length: int) -> None:
        self.here += length
        if self.here >= self.plan.total:
            self.complete.set()

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self.http.post(f"{self.desk}/{path}", json={"node": self.name, **body}) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer


async def run(plan: Plan, name: str) -> NodeResult:
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=READ_BYTES)
        )
        node = Node(plan, name, http)
        node.prepare()
        if name == plan.nodes[0][0]:
            desk = await Desk(plan, node.segments).serve(plan.nodes[0][1], DESK_PORT)
            stack.push_async_callback(desk.cleanup)
        if plan.program is Program.SWARM:
            await node.swarm.start()
            stack.push_async_callback(node.swarm.stop)
        began = await node.enter()
        cpu, loop_cpu = _cpu(), time.thread_time()
        async with asyncio.TaskGroup() as group:
            if plan.program is Program.SWARM:
                news = group.create_task(node.join_windows())
                for _ in range(plan.streams):
                    group.create_task(node.read_origin())
            else:
                news = group.create_task(node.read_everything())
            await node.complete.wait()
            finished = asyncio.get_running_loop().time()
            await node.leave()
            news.cancel()
        cpu, loop_cpu = _cpu() - cpu, time.thread_time() - loop_cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return NodeResult(name, began, finished, cpu, loop_cpu, memory, len(node.windows), node.troubles)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    plan, name, result = Plan.load(Path(sys.argv[1]).read_text()), sys.argv[2], Path(sys.argv[3])
    result.write_text(json.dumps(asdict(asyncio.run(run(plan, name)))))


if __name__ == "__main__":
    main()
