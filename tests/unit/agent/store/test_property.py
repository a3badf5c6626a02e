"""Whatever happens to the store, in whatever order: no wrong byte is ever called complete, nothing protected leaves."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from modelswarm.agent.store import Filling, Protection, Store, StoreSettings, content_id
from modelswarm.agent.store.shelf import Shelf
from modelswarm.errors import DigestMismatch, InsufficientCapacity
from tests.unit.agent.store.conftest import content, noise, tree

T = TypeVar("T")

PIECE = 1000
QUOTA = 16_000
"""Too little for everything, and enough for any one and its partials, which take whole blocks."""
SHARED = noise("shared", 3500)
CONTENTS = [
    {"a.bin": noise("a", 2500), "shared.bin": SHARED},
    {"sub/b.bin": noise("b", 4000), "shared.bin": SHARED, "again.bin": SHARED},
    {"c.bin": noise("c", 3000), "small": b"c"},
    {"d.bin": noise("a", 2500), "empty": b""},
]
MODELS = [content(files, id=f"org/{index}") for index, files in enumerate(CONTENTS)]
IDS = [content_id(model) for model in MODELS]
which = st.integers(0, len(MODELS) - 1)


class StoreMachine(RuleBasedStateMachine):
    """One node's life. ``clean`` are contents that were complete and that nobody has damaged or evicted since."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.settings = StoreSettings(
            self.folder / "models", reserve=0, quota=QUOTA, high=0.7, low=0.4, orphan_seconds=-10, threads=1
        )
        self.fillings: dict[int, Filling] = {}
        self.protected: frozenset[str] = frozenset()
        self.store = Store(self.settings)
        self.run(self.store.open())
        self.store.protect(Protection())

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.close()
        shutil.rmtree(self.folder)

    def begin(self, index: int) -> None:
        if index in self.fillings:
            return
        complete = self.store.has(IDS[index])
        try:
            self.fillings[index] = self.run(self.store.begin(MODELS[index]))
        except InsufficientCapacity:
            assert not complete
        else:
            assert self.fillings[index].is_complete or not complete

    @rule(index=which, at=st.integers(0, 3), wrong=st.booleans(), hashed=st.booleans())
    def fill(self, index: int, at: int, wrong: bool, hashed: bool) -> None:
        self.begin(index)
        filling = self.fillings.get(index)
        missing = [file for file in filling.missing() if file.size > 1] if filling else []
        if filling is None or not missing:
            return
        path = missing[0].path
        data = CONTENTS[index][path]
        start = at * PIECE
        piece = data[start : start + PIECE]
        if not piece:
            return
        if wrong:
            piece = bytes([piece[0] ^ 1]) + piece[1:]
        key = filling.key(path)
        partial = self.run(filling.partial(key))
        if partial.covers(start, len(piece)) and wrong:
            return
        partial.write([piece], start)
        hashes = hashlib.sha1(piece).digest() if hashed else b""
        self.run(filling.mark(key, start, len(piece), piece_length=PIECE if hashed else 0, hashes=hashes))
        self.run(filling.hash_ahead(key))

    @rule(index=which)
    def finish(self, index: int) -> None:
        filling = self.fillings.get(index)
        if filling is None:
            return
        for file in filling.missing():
            key, data = filling.key(file.path), CONTENTS[index][file.path]
            if file.size <= 1:
                self.run(filling.write_small(file.path, data))
                continue
            partial = self.run(filling.partial(key))
            if not partial.covers(0, file.size):
                continue
            right = partial.path.read_bytes() == data
            try:
                self.run(filling.finish(key))
                assert right
            except DigestMismatch:
                assert not right
                partial.drop(0, file.size)
        if not filling.missing():
            self.run(filling.complete())

    @rule(index=which, wrong=st.booleans(), end=st.booleans())
    def bring(self, index: int, wrong: bool, end: bool) -> None:
        """Everything that is missing, perhaps with one wrong piece at first."""
        for turn in range(1 + 2 * len(CONTENTS[index])):
            for at in range(4):
                self.fill(index, at, wrong=wrong and turn == at == 0, hashed=bool(at % 2))
            self.finish(index)
        assert index not in self.fillings or self.fillings[index].is_complete
        if end:
            self.end(index)

    @rule(index=which)
    def end(self, index: int) -> None:
        if index in self.fillings:
            self.run(self.fillings.pop(index).close())

    @rule(clean=st.booleans(), same_boot=st.booleans())
    def reopen(self, clean: bool, same_boot: bool) -> None:
        """A restart, or a process that is gone from one moment to the next: only the lock and descriptors go."""
        if clean:
            self.run(self.store.close())
        else:
            for partial in self.store._partials.values():
                partial._pending.clear()
                partial._fresh = type(partial._fresh)()
                partial.close()
            self.store.shelf.close()
            self.store.threads.close()
        self.fillings.clear()
        self.store = Store(self.settings)
        if not same_boot:
            self.store.shelf.boot = os.urandom(4).hex()
            self.store.shelf.stamps._boot = self.store.shelf.boot
        self.run(self.store.open())
        self.store.protect(Protection(pinned=self.protected))

    @rule(chosen=st.sets(which))
    def protect(self, chosen: set[int]) -> None:
        self.protected = frozenset(IDS[index] for index in chosen)
        self.store.protect(Protection(pinned=self.protected))

    @rule()
    def make_room(self) -> None:
        before = [content for content in IDS if self.store.has(content) and content in self.protected]
        self.run(self.store.keep_watermark())
        self.run(self.store.sweep())
        assert all(map(self.store.has, before))

    @rule(index=which)
    def purge(self, index: int) -> None:
        self.fillings.pop(index, None)
        self.run(self.store.purge(IDS[index]))
        assert not self.store.has(IDS[index])

    @rule(index=which, path=st.sampled_from(["x", "y/z"]))
    def materialize(self, index: int, path: str) -> None:
        if not self.store.has(IDS[index]):
            self.bring(index, wrong=False, end=True)
        if self.store.has(IDS[index]):
            self.run(self.store.materialize(IDS[index], self.settings.root / path))
            assert tree(self.settings.root / path) == CONTENTS[index]

    @invariant()
    def what_is_complete_is_right(self) -> None:
        for index, content_files in enumerate(CONTENTS):
            folder = self.settings.root / "models" / IDS[index]
            marked = (folder / ".complete").exists()
            assert marked == self.store.has(IDS[index])
            if marked:
                assert tree(folder) == content_files
            elif folder.exists():
                for path, data in tree(folder).items():
                    assert data == content_files[path]

    @invariant()
    def the_quota_is_kept(self) -> None:
        shelf: Shelf = self.store.shelf
        assert sum(shelf.blob_sizes().values()) <= QUOTA


StoreMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStore = StoreMachine.TestCase
