"""What the metainfo server needs from the rest of the agent, and the wire forms that server and client share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from modelswarm.agent.messages import Answer, Report
from modelswarm.content.manifest import Manifest

MODEL_HASH = r"[0-9a-f]{64}"
BLOB_KEY = r"(?:sha256|object)-[0-9a-f]{64}|git-sha1-[0-9a-f]{40}"
METAINFO_BYTES = 64 << 20
MANIFEST_BYTES = 64 << 20
BLOB_BYTES = 1 << 20
"""Of one blob that travels over HTTP."""
MAX_BLOBS = 64
BLOBS_BYTES = 8 << 20
"""Of all blobs in one answer; those beyond are told as not here. A bundle of the plan always fits."""


@dataclass(frozen=True, slots=True)
class Stats:
    """The seed's four numbers."""

    active_torrents: int = 0
    total_bytes_uploaded: int = 0
    total_bytes_downloaded: int = 0
    active_peers: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is on this node, or on its way."""

    hash: str
    seeding: bool


class Contents(Protocol):
    """What this node can tell others. Names have been checked before they get here."""

    async def metainfo(self, model_hash: str) -> bytes | None:
        """The torrent of a model that is complete here; None where it is not."""
        ...

    def stats(self) -> Stats: ...

    def models(self) -> Sequence[Model]: ...

    async def report(self, content_id: str, report: Report) -> Answer | None:
        """As ``Desk.report``; raises NotCoordinator. None: nothing is known of the content."""
        ...

    async def manifest(self, digest: str) -> Manifest | None:
        """A manifest that this node knows; ``digest`` is 64 hex digits."""
        ...

    async def blob(self, key: str) -> Path | None:
        """Where a complete, verified blob lies."""
        ...

    def sent(self, count: int) -> None:
        """So many bytes of blobs go to a peer."""
        ...


class BlobsRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    keys: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=f"^(?:{BLOB_KEY})$")], ...],
        Field(min_length=1, max_length=MAX_BLOBS),
    ]


class BlobHead(BaseModel):
    """The line before each blob's bytes. ``size`` None: not here; no bytes follow."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    size: Annotated[int, Field(ge=0, le=BLOB_BYTES)] | None = None


class Misdirected(BaseModel):
    """Body of a 421: who coordinates the content, if known."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    holder: Annotated[str, StringConstraints(max_length=300)] | None = None
