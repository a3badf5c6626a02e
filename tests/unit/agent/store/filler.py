"""A process that fills a content in small steps until it is killed: `python -m ... ROOT SEED`.

It does what a session does, in an order that its seed decides, and says so when the content is complete.
"""

import asyncio
import hashlib
import random
import sys
from pathlib import Path

from modelswarm.agent.store import Filling, Store, StoreSettings
from tests.unit.agent.store.conftest import content, noise

PIECE = 16 << 10
FILES = {
    "config.json": b"{}",
    "empty": b"",
    "deep/one.bin": noise("one", 300_001),
    "two.bin": noise("two", 200_000),
    **{f"many/{index}.txt": str(index).encode() for index in range(20)},
}
MODEL = content(FILES, git=("config.json",))


async def step(filling: Filling, path: str, chance: random.Random) -> None:
    """One range of a large file, or a whole small one."""
    data, key = FILES[path], filling.key(path)
    if len(data) < PIECE:
        await filling.write_small(path, data)
        return
    partial = await filling.partial(key)
    gaps = partial.missing()
    if not gaps:
        await filling.finish(key)
        return
    start, _ = chance.choice(gaps)
    start -= start % PIECE
    end = min(start + PIECE * chance.randint(1, 4), len(data))
    partial.write([data[start:end]], start)
    if chance.random() < 0.7:
        hashes = [hashlib.sha1(data[at : min(at + PIECE, end)]).digest() for at in range(start, end, PIECE)]
        await filling.mark(key, start, end - start, piece_length=PIECE, hashes=b"".join(hashes))
    else:
        await filling.mark(key, start, end - start)


async def main(root: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with Store(StoreSettings(root, reserve=0)) as store:
        print("open", flush=True)
        filling = await store.begin(MODEL)
        while missing := filling.missing():
            await step(filling, chance.choice(missing).path, chance)
        await filling.complete()
        print("complete", flush=True)
        await filling.close()
        await store.purge(filling.content) if chance.random() < 0.3 else None


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
