"""The body of a watch: JSON documents, one a line, in chunks that know nothing of lines."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from pydantic_core import from_json, to_json

from modelswarm.errors import Unavailable
from modelswarm.kube.answers import error_for
from modelswarm.kube.kinds import Kind
from modelswarm.kube.port import Change, WatchEvent

LONGEST_LINE = 16 << 20
"""Bytes. etcd takes objects of 1.5 MiB, which JSON may write several times longer."""


async def events(chunks: AsyncIterator[bytes], kind: Kind) -> AsyncGenerator[WatchEvent, None]:
    """The events of a watch. Raises the KubeError that the server ends it with, and Unavailable for nonsense."""
    async for line in _lines(chunks):
        try:
            document: dict[str, Any] = from_json(line)
            change, found = document["type"], document["object"]
            if change == "ERROR":
                raise error_for(int(found.get("code") or 500), {}, to_json(found))
            yield WatchEvent(Change(change), {**found, "apiVersion": kind.api_version, "kind": kind.kind})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(f"the watch of {kind.plural} says nonsense ({type(error).__name__})") from None


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    pending: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            line = b"".join([*pending, part])
            pending, size = [], 0
            if line.strip():
                yield line
        pending.append(rest)
        size += len(rest)
        if size > LONGEST_LINE:
            raise Unavailable("a watch sent a line that is longer than any object can be")
