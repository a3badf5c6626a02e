"""What a store is told by its configuration."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """``quota`` and ``reserve`` are bytes; times are seconds.

    ``quota`` bounds what the store occupies (None: the file system does). ``reserve`` stays free for others whatever
    happens. The watermarks are fractions of the quota, or else of the file system: above ``high`` the least recently
    used contents leave until ``low`` is reached. What nothing refers to is removed when it is older than
    ``orphan_seconds``. ``threads`` bounds the disk work that goes on at once.
    """

    root: Path
    node: str = ""
    quota: int | None = None
    reserve: int = 1 << 30
    high: float = 0.90
    low: float = 0.80
    orphan_seconds: float = 3600.0
    threads: int = 4
