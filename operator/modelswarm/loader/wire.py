"""One connection that is read in large pieces: what arrives goes straight into a buffer, and is handed out as it is.

Where bytes come slowly, every few packets would be a piece, and a GB would be some hundred thousand of them. So after
a small piece the connection is left alone for as long as it takes the kernel to gather a larger one.
"""

import asyncio
import ssl
from typing import Any, cast

BUFFER = 256 << 10
PLENTY = 64 << 10
"""A piece of so many bytes is worth its way."""
GATHERED = 40 << 10
"""What a pause is to bring: less than the 64 KiB of a fresh connection's window, so that no sender has to wait."""
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.064
"""Seconds. What is sent starts from the first again: an answer begins at once."""


def next_pause(last: float, size: int) -> float:
    """Seconds to wait after ``size`` bytes have gathered in ``last`` seconds; not more than twice as many."""
    return min(max(last * min(GATHERED / size, 2.0), FIRST_PAUSE), LONGEST_PAUSE)


class Wire(asyncio.BufferedProtocol):
    """For one reader and one writer at a time. Raises OSError where the connection does."""

    def __init__(self) -> None:
        self.ended = False
        """Nothing more will come, though something may be in the buffer."""
        self._loop = asyncio.get_running_loop()
        self._view = memoryview(bytearray(BUFFER))
        self._filled = 0
        self._transport: asyncio.Transport | None = None
        self._socket: asyncio.Transport | None = None
        """Under TLS the transport below it, which would be woken all the same."""
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._seconds = 0.0
        """The last pause."""
        self._room = asyncio.Event()
        self._room.set()

    async def read(self) -> bytes:
        """What has arrived, at least one byte; empty at the end."""
        while not self._filled:
            if self._error is not None:
                raise self._error
            if self.ended:
                return b""
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data, self._filled = bytes(self._view[: self._filled]), 0
        self._seconds = next_pause(self._seconds, len(data))
        if len(data) >= PLENTY:
            self._go_on()
        elif not self.ended and self._pause is None:
            assert self._socket is not None
            self._socket.pause_reading()
            self._pause = self._loop.call_later(self._seconds, self._go_on)
        return data

    async def write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)
        # It is for an answer, which shall not wait.
        self._seconds = 0.0
        self._go_on()
        await self._room.wait()
        if self._error is not None:
            raise self._error

    async def start_tls(self, context: ssl.SSLContext, host: str | None) -> None:
        """To be called before anything was read."""
        if self._transport is None:
            raise ConnectionResetError("the connection is closed")
        secured = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        if secured is None:
            raise ConnectionResetError("the connection is closed")
        self._transport = secured

    def abort(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._transport is not None:
            self._transport.abort()

    def get_extra_info(self, name: str) -> Any:
        return self._transport.get_extra_info(name) if self._transport is not None else None

    def _go_on(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._transport is not None and self._socket is not None and not self.ended:
            self._socket.resume_reading()
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._socket = self._socket or self._transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled == BUFFER:
            assert self._transport is not None
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended, self._error = True, exc
        self._room.set()
        self._wake()
