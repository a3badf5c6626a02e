"""libtorrent's session on an asyncio loop: alerts come in through a socket, and the end does not block the loop."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import libtorrent as lt

from modelswarm.agent.swarm.settings import SwarmSettings, to_libtorrent
from modelswarm.errors import CannotListen

LISTEN_SECONDS = 10.0


class Engine:
    """One session and its ears. ``hear`` is called on the loop with one alert at a time."""

    def __init__(self, settings: SwarmSettings, hear: Callable[[lt.alert], None]) -> None:
        self._settings = settings
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._port: asyncio.Future[int] = self._loop.create_future()
        self._ours, self._theirs = socket.socketpair()
        for end in (self._ours, self._theirs):
            end.setblocking(False)
        params = lt.session_params()
        params.settings = to_libtorrent(settings)
        self.session = lt.session(params)
        _limit_local_peers(self.session)
        # A Python callback instead of the descriptor makes the process hang at its end, more often than not.
        self.session.set_alert_fd(self._theirs.fileno())
        self._loop.add_reader(self._ours, self._listen)

    async def wait_listening(self) -> int:
        """The port. Raises CannotListen."""
        self._listen()
        try:
            return await asyncio.wait_for(self._port, LISTEN_SECONDS)
        except TimeoutError:
            raise CannotListen(f"nothing listens at port {self._settings.port} after {LISTEN_SECONDS:g} s") from None

    def _listen(self) -> None:
        """Hand on what has been said since the last time."""
        with contextlib.suppress(BlockingIOError):
            while self._ours.recv(4096):
                pass
        for alert in self.session.pop_alerts():
            if not self._port.done() and isinstance(alert, lt.listen_succeeded_alert):
                self._port.set_result(alert.port)
            elif not self._port.done() and isinstance(alert, lt.listen_failed_alert):
                # On all addresses at once, the machine may lack IPv6.
                if self._settings.host is not None:
                    self._port.set_exception(CannotListen(alert.message()))
            else:
                self._hear(alert)

    async def close(self) -> None:
        """Say good-bye to the peers and end the threads. Nothing is heard any more."""
        self._loop.remove_reader(self._ours)
        self.session.set_alert_fd(-1)
        self.session.pause()
        # The destructor waits for the threads, and the loop has other things to do meanwhile.
        box = [self.session]
        del self.session
        await asyncio.to_thread(box.clear)
        self._ours.close()
        self._theirs.close()


def _limit_local_peers(session: lt.session) -> None:
    """Without this the rate limits do not hold for private addresses, which is where all of our peers are."""
    everybody = 1 << session.global_peer_class_id
    rules = lt.ip_filter()
    rules.add_rule("0.0.0.0", "255.255.255.255", everybody)
    rules.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", everybody)
    session.set_peer_class_filter(rules)
