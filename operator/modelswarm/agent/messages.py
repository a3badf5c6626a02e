"""What a member and the coordinator of a content tell each other: one request, idempotent in both directions.

A report is the whole state of a member, and an answer all that it has to do, so either may be lost or come twice.
Only what is published travels as a difference, from a position (``cursor``) in the coordinator's journal of this
epoch. Sizes are bounded here, because a peer may be wrong or hostile.
Bytes travel as base64 (URL-safe alphabet).
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from modelswarm.agent import bits

MAX_SEGMENTS = 1 << 17
MAX_FILES = 1 << 20
MAX_WORKING = 64
MAX_PUBLICATIONS = 1024
REPORT_BYTES = 4 << 20
"""A report on the wire."""
ANSWER_BYTES = 8 << 20
"""An answer on the wire."""

Name = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
]
Url = Annotated[str, StringConstraints(max_length=300, pattern=r"^https?://[^/\s]+$")]
Host = Annotated[str, StringConstraints(max_length=64, pattern=r"^[0-9A-Fa-f:.]+$")]
ContentId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
SegmentIndex = Annotated[int, Field(ge=0, lt=MAX_SEGMENTS)]
FileIndex = Annotated[int, Field(ge=0, lt=MAX_FILES)]
Bytes = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Message(BaseModel):
    """Base of what is on the wire. Unknown fields are dropped: agents of two versions meet during a roll-out."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64"
    )


class Publication(Message):
    """Segments of one file, in order, that were published together.

    ``hashes``: the SHA-1s of their pieces, 20 bytes each, in the order of the segments. A bundle has none: its files
    are fetched over HTTP. ``publisher`` is the node that read them from the origin, as far as is known;
    ``publishers`` says it for each of them where they are several nodes.
    """

    segments: Annotated[tuple[SegmentIndex, ...], Field(min_length=1, max_length=64)]
    hashes: Annotated[bytes, Field(max_length=1 << 18)] = b""
    publisher: Name
    publishers: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    window: bool = False
    """A coordinator has made one window of them, which everybody joins as it is."""

    def publisher_of(self, position: int) -> str:
        """Of the segment at this position in ``segments``."""
        return self.publishers[position] if self.publishers else self.publisher


class Failure(Message):
    """What kept a segment from being read: a typed reason, and whether another attempt may help."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    message: Annotated[str, StringConstraints(max_length=512)] = ""
    retryable: bool = True
    retry_after: Seconds | None = None
    """Only of RateLimited: everybody pauses for so long."""


class Busy(Message):
    """A file of this content that the node is filling for another content at the moment."""

    file: FileIndex
    content: ContentId


class BadFile(Message):
    """A file that is here but has the wrong digest, and who published its segments."""

    file: FileIndex
    publishers: Annotated[tuple[Name, ...], Field(max_length=1024)] = ()


class Report(Message):
    """A member's state. ``url`` is its metainfo server, ``host`` and ``port`` its swarm's."""

    node: Name
    url: Url
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]
    life: Annotated[int, Field(ge=0)] = 0
    """A member's own number, another one after each start,"""
    number: Annotated[int, Field(ge=0)] = 0
    """and how many reports it has sent with this one: one may overtake another on the way."""
    epoch: Annotated[int, Field(ge=0)] = 0
    """Of the answer that ``cursor`` comes from; 0 for none."""
    cursor: Annotated[int, Field(ge=0)] = 0
    have: Annotated[bytes, Field(max_length=MAX_SEGMENTS)] = b""
    """The segments that are whole on this node's disk, as a bitmap (``agent.bits``)."""
    verified: Annotated[bytes, Field(max_length=MAX_FILES)] = b""
    """The files whose digest was right, as a bitmap of positions."""
    published: Annotated[tuple[Publication, ...], Field(max_length=MAX_PUBLICATIONS)] = ()
    """Newly read from the origin, or asked for by the coordinator. May be repeated."""
    working: Annotated[dict[SegmentIndex, Bytes], Field(max_length=MAX_WORKING)] = Field(default_factory=dict)
    """The segments that this node has accepted, and how many of their bytes it has read."""
    busy: Annotated[tuple[Busy, ...], Field(max_length=4096)] = ()
    bad: Annotated[tuple[BadFile, ...], Field(max_length=256)] = ()
    starved: Annotated[tuple[SegmentIndex, ...], Field(max_length=MAX_WORKING)] = ()
    """Segments that were published and that nobody gives this node, although it has waited."""
    failed: Annotated[dict[SegmentIndex, Failure], Field(max_length=MAX_WORKING)] = Field(default_factory=dict)
    """Segments that this node gives back. Told once, in one report that was answered."""
    digests: Annotated[dict[FileIndex, Sha256], Field(max_length=4096)] = Field(default_factory=dict)
    """Digests of files that the manifest has none for, as this node computed them."""
    complete: bool = False
    wants: Annotated[int, Field(ge=0, le=MAX_WORKING)] = 0
    """How many segments this node would work on at once, those it has included; 0: none, it does not help."""

    def is_before(self, other: "Report") -> bool:
        """Whether the same member has sent ``other`` later, which says all that this one does and more."""
        return (self.node, self.life) == (other.node, other.life) and self.number < other.number

    @property
    def segments(self) -> int:
        return bits.from_bytes(self.have)

    @property
    def files(self) -> int:
        return bits.from_bytes(self.verified)


