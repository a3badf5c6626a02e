"""The swarm of one node of a company (``company``), played: windows as in ``fleet``, and whole models."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelswarm.agent.swarm import Counters, ModelDone, ModelStalled, Peer, SwarmSettings, Whole, WindowStalled
from modelswarm.agent.swarm.recheck import pieces_of
from tests.unit.agent.fleet import Air, Swarm

STALL_SECONDS = 15.0
STEP = 0.1
"""Seconds that a file of a whole model takes from node to node."""
SeederOf = Callable[[str, str, Collection[str]], Path | None]
"""Where one of some hosts, if it can be reached, has a file, by content and path in it; None if nowhere."""


@dataclass(slots=True)
class _Model:
    whole: Whole
    paths: Mapping[str, Path]
    have: set[str]
    told: bool
    moved_at: float
    hosts: set[str] = field(default_factory=set)
    """To whom it connects; ``others``: and to whom as well when it stands still."""
    others: set[str] = field(default_factory=set)


class CompanySwarm(Swarm):
    """One node's: windows as in ``fleet``, and whole models, file by file. Stalls are told."""

    def __init__(self, air: Air, node: str, seeder_of: SeederOf) -> None:
        super().__init__(air, node)
        self.settings = SwarmSettings(node, stall_seconds=STALL_SECONDS, secret=b"x" * 16)
        self.counters = Counters()
        self.models: dict[str, _Model] = {}
        self.moved = 0
        """Bytes of whole models that came."""
        self._seeder_of = seeder_of

    def seed_model(self, whole: Whole, paths: Mapping[str, Path]) -> None:
        self.models.setdefault(whole.content_id, _Model(whole, paths, set(paths), True, 0.0))

    def fetch_model(
        self,
        whole: Whole,
        paths: Mapping[str, Path],
        *,
        have: Collection[str],
        peers: Collection[Peer],
        holders: Iterable[str] = (),
        resume: Path | None = None,
    ) -> None:
        pieces = pieces_of(resume.read_bytes() if resume is not None and resume.exists() else None, whole)
        earlier = [path for index, path in whole.files if all(pieces[number] for number in whole.pieces_of(index))]
        now = asyncio.get_running_loop().time()
        hosts, others = {peer.host for peer in peers if peer.node in holders}, {peer.host for peer in peers}
        self.models[whole.content_id] = _Model(whole, paths, {*have, *earlier}, False, now, hosts, others)

    def add_peers(self, torrent: str, peers: Iterable[Peer]) -> None:
        if torrent in self.models:
            self.models[torrent].others |= {peer.host for peer in peers}
        else:
            super().add_peers(torrent, peers)

    async def save(self) -> None:
        """What came is on the disk, where it is found again."""

    def drop(self, torrent: str) -> None:
        super().drop(torrent)
        self.models.pop(torrent, None)

    async def run(self) -> None:
        """Bring whole models, and notice what stands still."""
        stalled: dict[str, float] = {}
        while True:
            await asyncio.sleep(STEP)
            now = asyncio.get_running_loop().time()
            for content, model in list(self.models.items()):
                if not model.told:
                    self._bring(content, model, now)
            wanted = {identity for identity, entry in self.entries.items() if not entry.told}
            stalled = {identity: stalled.get(identity, now) for identity in wanted}
            for identity in [each for each, since in stalled.items() if now - since >= STALL_SECONDS]:
                stalled[identity] = now
                missing = set(self.entries[identity].window.piece_numbers()) - self.entries[identity].have
                self.report(WindowStalled(identity, 1, tuple(sorted(missing))))

    def _bring(self, content: str, model: _Model, now: float) -> None:
        for path in sorted(model.paths.keys() - model.have):
            source = self._seeder_of(content, path, model.hosts)
            if source is None:
                continue
            data = source.read_bytes()
            with model.paths[path].open("r+b") as file:
                file.write(data)
            model.have.add(path)
            model.moved_at = now
            self.moved += len(data)
            self.counters.add(content, uploaded=0, downloaded=len(data))
            return
        if model.have >= model.paths.keys():
            model.told = True
            self.report(ModelDone(content))
        elif now - model.moved_at >= STALL_SECONDS:
            model.moved_at = now
            model.hosts |= model.others
            self.report(ModelStalled(content, 0))
