"""Peers that nobody should trust: they listen where an agent's metainfo server would, and answer as they like."""

import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dev.agents import METAINFO_PORT

Answer = Callable[[socket.socket, str], None]
"""Writes to a connection after a request; gets its first line."""


def garbage(connection: socket.socket, line: str) -> None:
    _respond(connection, b"this is no answer to " + line.encode())


def endless(connection: socket.socket, line: str) -> None:
    """As many bytes as the other side will take."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-bittorrent\r\nConnection: close\r\n\r\n")
    chunk = b"d4:info" + b"x" * (1 << 16)
    while True:
        connection.sendall(chunk)


def nothing(connection: socket.socket, line: str) -> None:
    """A request is taken, and that is all."""
    while True:
        time.sleep(0.2)
        connection.send(b"")
        if connection.recv(1 << 16) == b"":
            return


def dripping(connection: socket.socket, line: str) -> None:
    """A byte now and then, of an answer that was announced as a large one."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b"d")
        time.sleep(0.3)


def refusing(connection: socket.socket, line: str) -> None:
    connection.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def climbing(connection: socket.socket, line: str) -> None:
    """Metainfo whose files lie outside of any directory, and which names a web seed."""
    path = b"l2:..2:..3:tmp7:escapede"
    info = b"d5:filesld6:lengthi5e4:path" + path + b"ee4:name2:..12:piece lengthi16384e6:pieces20:" + b"\0" * 20 + b"e"
    _respond(connection, b"d4:info" + info + b"8:url-list19:http://127.0.0.1:1/e")


def _respond(connection: socket.socket, body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-bittorrent\r\nContent-Length: {len(body)}\r\n"
    connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)


class Hostile:
    """Listens at ``host`` while the block lasts; ``asked`` are the first lines of the requests that came."""

    def __init__(self, host: str, answer: Answer, port: int = METAINFO_PORT) -> None:
        self.asked: list[str] = []
        self._answer = answer
        self._listener = socket.create_server((host, port))
        self._ended = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="hostile", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._ended = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                line = connection.recv(1 << 16).partition(b"\r\n")[0].decode(errors="replace")
                self.asked.append(line)
                self._answer(connection, line)
            except OSError:
                return
