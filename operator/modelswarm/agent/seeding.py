"""Complete contents: the whole-model torrent that serves late comers, and how a late comer gets one.

No coordinator and no Lease are needed for it. A node takes the metainfo from a peer that has it, rather than reading
all files again for its hashes; what a peer says there is checked against the manifest, and the files against theirs.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelswarm.agent.metainfo.client import MetainfoClient
from modelswarm.agent.peers import Discovery, PeerAddress
from modelswarm.agent.store import Filling, Store
from modelswarm.agent.swarm import (
    Event,
    ModelDone,
    ModelStalled,
    Peer,
    Swarm,
    TorrentFailed,
    Whole,
    make_metainfo,
    read_metainfo,
)
from modelswarm.agent.swarm.recheck import recheck
from modelswarm.agent.troubles import Trouble, of_bad_file, of_silence
from modelswarm.errors import BadMetainfo, DigestMismatch, DiskFull, PeerError, SwarmError

METAINFO = "metainfo"
"""Directory in the store's own for the torrents of complete contents."""
PATIENCE_SECONDS = 10.0
"""How long a node that has just completed a content looks for somebody's metainfo before it makes its own."""
UNCONNECTED_SECONDS = 60.0
"""How long nobody may be connected although seeders answer over HTTP: their BitTorrent port may be closed to us."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of fetching from complete seeders. ``seeders``: the URLs of those that were asked.

    ``wrong``: their files do not have the digests of the manifest, so they are not to be asked again.
    """

    complete: bool
    seeders: tuple[str, ...] = ()
    wrong: bool = False
    trouble: Trouble | None = None


