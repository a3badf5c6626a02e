"""The protocol of a source of bytes. Legs are asked in order; what they give is verified, so none need be trusted."""

from pathlib import Path
from typing import Protocol

from modelswarm.content.manifest import ManifestFile


class Stream(Protocol):
    """Where a leg puts the bytes of one span of one file as they come: ``begin`` once, then ``write`` for every piece.

    It is all that an origin asks for.
    """

    async def begin(self, *, whole: bool = False) -> None:
        """The source has answered and sends what was asked for, or else the ``whole`` file from its first byte."""

    async def write(self, data: bytes | memoryview) -> None:
        """Append. Returns when the piece is accepted, which is how a slow disk slows the source down."""


class Sink(Stream, Protocol):
    """A stream into a file, for any leg.

    A leg whose program writes the file by itself (a daemon that is told a path) lets it write beside ``path``, renames
    that to ``path`` and calls ``filled``; what lies at ``path`` before that is taken for good bytes by the next start.
    """

    @property
    def path(self) -> Path:
        """The part file; only a leg that is not ``splittable`` may replace it."""

    def growing(self, path: Path) -> None:
        """The program writes at ``path``: a regular file beside the part file, in which it writes every byte once.

        May be left out. It is read while it grows, so that little is left to hash when it is whole.
        """
        return

    async def filled(self) -> None:
        """``path`` holds the whole file now."""


class Leg(Protocol):
    """One place that may have the bytes: the node's cache, a peer-to-peer daemon, the origin."""

    @property
    def name(self) -> str:
        """The key in the summary's ``bytesBySource``."""

    @property
    def splittable(self) -> bool:
        """Whether spans of one file may be asked for separately and at the same time."""

    def serves(self, file: ManifestFile) -> bool:
        """Whether it is worth asking for this file."""

    async def fetch(self, file: ManifestFile, sink: Sink, start: int, end: int) -> None:
        """Write bytes ``start`` up to ``end`` of ``file`` to ``sink``.

        Raises ``Transient`` (ask again), ``Unserved`` (ask the next leg) or another ``LoadError`` (give up).
        Ending early without an error is taken for a truncated answer.
        """


class StreamingLeg(Protocol):
    """A leg that streams, and so can fill anything: a range in the middle of a file, or memory."""

    async def fetch(self, file: ManifestFile, sink: Stream, start: int, end: int) -> None:
        """As ``Leg.fetch``."""
