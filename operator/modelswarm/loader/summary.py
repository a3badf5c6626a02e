"""The end of a load, as JSON: the container's termination message, for ``kubectl describe`` and for machines."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MOST_BYTES = 4096
"""The kubelet cuts a termination message there, which would leave broken JSON."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What happened. ``bytes_by_source`` counts what came from where, discarded bytes included.

    ``skipped`` says of sources that were configured and passed over, if any, why. ``waited`` are the seconds until it
    was this loader's turn at the origin.
    """

    result: str
    model: str
    reason: str = ""
    message: str = ""
    revision: str | None = None
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    bytes_by_source: Mapping[str, int] = field(default_factory=dict)
    unverified: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)
    waited: float = 0.0

    def to_json(self) -> str:
        """At most ``MOST_BYTES`` bytes: the message is what gives way."""
        message = self.message
        while True:
            text = self._json(message)
            excess = len(text.encode()) - MOST_BYTES
            if excess <= 0:
                return text
            # A character may take six bytes as an escape; cutting by the excess may need a few rounds.
            message = message[: max(len(message) - excess - 3, 0)] + "…" if len(message) > 1 else ""

    def _json(self, message: str) -> str:
        document: dict[str, object] = {
            "result": self.result,
            "reason": self.reason,
            "message": message,
            "model": self.model[:512],
            "revision": self.revision,
            "files": self.files,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 1),
            "bytesBySource": dict(self.bytes_by_source),
            "unverified": self.unverified,
        }
        if self.waited:
            document["waitedSeconds"] = round(self.waited, 1)
        if self.skipped:
            document["skipped"] = dict(self.skipped)
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def write_termination_log(path: Path, text: str) -> str | None:
    """Write the termination message; returns what went wrong, which is never a reason to fail."""
    try:
        path.write_text(text)
    except OSError as error:
        return f"no termination message: {path}: {error.strerror or type(error).__name__}"
    return None
