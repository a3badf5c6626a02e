"""How much room there is and how much is wanted: arithmetic, no IO. All numbers are bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from modelswarm.agent.store.settings import StoreSettings


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system as it says: ``free`` is what an ordinary process may still write."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """``used`` is what the store occupies, ``reserved`` what running downloads still will, ``available`` what a new
    one may take (never below zero), and ``limit`` the quota or the file system's size. ``balance`` goes below zero:
    what has to be freed before anything is available."""

    limit: int
    used: int
    reserved: int
    balance: int
    disk: Disk

    @property
    def available(self) -> int:
        return max(self.balance, 0)


def measure(settings: StoreSettings, disk: Disk, used: int, reserved: int) -> Capacity:
    """The tighter of disk and quota decides."""
    balance = disk.free - settings.reserve - reserved
    if settings.quota is not None:
        balance = min(balance, settings.quota - used - reserved)
    return Capacity(disk.total if settings.quota is None else settings.quota, used, reserved, balance, disk)


def surplus(settings: StoreSettings, disk: Disk, used: int) -> int:
    """Bytes to evict, down to the low watermark, when the high one is passed; else zero."""
    if settings.quota is not None:
        full, limit = used, settings.quota
    else:
        full, limit = disk.total - disk.free, disk.total
    return full - int(limit * settings.low) if full > limit * settings.high else 0


def outstanding(wanted: Iterable[Mapping[str, int]], occupied: Mapping[str, int]) -> int:
    """What downloads still write: every blob once, less what its partial occupies already."""
    sizes: dict[str, int] = {}
    for blobs in wanted:
        sizes.update(blobs)
    return sum(max(size - occupied.get(key, 0), 0) for key, size in sizes.items())


def human(count: int) -> str:
    """``65.5Gi``, ``40Gi``, ``812Mi``: as Kubernetes writes quantities, one decimal place at most."""
    value = float(count)
    for unit in ("", "Ki", "Mi", "Gi"):
        if value < 1024:
            return f"{value:.1f}".removesuffix(".0") + unit
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + "Ti"
