"""The node's swarm: one libtorrent session, fed with windows of files in flight and with complete models.

    swarm = Swarm(settings, report=events.put_nowait)
    await swarm.start()
    swarm.offer(window, partial, content=content_id)                       # its bytes are here
    swarm.want(window, partial, content=content_id, peers=members)         # WindowDone follows
    swarm.seed_model(whole, paths)
    await swarm.stop()

Everything is called on the event loop and returns at once: libtorrent does the work in threads of its own and tells
by alerts, whose arrival the loop learns from a socket. Nothing asks all torrents in turn.
"""

import asyncio
import contextlib
import errno
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import libtorrent as lt

from modelswarm.agent.swarm import torrents
from modelswarm.agent.swarm.counters import Counters
from modelswarm.agent.swarm.engine import Engine
from modelswarm.agent.swarm.events import (
    Event,
    ModelDone,
    ModelStalled,
    PeerBanned,
    TorrentFailed,
    WindowDone,
    WindowStalled,
)
from modelswarm.agent.swarm.neighbours import Peer
from modelswarm.agent.swarm.resume import Progress, read
from modelswarm.agent.swarm.settings import MAX_CONNECTIONS, SwarmSettings
from modelswarm.agent.swarm.torrents import Kind, Torrent, info_hash
from modelswarm.agent.swarm.turns import Turns
from modelswarm.agent.swarm.whole import Whole
from modelswarm.agent.swarm.windows import Window
from modelswarm.errors import CannotListen

STOP_SECONDS = 10.0
SAVE_SECONDS = 30.0
"""How often the progress of models that are being fetched is written down."""
_BLOCKED = 1
_SYSTEM = ("system", "generic")  # categories of errors whose values are those of errno


