"""What leaves the node when room is wanted: a pure choice."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Protection:
    """Content ids, by who needs them.

    ``pinned``: a task with ``pin: true``. ``in_use``: a pod on this node. ``keep``: any other reason. These never
    leave. ``wanted`` leave only after everything that nobody asks for, and not to keep a watermark.
    """

    pinned: frozenset[str] = field(default_factory=frozenset)
    in_use: frozenset[str] = field(default_factory=frozenset)
    keep: frozenset[str] = field(default_factory=frozenset)
    wanted: frozenset[str] = field(default_factory=frozenset)

    @property
    def always(self) -> frozenset[str]:
        return self.pinned | self.in_use | self.keep


@dataclass(frozen=True, slots=True)
class Candidate:
    """A content on the node; ``last_used`` is in seconds since the epoch."""

    content: str
    blobs: frozenset[str]
    last_used: float


@dataclass(frozen=True, slots=True)
class Choice:
    """``contents`` in the order of leaving; ``freed`` bytes, each blob counted once."""

    contents: tuple[str, ...]
    freed: int


def choose(
    candidates: Sequence[Candidate],
    sizes: Mapping[str, int],
    held: Collection[str],
    protection: Protection,
    wanted_bytes: int,
    *,
    spare_wanted: bool = False,
) -> Choice:
    """The least recently used contents whose leaving frees ``wanted_bytes``, or all that may leave.

    ``sizes`` are the blobs that are on disk, ``held`` those that running downloads need. A blob is freed when nobody
    who stays has it, so the bytes of one content may depend on another's leaving.
    """
    users: dict[str, int] = {}
    for candidate in candidates:
        for key in candidate.blobs:
            users[key] = users.get(key, 0) + 1
    barred = protection.always | (protection.wanted if spare_wanted else frozenset())
    order = sorted(
        (candidate for candidate in candidates if candidate.content not in barred),
        key=lambda candidate: (candidate.content in protection.wanted, candidate.last_used, candidate.content),
    )
    leaving: list[str] = []
    freed = 0
    for candidate in order:
        if freed >= wanted_bytes:
            break
        leaving.append(candidate.content)
        for key in candidate.blobs:
            users[key] -= 1
            if users[key] == 0 and key not in held:
                freed += sizes.get(key, 0)
    return Choice(tuple(leaving), freed)