class PeerInfo(Message):
    """A member, for the others. ``gone``: it has not been heard of, or nobody should talk to it."""

    node: Name
    url: Url
    host: Host
    port: Annotated[int, Field(ge=1, le=65535)]
    complete: bool = False
    gone: bool = False


class Answer(Message):
    """What a member has to do, and what is new since its ``cursor``.

    ``epoch`` differs from the member's: it forgets the cursor and the publications it knew (equal ones come again).
    """

    epoch: Annotated[int, Field(ge=0)]
    segment_bytes: Annotated[int, Field(ge=1)]
    cursor: Annotated[int, Field(ge=0)] = 0
    more: bool = False
    """The journal goes on: the next report will be answered at once."""
    assign: Annotated[tuple[SegmentIndex, ...], Field(max_length=MAX_WORKING)] = ()
    """All segments that this node holds, in the order in which it should fetch them, whether new or not."""
    reread: Annotated[tuple[SegmentIndex, ...], Field(max_length=MAX_WORKING)] = ()
    """Those of ``assign`` that are to be read from the origin and published although they may be here already."""
    revoke: Annotated[tuple[SegmentIndex, ...], Field(max_length=MAX_WORKING)] = ()
    """Segments in ``working`` that it does not hold (any more): stop fetching them."""
    asked: Annotated[tuple[SegmentIndex, ...], Field(max_length=MAX_WORKING)] = ()
    """Segments that this node has and whose publication the coordinator does not know: publish them."""
    published: Annotated[tuple[Publication, ...], Field(max_length=2 * MAX_PUBLICATIONS)] = ()
    """A later publication of a segment replaces an earlier one: with other hashes, its bytes were wrong."""
    holders: Annotated[dict[SegmentIndex, tuple[Url, ...]], Field(max_length=MAX_SEGMENTS)] = Field(
        default_factory=dict
    )
    """Who can be asked for a bundle's files: metainfo servers of some nodes that have them."""
    peers: Annotated[tuple[PeerInfo, ...], Field(max_length=8192)] = ()
    shunned: Annotated[tuple[Name, ...], Field(max_length=8192)] = ()
    """All nodes that published wrong bytes."""
    digests: Annotated[dict[FileIndex, Sha256], Field(max_length=MAX_FILES)] = Field(default_factory=dict)
    """Digests that hold for files that the manifest has none for: the first reader's."""
    pause: Seconds = 0.0
    """Seconds in which nobody reads the origin: it asked for that (429)."""
    readers: Annotated[tuple[Name, ...], Field(max_length=8192)] = ()
    failure: Failure | None = None
    """Not retryable: the content cannot be had, for anybody. Retryable: what went wrong last, for the eye."""
    open: bool = True
    """False: every member has everything; there is nothing left to coordinate."""
