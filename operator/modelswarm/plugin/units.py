"""Numbers as people read them in Kubernetes."""

from datetime import datetime

NONE = "-"


def size(count: int | None) -> str:
    """``953.1Mi``; bytes."""
    if count is None:
        return NONE
    value = float(count)
    for unit in ("", "Ki", "Mi", "Gi"):
        if value < 1024:
            return f"{value:.1f}{unit}" if unit else f"{count}"
        value /= 1024
    return f"{value:.1f}Ti"


def rate(bytes_per_second: int) -> str:
    """``12.5Mi/s``; ``-`` while nothing moves."""
    return f"{size(bytes_per_second)}/s" if bytes_per_second > 0 else NONE


def duration(seconds: float | None) -> str:
    """``45s``, ``3m20s``, ``2h05m``, ``3d4h``."""
    if seconds is None:
        return NONE
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def age(moment: datetime | None, now: datetime) -> str:
    return NONE if moment is None else duration((now - moment).total_seconds())


def percent(done: int, total: int) -> str:
    return f"{min(100, done * 100 // total)}%" if total else NONE
