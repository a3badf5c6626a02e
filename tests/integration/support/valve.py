"""A TCP relay that can be shut: requests then wait, as at an origin that is slow to answer, until it is opened."""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 1 << 16


class Valve:
    """Relays to ``target`` (a base URL). Shut, it takes connections and requests but passes none of them on."""

    def __init__(self, target: str) -> None:
        parsed = urlsplit(target)
        assert parsed.hostname
        assert parsed.port
        self._target = (parsed.hostname, parsed.port)
        self._passable = threading.Event()
        self._passable.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.host}"
        self._ended = False

    def shut(self) -> None:
        self._passable.clear()

    def open(self) -> None:
        self._passable.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="valve", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._ended = True
        self._passable.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            for source, sink, waits in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._relay, args=(source, sink, waits), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, waits: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if waits:
                    self._passable.wait()
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
