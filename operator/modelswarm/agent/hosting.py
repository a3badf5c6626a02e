"""What this node tells others over the metainfo server: it coordinates, knows manifests, and has blobs and torrents."""

from collections.abc import Sequence
from pathlib import Path

from modelswarm.agent.messages import Answer, Report
from modelswarm.agent.metainfo.client import MetainfoClient
from modelswarm.agent.metainfo.desk import Desk
from modelswarm.agent.metainfo.routes import Model, Stats
from modelswarm.agent.seeding import Seeding
from modelswarm.agent.store import Store
from modelswarm.agent.swarm import Swarm
from modelswarm.content.manifest import Manifest
from modelswarm.errors import NotCoordinator


class Hosting:
    """Implements ``metainfo.routes.Contents``."""

    def __init__(self, store: Store, swarm: Swarm, seeding: Seeding) -> None:
        self.holders: dict[str, str] = {}
        """By content id: the URL of the coordinator, as far as this node knows."""
        self.manifests: dict[str, Manifest] = {}
        """By digest (hex)."""
        self.wanted: dict[str, str] = {}
        """Model hashes of all models that belong on this node, and their contents (empty: not known yet)."""
        self.bytes_sent = 0
        self._desks: dict[str, list[Desk]] = {}
        self._store = store
        self._swarm = swarm
        self._seeding = seeding

    def open_desk(self, content_id: str, desk: Desk) -> None:
        """This node coordinates a content. A task and a BaseModel may both lead to the same one: the latest answers."""
        self._desks.setdefault(content_id, []).append(desk)

    def close_desk(self, content_id: str, desk: Desk) -> None:
        desks = self._desks.get(content_id, [])
        if desk in desks:
            desks.remove(desk)
        if not desks:
            self._desks.pop(content_id, None)
        desk.close()

    def forget(self, content_id: str) -> None:
        """Nobody wants the content here any more."""
        self.holders.pop(content_id, None)
        self.manifests.pop(content_id, None)

    async def metainfo(self, model_hash: str) -> bytes | None:
        return await self._seeding.metainfo(model_hash)

    def stats(self) -> Stats:
        counters = self._swarm.counters
        return Stats(
            active_torrents=counters.torrents,
            total_bytes_uploaded=counters.total.uploaded + self.bytes_sent,
            total_bytes_downloaded=counters.total.downloaded,
            active_peers=counters.connections,
        )

    def models(self) -> Sequence[Model]:
        seeding = self._seeding.hashes
        return [Model(model, model in seeding) for model in sorted({*self.wanted, *seeding})]

    async def report(self, content_id: str, report: Report) -> Answer | None:
        if desks := self._desks.get(content_id):
            return await desks[-1].report(report)
        holder = self.holders.get(content_id)
        if holder is None and content_id not in self.manifests:
            return None
        raise NotCoordinator("this node does not coordinate the content", holder=holder)

    async def manifest(self, digest: str) -> Manifest | None:
        return self.manifests.get(digest) or self._store.manifest(digest)

    async def blob(self, key: str) -> Path | None:
        return self._store.blob(key)

    def sent(self, count: int) -> None:
        self.bytes_sent += count


class LocalFirst(MetainfoClient):
    """The client of this node's members: what it asks of its own node does not go through a socket."""

    own_url = ""
    hosting: Hosting | None = None

    async def report(self, url: str, content_id: str, report: Report) -> Answer:
        if self.hosting is None or url != self.own_url:
            return await super().report(url, content_id, report)
        answer = await self.hosting.report(content_id, report)
        if answer is None:
            raise NotCoordinator("nothing is known of the content", url=url)
        return answer
