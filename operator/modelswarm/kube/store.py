"""What the watches have told, kept as compact bytes: a few thousand objects, a few kilobytes each.

Watch events, our own writes' answers and resync lists arrive in any order. The resourceVersion decides which of two
versions of an object is newer, and a deleted object leaves a tombstone, so that nothing that arrives late brings an old
state back. Comparing resourceVersions as integers is what the API server documents since Kubernetes 1.35 and what it
has always done.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from modelswarm.api.meta import JsonObject
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import Kind
from modelswarm.kube.objects import key_of, metadata, version_of
from modelswarm.kube.port import Listing

logger = logging.getLogger(__name__)

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
TOMBSTONE_SECONDS = 600.0

IndexFunction = Callable[[JsonObject], Iterable[str]]


@dataclass(slots=True)
class _Entry:
    version: str
    data: bytes
    indexed: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Table:
    """The objects of one kind."""

    entries: dict[Key, _Entry] = field(default_factory=dict)
    functions: dict[str, IndexFunction] = field(default_factory=dict)
    indexes: dict[tuple[str, str], dict[Key, None]] = field(default_factory=dict)
    tombstones: dict[Key, tuple[str, float]] = field(default_factory=dict)
    listed_at: str = "0"
    """The resourceVersion of the last complete list: an unknown object that is not newer has gone before it."""

    def insert(self, key: Key, obj: JsonObject, version: str) -> None:
        self.discard(key)
        entry = _Entry(version, to_json(obj), self._index_values(obj))
        self.entries[key] = entry
        for pair in entry.indexed:
            self.indexes.setdefault(pair, {})[key] = None

    def discard(self, key: Key) -> _Entry | None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self._unindex(key, entry)
        return entry

    def clear(self) -> None:
        """Forget everything but the index functions."""
        self.entries.clear()
        self.indexes.clear()
        self.tombstones.clear()
        self.listed_at = "0"

    def reindex(self) -> None:
        for key, entry in self.entries.items():
            self._unindex(key, entry)
            entry.indexed = self._index_values(from_json(entry.data))
            for pair in entry.indexed:
                self.indexes.setdefault(pair, {})[key] = None

    def _index_values(self, obj: JsonObject) -> tuple[tuple[str, str], ...]:
        if not self.functions:
            return ()
        return tuple({(name, value): None for name, function in self.functions.items() for value in function(obj)})

    def _unindex(self, key: Key, entry: _Entry) -> None:
        for pair in entry.indexed:
            keys = self.indexes[pair]
            del keys[key]
            if not keys:
                del self.indexes[pair]


class Store:
    """All objects that the operator follows. Not for threads; never waits."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tables: dict[Kind, _Table] = {}

    def index(self, kind: Kind, name: str, fn: IndexFunction) -> None:
        """Keep an index: ``fn`` says under which values an object is to be found by ``list(index=(name, value))``."""
        table = self._table(kind)
        table.functions[name] = fn
        table.reindex()

    def put(self, kind: Kind, obj: JsonObject) -> bool:
        """Take in a version of an object; returns False if it, or a newer one, or its deletion was known already."""
        table, key, version = self._table(kind), key_of(obj), version_of(obj)
        known = table.entries.get(key)
        buried, _ = table.tombstones.get(key, ("0", 0.0))
        newest = known.version if known is not None else max(buried, table.listed_at, key=_number)
        if not _newer(version, newest):
            return False
        table.tombstones.pop(key, None)
        table.insert(key, _strip(obj), version)
        return True

    def remove(self, kind: Kind, obj_or_key: JsonObject | Key, resource_version: str | None = None) -> bool:
        """An object is gone; returns whether it was there.

        An object as of its deletion (or a key with that resourceVersion) removes only what is not newer: the name may
        have been taken again. A key alone removes whatever is known.
        """
        if isinstance(obj_or_key, Key):
            key, version = obj_or_key, resource_version or ""
        else:
            key, version = key_of(obj_or_key), resource_version or version_of(obj_or_key)
        table = self._table(kind)
        known = table.entries.get(key)
        if known is not None and version and _later(known.version, version):
            return False
        table.discard(key)
        version = version or (known.version if known is not None else "")
        if version:
            self._bury(table, key, version)
        return known is not None

    def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject | None:
        """A copy of the newest known version, without managedFields."""
        entry = self._table(kind).entries.get(Key(namespace or "", name))
        return None if entry is None else from_json(entry.data)

    def keys(self, kind: Kind, *, index: tuple[str, str] | None = None, namespace: str | None = None) -> list[Key]:
        """The keys of what ``list`` would return, in the same order, at a fraction of its cost."""
        table = self._table(kind)
        keys: Iterable[Key]
        if index is None:
            keys = table.entries
        elif index[0] not in table.functions:
            raise KeyError(f"{kind.kind} has no index {index[0]!r}")
        else:
            keys = table.indexes.get(index, {})
        return sorted((key for key in keys if namespace is None or key.namespace == namespace), key=_order)

    def tally(self, kind: Kind, index: str) -> dict[str, int]:
        """How many objects there are under each value of an index. Also safe to call from another thread."""
        indexes = self._table(kind).indexes.copy()
        return {value: len(keys) for (name, value), keys in indexes.items() if name == index}

    def replace_all(self, kind: Kind, objects: Sequence[JsonObject], started_rv: str | int | None = None) -> list[Key]:
        """Take in a complete list of a kind; returns the keys that appeared, changed or vanished.

        What the list lacks is gone unless it is newer than the list: its resourceVersion, which a ``Listing`` knows
        and ``started_rv`` overrides. With neither, the newest object of the list stands in for it, which keeps too
        much rather than too little. Lists of a kind must come in the order in which they were asked for: one that is
        older than the last one means that the API server's data was restored from a backup, and replaces everything.
        """
        table = self._table(kind)
        version = str(started_rv) if started_rv is not None else getattr(objects, "resource_version", "")
        version = version or _newest(objects)
        changed: dict[Key, None] = {}
        if _later(table.listed_at, version):
            logger.warning("%s: the API server's history went back; believing its list", kind.plural)
            changed = dict.fromkeys(table.entries)
            table.clear()
        changed.update({key_of(obj): None for obj in objects if self.put(kind, obj)})
        listed = {key_of(obj) for obj in objects}
        for key in [key for key in table.entries if key not in listed]:
            entry = table.entries[key]
            if not _later(entry.version, version):
                table.discard(key)
                self._bury(table, key, version)
                changed[key] = None
        if _later(version, table.listed_at):
            table.listed_at = version
        return sorted(changed, key=_order)

    def versions(self, kind: Kind) -> dict[Key, str]:
        """The resourceVersion of every known object."""
        return {key: entry.version for key, entry in self._table(kind).entries.items()}

    def count(self, kind: Kind) -> int:
        return len(self._table(kind).entries)

    def size(self) -> int:
        """Bytes of JSON that are held."""
        return sum(len(entry.data) for table in self._tables.values() for entry in table.entries.values())

    # Last, because within the class body the name means this method from here on.
    def list(self, kind: Kind, *, index: tuple[str, str] | None = None, namespace: str | None = None) -> Listing:
        """Copies, ordered by namespace and name; ``index`` is the name of an index and the value to look for."""
        entries = self._table(kind).entries
        return Listing([from_json(entries[key].data) for key in self.keys(kind, index=index, namespace=namespace)])

    def _table(self, kind: Kind) -> _Table:
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = _Table()
        return table

    def _bury(self, table: _Table, key: Key, version: str) -> None:
        now = self._clock()
        for old in list(table.tombstones):
            if table.tombstones[old][1] > now:
                break
            del table.tombstones[old]
        known = table.tombstones.pop(key, None)
        if known is not None and _later(known[0], version):
            version = known[0]
        table.tombstones[key] = (version, now + TOMBSTONE_SECONDS)


def _order(key: Key) -> tuple[str, str]:
    return (key.namespace, key.name)


def _later(version: str, than: str) -> bool:
    """Whether the first version is certainly later; False for versions that are not numbers."""
    try:
        return int(version) > int(than)
    except ValueError:
        return False


def _newer(version: str, than: str) -> bool:
    """Whether to believe the first version; where they are not numbers, if they differ."""
    try:
        return int(version) > int(than)
    except ValueError:
        return version != than or not version


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0


def _newest(objects: Iterable[JsonObject]) -> str:
    return max(map(version_of, objects), key=_number, default="0")


def _strip(obj: JsonObject) -> JsonObject:
    """Without what nobody reads and what is often half of the object. The given object stays as it is."""
    meta = metadata(obj)
    annotations = meta.get("annotations") or {}
    if "managedFields" not in meta and LAST_APPLIED not in annotations:
        return obj
    kept: dict[str, Any] = {name: value for name, value in meta.items() if name != "managedFields"}
    if LAST_APPLIED in annotations:
        kept["annotations"] = {name: value for name, value in annotations.items() if name != LAST_APPLIED}
    return {**obj, "metadata": kept}
