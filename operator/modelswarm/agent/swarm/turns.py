"""What is being fetched, and whose turn it is.

Only some windows are fetched at a time, the oldest first. A window that waits serves what it has of it and asks for
nothing. One that stands still takes no place from the others.
"""

from collections.abc import Iterator

import libtorrent as lt

from modelswarm.agent.swarm.torrents import Kind, Torrent


class Turns:
    """``places``: so many windows are fetched at a time; ``patience``: seconds in which something must have come."""

    def __init__(self, places: int, patience: float) -> None:
        self._places = places
        self._patience = patience
        self._active: dict[str, Torrent] = {}

    def __iter__(self) -> Iterator[Torrent]:
        """All that is wanted and not here yet, in the order in which it came."""
        return iter(list(self._active.values()))

    def enter(self, record: Torrent, params: lt.add_torrent_params, now: float) -> None:
        """It is wanted from now on; ``params`` say to libtorrent whether it has to wait."""
        if record.kind is Kind.WINDOW and self._running(now) >= self._places:
            record.held = True
            params.flags |= lt.torrent_flags.upload_mode
        self._active[record.id] = record

    def leave(self, record: Torrent, now: float) -> None:
        """Nothing of it is fetched any more, so the next may be."""
        self._active.pop(record.id, None)
        self.let_in(now)

    def let_in(self, now: float) -> None:
        free = self._places - self._running(now)
        for record in [one for one in self._active.values() if one.held][: max(free, 0)]:
            record.held, record.moved = False, now
            if record.handle is not None:
                record.handle.unset_flags(lt.torrent_flags.upload_mode)

    def clear(self) -> None:
        self._active.clear()

    def _running(self, now: float) -> int:
        windows = (one for one in self._active.values() if one.kind is Kind.WINDOW and not one.held)
        return sum(now - one.moved <= self._patience for one in windows)
