"""What is to be brought onto the seed peers, in what order, and how it is cut into jobs. Pure."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelswarm.backends.dragonfly.items import Items
from modelswarm.backends.dragonfly.taskid import digest_task_id, url_task_id
from modelswarm.content.endpoints import Endpoints, file_url
from modelswarm.content.manifest import Manifest

SPLIT = 4
"""Into how many parts a job is cut whose failure does not say which file it was."""
_BLOB = re.compile(r"/blobs/([a-z0-9]+:[0-9a-f]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. ``platform`` is empty for files of a model; a layer that several platforms share is the first's."""

    name: str
    url: str
    size: int
    task_id: str
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Files are known by their number in ``entries``: the order follows from content and settings alone.

    ``manifest_url`` is set for an image: the manager lists the layers of a platform by itself.
    """

    id: str
    entries: tuple[Entry, ...]
    manifest_url: str | None = None

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def everything(self) -> Items:
        return frozenset(range(len(self.entries)))

    def size_of(self, items: Items) -> int:
        return sum(self.entries[number].size for number in items)

    def key(self, url: str) -> str:
        """What tells files apart in the manager's answers: the URL; of an image, the digest in it (hosts vary)."""
        match = _BLOB.search(url) if self.manifest_url is not None else None
        return match[1] if match else url

    def largest(self, count: int) -> list[Entry]:
        return sorted(self.entries, key=lambda entry: (-entry.size, entry.name))[:count]


def plan_id(*parts: object) -> str:
    """Sixteen hex digits that change with anything that changes what is asked for, or its order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def plan_model(
    identity: str, manifest: Manifest, endpoints: Endpoints, *, tag: str = "", application: str = ""
) -> Plan:
    """One URL per file at the pinned commit. Empty files are left out: there is nothing to bring.

    Raises ``InvalidReference`` for a manifest without a revision.
    """
    entries: dict[str, Entry] = {}
    for file in sorted(manifest.files):
        if file.size == 0:
            continue
        url = file_url(manifest.origin, manifest.revision, file.path, endpoints)
        task_id = url_task_id(url, tag=tag, application=application)
        entries.setdefault(task_id, Entry(file.path, url, file.size, task_id))
    return Plan(identity, tuple(entries.values()))


def plan_image(
    identity: str, manifests: Mapping[str, Manifest], base_url: str, repository: str, digest: str, *, digest_ids: bool
) -> Plan:
    """The configs and layers of each platform. The manifests themselves stay with the registry."""
    entries: dict[str, Entry] = {}
    for platform in sorted(manifests):
        for file in sorted(manifests[platform].files):
            if file.digest is None or not file.path.startswith("blobs/"):
                continue
            url = f"{base_url}/v2/{repository}/blobs/{file.digest}"
            task_id = (digest_task_id(url) if digest_ids else None) or url_task_id(url)
            entries.setdefault(file.digest, Entry(file.digest, url, file.size, task_id, platform))
    return Plan(identity, tuple(entries.values()), f"{base_url}/v2/{repository}/manifests/{digest}")


def cut(plan: Plan, items: Items, *, max_files: int, max_bytes: int) -> list[Items]:
    """The files as sets that are one job each: in order, within the bounds (a larger file goes alone).

    The layers of one platform are always one job, because the manager takes an image only as a whole.
    """
    if plan.manifest_url is not None:
        return _by_platform(plan, items)
    chunks: list[Items] = []
    chunk: list[int] = []
    size = 0
    for number in sorted(items):
        more = plan.entries[number].size
        if chunk and (len(chunk) >= max_files or size + more > max_bytes):
            chunks.append(frozenset(chunk))
            chunk, size = [], 0
        chunk.append(number)
        size += more
    return [*chunks, frozenset(chunk)] if chunk else chunks


def split(plan: Plan, items: Items, suspects: Items) -> list[Items]:
    """The parts in which a failed job is tried again: what is suspected goes alone, file by file, and last.

    Where nothing is suspected, one bad file is found by halving (into ``SPLIT`` parts at a time).
    """
    if plan.manifest_url is not None:
        return _by_platform(plan, items)
    if named := sorted(items & suspects):
        rest = items - suspects
        return [*([rest] if rest else []), *(frozenset({number}) for number in named)]
    order: Sequence[int] = sorted(items)
    per_part = -(-len(order) // SPLIT) or 1
    return [frozenset(order[start : start + per_part]) for start in range(0, len(order), per_part)]


def _by_platform(plan: Plan, items: Items) -> list[Items]:
    platforms = sorted({plan.entries[number].platform for number in items})
    return [frozenset(n for n in items if plan.entries[n].platform == platform) for platform in platforms]
