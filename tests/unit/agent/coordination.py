"""What the tests of the coordination share: contents, and reports of members."""

import hashlib

from modelswarm.agent import bits
from modelswarm.agent.messages import BadFile, Busy, Failure, Publication, Report
from modelswarm.agent.segments import Segment, hash_count
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind

MIB = 1 << 20


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def manifest(**sizes: int) -> Manifest:
    """Files by name (``_`` for a dot) and size, each with a digest of its own."""
    files = tuple(ManifestFile(name.replace("_", "."), size, digest_of(name)) for name, size in sorted(sizes.items()))
    return Manifest(Origin(OriginKind.HUGGINGFACE, "org/model"), "c" * 40, files)


def hashes_of(segment: Segment, sizes: list[int], *, salt: str = "") -> bytes:
    """As if the segment's pieces had been hashed; another ``salt``: other bytes."""
    if segment.is_bundle:
        return b""
    count = hash_count(segment, sizes[segment.file])
    return b"".join(hashlib.sha1(f"{segment.index}/{piece}/{salt}".encode()).digest() for piece in range(count))


def report(
    node: str,
    *,
    life: int = 0,
    number: int = 0,
    epoch: int = 0,
    cursor: int = 0,
    have: tuple[int, ...] | int = (),
    verified: tuple[int, ...] = (),
    published: tuple[Publication, ...] = (),
    working: dict[int, int] | None = None,
    failed: dict[int, Failure] | None = None,
    busy: tuple[Busy, ...] = (),
    bad: tuple[BadFile, ...] = (),
    starved: tuple[int, ...] = (),
    digests: dict[int, str] | None = None,
    complete: bool = False,
    wants: int = 2,
) -> Report:
    mask = have if isinstance(have, int) else bits.mask_of(have)
    return Report(
        node=node,
        url=f"http://{node}.example:8081",
        host="127.0.0.1",
        port=6881,
        life=life,
        number=number,
        epoch=epoch,
        cursor=cursor,
        have=bits.to_bytes(mask),
        verified=bits.to_bytes(bits.mask_of(verified)),
        published=published,
        working=working or {},
        failed=failed or {},
        busy=busy,
        bad=bad,
        starved=starved,
        digests=digests or {},
        complete=complete,
        wants=wants,
    )