class Swarm:
    """``report`` is called on the loop, with one event at a time; it must not raise."""

    def __init__(self, settings: SwarmSettings, *, report: Callable[[Event], None]) -> None:
        self.settings = settings
        self.counters = Counters()
        self.port = settings.port
        self._report = report
        self._engine: Engine | None = None
        self._progress = Progress()
        self._torrents: dict[str, Torrent] = {}  # by id
        self._by_hash: dict[str, Torrent] = {}
        self._wanted = Turns(settings.parallel_windows, settings.widen_seconds)
        self._nodes: dict[str, str] = {}  # host to node
        self._shunned: set[str] = set()
        self._reader: asyncio.Task[None] | None = None

    # Life

    async def start(self) -> None:
        """Listen. Raises CannotListen."""
        self._engine = Engine(self.settings, self._hear)
        try:
            self.port = await self._engine.wait_listening()
        except CannotListen:
            await self.stop()
            raise
        self._reader = asyncio.create_task(self._read_forever(), name="swarm-readings")

    async def stop(self) -> None:
        """Save what is needed to go on later, say good-bye to the peers and end the threads. Harmless twice."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        engine = self._engine
        if engine is None:
            return
        await self.save()
        self._engine = None
        self._torrents.clear()
        self._by_hash.clear()
        self._wanted.clear()
        await engine.close()

    # Windows

    def offer(self, window: Window, path: Path, *, content: str, peers: Collection[Peer] = ()) -> None:
        """All bytes of the window are in the file at ``path``: serve them."""
        self.share(window, path, content=content, have=frozenset(window.piece_numbers()), peers=peers)

    def want(
        self, window: Window, path: Path, *, content: str, peers: Collection[Peer], holders: Iterable[str] = ()
    ) -> None:
        """Fetch the window into the file at ``path`` (there, of full length), in place. WindowDone follows."""
        self.share(window, path, content=content, have=(), peers=peers, holders=holders)

    def share(
        self,
        window: Window,
        path: Path,
        *,
        content: str,
        have: Collection[int],
        peers: Collection[Peer],
        holders: Iterable[str] = (),
    ) -> None:
        """Serve the pieces in ``have`` (numbers within the file) and fetch the window's others.

        ``content`` is what the bytes are counted under. ``peers`` are all that have the window or want it; some of
        them are chosen (``neighbours``), and more when it stands still. ``holders``: nodes that had it first. The file
        stays at ``path`` until the window is dropped. Adding a window again only adds the peers.
        """
        torrent = window.id
        if torrent in self._torrents:
            self.add_peers(torrent, peers)
            return
        params = torrents.of_window(window, path, self.settings.secret, have=have)
        done = all(number in have for number in window.piece_numbers())
        self._add(params, Kind.WINDOW, torrent, content, peers, holders, done=done)

    def drop(self, torrent: str) -> None:
        """Forget a window or a model (by id); the files stay. Harmless if it is not there."""
        record = self._torrents.pop(torrent, None)
        if record is None:
            return
        self._wanted.leave(record, self._now())
        self._progress.end(record)
        record.dropped = True
        if record.handle is not None:
            self._remove(record)

    def add_peers(self, torrent: str, peers: Iterable[Peer]) -> None:
        """Make more peers known. Those that are known, shunned, or this node itself make no difference."""
        record = self._torrents.get(torrent)
        if record is not None:
            self._meet(record, peers)

    def has(self, torrent: str) -> bool:
        return torrent in self._torrents

    def shun(self, hosts: Iterable[str]) -> None:
        """Talk to these addresses no more, and close the connections to them. Replaces the earlier list."""
        self._shunned = set(hosts)
        if self._engine is not None:
            rules = lt.ip_filter()
            for host in self._shunned:
                rules.add_rule(host, host, _BLOCKED)
            self._engine.session.set_ip_filter(rules)

    # Complete models

    def seed_model(self, whole: Whole, paths: Mapping[str, Path]) -> None:
        """Serve a model that is complete and checked, to whoever connects. ``paths``: where each of its files is.

        Nothing is read now. A piece is hashed when it is first asked for, so a file that rotted does not spread.
        """
        if whole.content_id in self._torrents:
            return
        params = torrents.of_model(whole, paths, have=set(paths), resume=None)
        self._add(params, Kind.MODEL, whole.content_id, whole.content_id, (), (), done=True)

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
        """Fetch a model's files to ``paths``, but for those in ``have``, which are there. ModelDone follows.

        ``holders`` are nodes that have it. The other ``peers``, most of which may never have heard of it, are tried
        when it stands still: some may be fetching it too.

        What came is written down in ``resume`` now and then, and believed the next time, until the caller removes it.
        """
        content = whole.content_id
        if content in self._torrents:
            self.add_peers(content, peers)
            return
        params = torrents.of_model(whole, paths, have=have, resume=read(resume))
        self._add(params, Kind.MODEL, content, content, peers, holders, done=False, resume=resume)

    async def save(self) -> None:
        """Write down what has come of models that are being fetched, so that a restart goes on from there."""
        self._progress.ask(self._wanted)
        await self._progress.wait(STOP_SECONDS)

    # Inside

    def _add(
        self,
        params: lt.add_torrent_params,
        kind: Kind,
        torrent: str,
        content: str,
        peers: Collection[Peer],
        holders: Iterable[str],
        *,
        done: bool,
        resume: Path | None = None,
    ) -> None:
        assert self._engine is not None
        assert params.ti is not None
        key = info_hash(params.ti.info_hashes())
        now = self._now()
        record = Torrent(torrent, kind, content, key, {}, set(), frozenset(holders), done, done, now, resume=resume)
        self._torrents[torrent] = self._by_hash[key] = record
        if not done:
            self._wanted.enter(record, params, now)
        params.peers = [(peer.host, peer.port) for peer in self._acquaint(record, peers)]
        self._engine.session.async_add_torrent(params)

    def _meet(self, record: Torrent, peers: Iterable[Peer], *, everybody: bool = False) -> None:
        fresh = self._acquaint(record, peers, everybody=everybody)
        for peer in fresh:
            if record.handle is not None:
                record.handle.connect_peer((peer.host, peer.port))
            else:
                record.waiting.append(peer)

    def _acquaint(self, record: Torrent, peers: Iterable[Peer], *, everybody: bool = False) -> list[Peer]:
        """The peers that libtorrent has still to be told of, now that these are known."""
        for peer in peers:
            if peer.node != self.settings.node and peer.host not in self._shunned:
                record.peers[peer.node] = peer
                self._nodes[peer.host] = peer.node
        settings, known = self.settings, list(record.peers.values())
        chosen = known if everybody else record.first_choice(settings.node, settings.degree)
        if everybody and not record.connected and record.asked.issuperset(known):
            # Who refused us, because it did not know the torrent yet, may have been given up.
            record.asked.clear()
        fresh = [peer for peer in chosen if peer not in record.asked][:MAX_CONNECTIONS]
        record.asked.update(fresh)
        return fresh

    def _remove(self, record: Torrent) -> None:
        assert record.handle is not None
        if self._engine is not None:
            # Its last counts arrive before it is gone.
            record.handle.post_status(0)
            self._engine.session.remove_torrent(record.handle)

    def _hear(self, alert: lt.alert) -> None:
        if handler := _HANDLERS.get(type(alert)):
            handler(self, alert)

    async def _read_forever(self) -> None:
        saved = self._now()
        while True:
            await asyncio.sleep(self.settings.reading_seconds)
            if self._engine is None:
                continue
            self._engine.session.post_torrent_updates(0)
            self._engine.session.post_session_stats()
            now = self._now()
            self._notice_stalls(now)
            if now - saved > SAVE_SECONDS:
                saved = now
                self._progress.ask(self._wanted)

    def _notice_stalls(self, now: float) -> None:
        for record in self._wanted:
            still = now - record.moved
            if record.held:
                continue
            if still > self.settings.widen_seconds:
                self._meet(record, (), everybody=True)
            if still > self.settings.stall_seconds:
                record.moved = now
                if record.kind is Kind.WINDOW:
                    self._report(WindowStalled(record.id, record.connected, torrents.missing_pieces(record)))
                else:
                    self._report(ModelStalled(record.id, record.connected))
        self._wanted.let_in(now)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # What libtorrent says

    def _on_added(self, alert: lt.add_torrent_alert) -> None:
        record = self._by_hash.get(info_hash(alert.params.ti.info_hashes())) if alert.params.ti else None
        if record is None:
            return
        if alert.error.value():
            self._failed(record, alert.error)
            return
        record.handle = alert.handle
        if record.dropped:
            self._remove(record)
            return
        if not record.held:
            alert.handle.unset_flags(lt.torrent_flags.upload_mode)
        for peer in record.waiting:
            alert.handle.connect_peer((peer.host, peer.port))
        record.waiting.clear()

    def _on_finished(self, alert: lt.torrent_finished_alert) -> None:
        record = self._find(alert)
        if record is None or record.done:
            return
        record.done = True
        self._wanted.leave(record, self._now())
        # Its pieces agree with their hashes, and some of them are still on their way to the file.
        alert.handle.flush_cache()

    def _on_flushed(self, alert: lt.cache_flushed_alert) -> None:
        record = self._find(alert)
        if record is None:
            return
        self._progress.on_flushed(record)
        if record.done and not record.told:
            record.told = True
            self._report(WindowDone(record.id) if record.kind is Kind.WINDOW else ModelDone(record.id))

    def _on_banned(self, alert: lt.peer_ban_alert) -> None:
        record = self._find(alert)
        if record is not None:
            host = alert.endpoint[0]
            self._report(PeerBanned(self._nodes.get(host), host, record.id))

    def _on_failure(self, alert: lt.torrent_error_alert | lt.file_error_alert) -> None:
        record = self._find(alert)
        if record is not None:
            self._failed(record, alert.error)

    def _failed(self, record: Torrent, error: lt.error_code) -> None:
        self._wanted.leave(record, self._now())
        full = error.category().name() in _SYSTEM and error.value() in (errno.ENOSPC, errno.EDQUOT)
        self._report(TorrentFailed(record.id, error.message(), full))

    def _on_readings(self, alert: lt.state_update_alert) -> None:
        now = self._now()
        for status in alert.status:
            record = self._by_hash.get(info_hash(status.info_hashes))
            if record is None:
                continue
            self.counters.add(
                record.content,
                uploaded=status.total_payload_upload - record.uploaded,
                downloaded=status.total_payload_download - record.downloaded,
            )
            record.uploaded, record.downloaded = status.total_payload_upload, status.total_payload_download
            record.connected = status.num_peers
            if status.total_done != record.here:
                record.here, record.moved = status.total_done, now

    def _on_removed(self, alert: lt.torrent_removed_alert) -> None:
        key = info_hash(alert.info_hashes)
        record = self._by_hash.get(key)
        if record is not None and record.dropped:
            del self._by_hash[key]

    def _on_statistics(self, alert: lt.session_stats_alert) -> None:
        self.counters.connections = alert.values["peer.num_peers_connected"]
        self.counters.torrents = len(self._torrents)
        models = (record for record in self._torrents.values() if record.kind is Kind.MODEL)
        self.counters.seeding = sum(record.done for record in models)

    def _on_resume(self, alert: lt.save_resume_data_alert) -> None:
        record = self._find(alert)
        if record is not None:
            self._progress.on_data(record, alert.params)

    def _on_no_resume(self, alert: lt.save_resume_data_failed_alert) -> None:
        record = self._find(alert)
        if record is not None:
            self._progress.end(record)

    def _find(self, alert: lt.torrent_alert) -> Torrent | None:
        return self._by_hash.get(info_hash(alert.handle.info_hashes()))


_HANDLERS: dict[type, Callable[..., None]] = {
    lt.add_torrent_alert: Swarm._on_added,
    lt.torrent_finished_alert: Swarm._on_finished,
    lt.cache_flushed_alert: Swarm._on_flushed,
    lt.peer_ban_alert: Swarm._on_banned,
    lt.torrent_error_alert: Swarm._on_failure,
    lt.file_error_alert: Swarm._on_failure,
    lt.state_update_alert: Swarm._on_readings,
    lt.torrent_removed_alert: Swarm._on_removed,
    lt.session_stats_alert: Swarm._on_statistics,
    lt.save_resume_data_alert: Swarm._on_resume,
    lt.save_resume_data_failed_alert: Swarm._on_no_resume,
}