class Seeding:
    """The whole-model torrents of this node."""

    def __init__(
        self, store: Store, swarm: Swarm, client: MetainfoClient, discovery: Discovery, secret: bytes, *, node: str
    ) -> None:
        self._store = store
        self._swarm = swarm
        self._client = client
        self._discovery = discovery
        self._secret = secret
        self._node = node
        self._served: dict[str, Path] = {}
        """Model hash to the metainfo's file."""
        self._making = asyncio.Lock()
        """One content is hashed at a time, and by one of those that serve it."""
        self._waiting: dict[str, asyncio.Future[Event]] = {}

    @property
    def hashes(self) -> frozenset[str]:
        """The model hashes that are seeded."""
        return frozenset(self._served)

    async def has_seeded(self, content: str) -> bool:
        """Whether this node has served the complete content before, perhaps in an earlier run."""
        return await asyncio.to_thread(self._path(content).exists)

    async def metainfo(self, model_hash: str) -> bytes | None:
        path = self._served.get(model_hash)
        if path is None:
            return None
        with contextlib.suppress(OSError):
            return await asyncio.to_thread(path.read_bytes)
        return None

    def hear(self, event: Event) -> bool:
        """An event of the swarm; whether it was about a whole model."""
        match event:
            case ModelDone(content_id=content) | ModelStalled(content_id=content) | TorrentFailed(torrent=content):
                future = self._waiting.get(content)
                if future is not None and not future.done():
                    future.set_result(event)
                return content in self._waiting
        return False

    async def seeders(self, model_hash: str) -> dict[str, bytes]:
        """Peers that have all of it (base URLs), with the metainfo that they tell."""
        return await self._client.find_seeders([peer.url for peer in self._discovery.peers()], model_hash)

    async def prepare(self, filling: Filling, model_hash: str = "") -> Whole | None:
        """The torrent of a complete content, and its metainfo on the disk; None where it cannot be seeded.

        It is there from before, or others have it under ``model_hash``, or all files are read for it: for 140 GB that
        is more than a minute.
        """
        content = filling.content
        if not filling.manifest.bytes:
            return None
        whole = await self._cached(filling)
        if whole is not None:
            return whole
        if model_hash:
            whole = await self._borrow(filling, model_hash)
        try:
            async with self._making:
                whole = whole or await self._cached(filling) or await self._make(filling)
                await asyncio.to_thread(_write, self._path(content), whole.metainfo)
        except (SwarmError, OSError) as error:
            log.warning("P2P %s: cannot be seeded: %s", content[:16], error)
            return None
        return whole

    async def seed(self, filling: Filling, model_hash: str, *, make_now: bool) -> None:
        """Serve a complete content. ``make_now``: do not wait for the metainfo of others."""
        whole = await self.prepare(filling, "" if make_now else model_hash)
        if whole is None:
            return
        # Who wants it comes here: most others never asked for this model.
        self._swarm.seed_model(whole, self._complete_paths(filling))
        self._served[model_hash] = self._path(filling.content)

    def stop(self, content: str, model_hash: str) -> None:
        """Serve it no longer under this hash. The torrent is that of all models with the same content."""
        self._served.pop(model_hash, None)
        if self._path(content) not in self._served.values() and content not in self._waiting:
            self._swarm.drop(content)

    def forget(self, content: str) -> None:
        """The content is gone from the disk."""
        for suffix in (".torrent", ".resume"):
            self._path(content).with_suffix(suffix).unlink(missing_ok=True)

    async def fetch(self, filling: Filling, seeders: Mapping[str, bytes], seconds: float) -> Fetched:
        """Get what is missing from complete seeders. ``seconds``: of silence at the end, after which it is given up.

        Nodes that have the content are connected to, and they name those that fetch it at the same time. The others
        are tried when it stands still: most agents of a large cluster know nothing of it.

        Cancelled, given up, or killed, what came is kept and believed the next time, if it has its hash: until then the
        store knows nothing of it.
        """
        whole, urls = await self._read_first(filling, seeders)
        if whole is None:
            return Fetched(False, tuple(seeders), wrong=True)
        content = filling.content
        paths = self._complete_paths(filling)
        missing = {file.path for file in filling.missing()}
        for path in missing:
            paths[path] = (await filling.partial(filling.key(path))).path
        resume = self._path(content).with_suffix(".resume")
        await asyncio.to_thread(resume.parent.mkdir, parents=True, exist_ok=True)
        found = await asyncio.to_thread(recheck, whole, {path: paths[path] for path in missing}, resume)
        if found:
            log.info("P2P %s: %d pieces of it were on the disk", content[:16], found)
        self._swarm.drop(content)  # it may be served still under another hash, by who has not noticed yet
        self._waiting[content] = asyncio.get_running_loop().create_future()
        have, holders = set(paths) - missing, [peer.node for peer in self._peers(urls)]
        self._swarm.fetch_model(whole, paths, have=have, peers=self._peers(), holders=holders, resume=resume)
        try:
            if not await self._follow(content, urls, seconds):
                await self._swarm.save()
                return Fetched(False, urls, trouble=of_silence(len(urls)))
        except asyncio.CancelledError:
            await self._swarm.save()
            raise
        finally:
            del self._waiting[content]
            self._swarm.drop(content)
        wrong = await self._verify(filling)
        resume.unlink(missing_ok=True)
        if wrong:
            return Fetched(False, urls, wrong=True, trouble=of_bad_file(wrong[0], urls))
        return Fetched(True, urls)

    async def _follow(self, content: str, urls: Collection[str], seconds: float) -> bool:
        """Whether everything came."""
        silent = 0.0
        while True:
            event = await self._waiting[content]
            self._waiting[content] = asyncio.get_running_loop().create_future()
            match event:
                case ModelDone():
                    return True
                case ModelStalled():
                    silent += self._swarm.settings.stall_seconds
                    log.warning("P2P %s: nothing from %d seeders for %.0f s", content[:16], event.peers, silent)
                    patience = seconds if event.peers else min(seconds, UNCONNECTED_SECONDS)
                    if silent >= patience or not await self._is_any_alive(urls):
                        return False
                    self._swarm.add_peers(content, self._peers())
                case TorrentFailed(full=True):
                    raise DiskFull()
                case TorrentFailed(message=message):
                    log.warning("P2P %s: %s", content[:16], message)
                    return False

    async def _is_any_alive(self, urls: Collection[str]) -> bool:
        return any(await asyncio.gather(*(self._client.is_alive(url) for url in urls)))

    async def _verify(self, filling: Filling) -> list[str]:
        """Everything came: the files that are not what the manifest says, of which nothing is kept."""
        wrong: list[str] = []
        for key, size in filling.missing_keys().items():
            if not size:
                continue
            partial = await filling.partial(key)
            try:
                await filling.mark(key, 0, size)
                await filling.finish(key)
            except DigestMismatch as error:
                log.error("P2P %s: the seeders have other bytes than the origin: %s", filling.content[:16], error)
                partial.drop(0, size)
                wrong.append(error.path)
            except BaseException:
                # Nobody has vouched for these bytes yet.
                partial.drop(0, size)
                raise
        return wrong

    async def _read_first(self, filling: Filling, seeders: Mapping[str, bytes]) -> tuple[Whole | None, tuple[str, ...]]:
        """The first metainfo that agrees with the manifest, and everybody who tells that one."""
        for url, metainfo in seeders.items():
            try:
                whole = await asyncio.to_thread(
                    read_metainfo, metainfo, filling.manifest, filling.content, self._secret
                )
            except BadMetainfo as error:
                log.warning("P2P %s: bad metainfo from %s: %s", filling.content[:16], url, error.message)
            else:
                return whole, tuple(each for each, its in seeders.items() if its == metainfo)
        return None, ()

    async def _cached(self, filling: Filling) -> Whole | None:
        try:
            known = await asyncio.to_thread(self._path(filling.content).read_bytes)
            return await asyncio.to_thread(read_metainfo, known, filling.manifest, filling.content, self._secret)
        except (OSError, BadMetainfo):
            return None

    async def _make(self, filling: Filling) -> Whole:
        """Raises SwarmError and OSError."""
        manifest, content, directory = filling.manifest, filling.content, Path(filling.directory)
        made = await asyncio.to_thread(make_metainfo, manifest, content, directory, self._secret)
        return await asyncio.to_thread(read_metainfo, made, manifest, content, self._secret)

    async def _borrow(self, filling: Filling, model_hash: str) -> Whole | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    with contextlib.suppress(PeerError):
                        found, _ = await self._read_first(filling, await self.seeders(model_hash))
                        if found is not None:
                            return found
                    await asyncio.sleep(PATIENCE_SECONDS / 5)
        return None

    def _complete_paths(self, filling: Filling) -> dict[str, Path]:
        directory = Path(filling.directory)
        return {file.path: directory / file.path for file in filling.manifest.files}

    def _peers(self, urls: Collection[str] | None = None) -> list[Peer]:
        return [as_peer(peer) for peer in self._discovery.peers() if urls is None or peer.url in urls]

    def _path(self, content: str) -> Path:
        return self._store.root / ".modelswarm" / METAINFO / f"{content}.torrent"


def as_peer(address: PeerAddress) -> Peer:
    """A peer of the swarm; one that only DNS knows is named by its address."""
    return Peer(address.node or address.host, address.host, address.port)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != data:
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(path)
