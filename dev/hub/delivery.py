"""Puts answers on the wire: conditions, ranges, throttling and the faults that need a socket."""

import asyncio
import os
import re
import socket
import struct
from dataclasses import replace
from io import FileIO

from aiohttp import web

from dev.hub.answers import Answer
from dev.hub.counters import Counters, Tally
from dev.hub.faults import Course
from dev.hub.pacing import MAX_CHUNK, Pace, take_all
from dev.hub.repository import Blob

# One call of sendfile: the grain in which the counters move during a download.
_SENDFILE_SPAN = 8 << 20
_RANGE = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))")


class Delivery:
    """Sends answers. `rate` limits all responses together, `connection_rate` each one."""

    def __init__(self, counters: Counters, *, rate: float | None, connection_rate: float | None) -> None:
        self._counters = counters
        self._shared = Pace(rate) if rate else None
        self._connection_rate = connection_rate
        self._released = asyncio.Event()

    def release(self) -> None:
        """Let go of the connections that hang."""
        self._released.set()

    async def send(self, request: web.BaseRequest, course: Course, client: str) -> web.StreamResponse:
        """Answer `request` the way `course` says and count what was sent."""
        answer, window = _conditional(request, course)
        tally = self._counters.open(
            answer.kind,
            answer.name or request.path,
            client,
            ranged="Range" in request.headers,
            error=answer.status >= 400,
        )
        try:
            if course.delay:
                await asyncio.sleep(course.delay)
            if course.silent:
                await self._released.wait()
            if course.reset or course.silent:
                return _reset(request)
            return await self._send(request, course, answer, window, tally)
        except ConnectionResetError:
            # The client has left. A traceback of that helps nobody, and to format one CPython 3.11 parses source, which
            # breaks whoever parses some in another thread just then (hypothesis does, and pytest's rewriting).
            return web.Response()
        finally:
            self._counters.close()

    async def _send(
        self, request: web.BaseRequest, course: Course, answer: Answer, window: range, tally: Tally
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.headers["Content-Type"] = answer.content_type
        if answer.status != 304:
            response.content_length = len(window)
        fd = (
            answer.body.open_fd()
            if isinstance(answer.body, Blob) and not isinstance(answer.body.source, bytes)
            else None
        )
        try:
            await response.prepare(request)
            if request.method == "HEAD" or answer.status == 304:
                return response
            paces = [Pace(rate) for rate in (course.rate, self._connection_rate) if rate]
            if self._shared:
                paces.append(self._shared)
            flight = self._counters.take_off(answer.name, window) if isinstance(answer.body, Blob) else None
            try:
                if fd is not None and course.plain and not paces:
                    await _send_file(request, fd, window, tally)
                else:
                    await self._send_pieces(request, response, course, _Reader(answer.body, fd), window, paces, tally)
            finally:
                if flight is not None:
                    self._counters.land(flight)
        finally:
            if fd is not None:
                os.close(fd)
        return response

    async def _send_pieces(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        course: Course,
        reader: "_Reader",
        window: range,
        paces: list[Pace],
        tally: Tally,
    ) -> None:
        piece = min((pace.chunk for pace in paces), default=MAX_CHUNK)
        limits = [count for count in (course.cut_after, course.hang_after) if count is not None]
        stop = min([window.start + limit for limit in limits] + [window.stop])
        for start in range(window.start, stop, piece):
            data = reader.read(start, min(piece, stop - start))
            if course.flip_at is not None and start <= course.flip_at < start + len(data):
                at = course.flip_at - start
                data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            await take_all(paces, len(data))
            # Counted first: once the last byte is out, the client may look at the counters.
            tally.sent(len(data), content=reader.content)
            await response.write(data)
        if course.hang_after is not None:
            await self._released.wait()
        if limits and request.transport is not None:
            # What was written still goes out; then the connection ends short of the announced length.
            request.transport.close()


class _Reader:
    """Reads pieces of a body. Reads block, which for files in the page cache is cheaper than a thread."""

    def __init__(self, body: bytes | Blob, fd: int | None) -> None:
        self._fd = fd
        self.content = isinstance(body, Blob)
        held = body.source if isinstance(body, Blob) else body
        self._held = held if isinstance(held, bytes) else b""

    def read(self, start: int, count: int) -> bytes:
        if self._fd is None:
            return self._held[start : start + count]
        return os.pread(self._fd, count, start)


async def _send_file(request: web.BaseRequest, fd: int, window: range, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    with FileIO(fd, closefd=False) as stream:
        for start in range(window.start, window.stop, _SENDFILE_SPAN):
            if request.transport is None:
                raise ConnectionResetError("the client left")
            count = min(_SENDFILE_SPAN, window.stop - start)
            stream.seek(start)
            tally.sent(count, content=True)
            try:
                await loop.sendfile(request.transport, stream, start, count)
            except BaseException:
                # sendfile leaves the file where it got to.
                tally.sent(stream.tell() - start - count, content=True)
                raise


def _conditional(request: web.BaseRequest, course: Course) -> tuple[Answer, range]:
    """The answer under the request's conditions, and which bytes of its body go out."""
    answer = course.answer
    whole = range(answer.size)
    if answer.status != 200 or answer.etag is None:
        return answer, whole
    etag = f'"{answer.etag}"'
    headers = {**answer.headers, "ETag": etag, "Accept-Ranges": "bytes"}
    answer = replace(answer, headers=headers)
    if etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]:
        return replace(answer, status=304), range(0)
    asked = request.headers.get("Range")
    if asked is None or course.ignore_range or request.headers.get("If-Range", etag) != etag:
        return answer, whole
    found = _RANGE.fullmatch(asked.strip())
    if found is None:
        # Several ranges, or none that can be read: a server may send the whole instead.
        return answer, whole
    first, last, suffix = found.groups()
    if suffix is not None:
        window = whole[-int(suffix) :] if int(suffix) else range(0)
    else:
        window = whole[int(first) : int(last) + 1 if last else None]
        if last and int(last) < int(first):
            return answer, whole
    if not window:
        headers = {**headers, "Content-Range": f"bytes */{answer.size}"}
        return replace(answer, status=416, body=b"", headers=headers), range(0)
    headers = {**headers, "Content-Range": f"bytes {window.start}-{window.stop - 1}/{answer.size}"}
    return replace(answer, status=200 if course.range_as_ok else 206, headers=headers), window


def _reset(request: web.BaseRequest) -> web.StreamResponse:
    """End the connection with a reset, which is what a client of a crashed server gets."""
    transport = request.transport
    if transport is not None:
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()
