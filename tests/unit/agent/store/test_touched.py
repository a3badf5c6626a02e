"""A blob that was written to after it was verified, before its content was complete."""

import os
from pathlib import Path

import pytest

from modelswarm.agent.store import Store, StoreSettings
from modelswarm.errors import StorageFailed
from tests.unit.agent.store.conftest import content, noise, put

FILES = {"model.bin": noise("model", 3 << 20)}
MODEL = content(FILES)


@pytest.mark.parametrize("right", [pytest.param(True, id="the same bytes"), pytest.param(False, id="other bytes")])
async def test_what_was_touched_is_hashed_again(tmp_path: Path, right: bool) -> None:
    async with Store(StoreSettings(tmp_path, node="n", reserve=0)) as store:
        async with await store.begin(MODEL) as filling:
            key = filling.key("model.bin")
            await put(filling, key, FILES["model.bin"])
            await filling.finish(key)
            partial = await filling.partial(key)
            partial.write([FILES["model.bin"][:8] if right else b"spoiled!"], 0)
            os.utime(partial.path, (1, 1))
            if right:
                await filling.complete()
            else:
                with pytest.raises(StorageFailed):
                    await filling.complete()
                assert [file.path for file in filling.missing()] == ["model.bin"]
        assert store.has(filling.content) is right
