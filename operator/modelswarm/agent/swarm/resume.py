"""Progress of models that are being fetched, written down so that a restarted agent goes on from there.

Windows need nothing of the kind: the store keeps their ranges and hashes.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path

import libtorrent as lt

from modelswarm.agent.swarm.torrents import Torrent

_WITHOUT_METAINFO = 0

log = logging.getLogger(__name__)


class Progress:
    """Which torrents are being written down. First the cache goes to the files: only what is there counts as here."""

    def __init__(self) -> None:
        self._saving: dict[str, asyncio.Future[None]] = {}

    def ask(self, records: Iterable[Torrent]) -> None:
        """Begin to write down those that have a place for it."""
        loop = asyncio.get_running_loop()
        for record in records:
            if record.resume is not None and record.handle is not None and record.id not in self._saving:
                self._saving[record.id] = loop.create_future()
                record.handle.flush_cache()

    async def wait(self, seconds: float) -> None:
        if self._saving:
            await asyncio.wait(list(self._saving.values()), timeout=seconds)

    def on_flushed(self, record: Torrent) -> None:
        if record.id in self._saving and record.handle is not None:
            record.handle.save_resume_data(_WITHOUT_METAINFO)

    def on_data(self, record: Torrent, params: lt.add_torrent_params) -> None:
        if record.resume is not None:
            write(record.resume, lt.write_resume_data_buf(params))
        self.end(record)

    def end(self, record: Torrent) -> None:
        """It is done, or cannot be: the torrent may be gone."""
        future = self._saving.pop(record.id, None)
        if future is not None and not future.done():
            future.set_result(None)


def read(path: Path | None) -> bytes | None:
    """What an earlier run has written; None if there is nothing."""
    with contextlib.suppress(OSError):
        return None if path is None else path.read_bytes()
    return None


def write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        log.warning("P2P: cannot write down the progress at %s: %s", path, error.strerror)
