"""Killed at any moment, the store is opened again and ends right."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelswarm.agent.store import Store, StoreSettings, content_id
from tests.unit.agent.store.conftest import fill, tree
from tests.unit.agent.store.filler import FILES, MODEL

ROUNDS = 12
LONGEST = 0.25
"""Seconds of life after the store is open; filling it takes about so long."""


def live_and_die(root: Path, seed: int, life: float) -> None:
    """One process that fills, and a SIGKILL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.agent.store.filler", str(root), str(seed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(life)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def check(root: Path) -> int:
    """What is claimed is true; returns the bytes that are there."""
    async with Store(StoreSettings(root, reserve=0)) as store:
        if store.has(content_id(MODEL)):
            assert tree(store.directory(content_id(MODEL))) == FILES
        filling = await store.begin(MODEL)
        for file in filling.missing():
            partial = await filling.partial(filling.key(file.path))
            on_disk = partial.path.read_bytes()
            assert len(on_disk) == file.size
            for start, end in partial.present:
                assert on_disk[start:end] == FILES[file.path][start:end]
        present = filling.present_bytes()
        await filling.close()
        for path, data in tree(store.directory(content_id(MODEL))).items():
            assert data == FILES[path], "a file appears whole"
        return present


@pytest.mark.slow
def test_killed_again_and_again_it_never_claims_what_is_not_there(tmp_path: Path) -> None:
    chance = random.Random(time.time_ns())
    root = tmp_path / "models"
    seeds = [chance.randrange(1 << 30) for _ in range(ROUNDS)]
    for seed in seeds:
        live_and_die(root, seed, chance.uniform(0, LONGEST))
        assert asyncio.run(check(root)) >= 0, f"seeds {seeds}"

    async def end() -> None:
        async with Store(StoreSettings(root, reserve=0)) as store:
            async with await store.begin(MODEL) as filling:
                await fill(filling, FILES)
            assert tree(store.directory(filling.content)) == FILES
            assert await store.recheck(filling.content) == ()
        assert os.listdir(root / "partial") == []
        assert os.listdir(root / ".modelswarm" / "trash") == []

    asyncio.run(end())
