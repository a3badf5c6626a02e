"""Whom small files are asked from, and when the origin is read instead. The clock only moves when everyone waits."""

import asyncio
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from modelswarm.agent.bundles import PATIENCE, SPREAD, Bundles
from modelswarm.agent.errands import Errands
from modelswarm.agent.segments import Segment
from modelswarm.agent.stock import Stock
from modelswarm.errors import PeerUnavailable

pytestmark = pytest.mark.looptime

A, B = "http://a.example:8081", "http://b.example:8081"
KEYS = ["sha256-0", "sha256-1"]
SEGMENTS = [Segment(number, (number,), 0, 2, is_bundle=True) for number in range(2)]


class Node:
    """One that misses two bundles of one file each. ``silent``: who gives nothing."""

    def __init__(self) -> None:
        self.have: set[int] = set()
        self.silent: set[str] = set()
        self.asked: list[tuple[str, float]] = []
        self.read: list[int] = []
        filling = SimpleNamespace(content="c" * 64, write_bundle=self._write)
        stock = SimpleNamespace(
            files=[SimpleNamespace(path="0"), SimpleNamespace(path="1")],
            keys=KEYS,
            filling=filling,
            holdings=SimpleNamespace(segments=SEGMENTS, has=self.have.__contains__),
            unplaced=lambda segment: [number for number in segment.files if number not in self.have],
            is_placed=self.have.__contains__,
            digest=lambda number: None,
            note=lambda numbers: None,
        )
        self.bundles = Bundles(
            cast(Stock, stock),
            self,
            Errands("content", ended=lambda kind: None, refused=lambda error: None),
            own_url="http://own.example:8081",
            arrived=lambda files: None,
            read=self._read,
            rng=random.Random(1),
        )

    async def blobs(self, url: str, keys: Sequence[str]) -> dict[str, bytes]:
        self.asked.append((url, time()))
        if url in self.silent:
            raise PeerUnavailable("no answer", url=url)
        return dict.fromkeys(keys, b"{}")

    async def _write(self, files: dict[str, bytes], digests: dict[str, str]) -> None:
        self.have.update(map(int, files))

    async def _read(self, segment: Segment) -> bool:
        self.read.append(segment.index)
        self.have.update(segment.files)
        return True

    async def until(self, number: int) -> None:
        async with asyncio.timeout(300):
            while number not in self.have:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def time() -> float:
    return asyncio.get_running_loop().time()


async def test_the_origin_is_read_when_no_holder_has_given_anything_for_a_minute() -> None:
    node = Node()
    node.silent = {A, B}
    began = time()
    node.bundles.learn({0: (A, B)})
    await node.until(0)
    assert node.read == [0]
    assert PATIENCE < time() - began < PATIENCE + SPREAD + 3.0
    # Nor is anybody asked again for the next one.
    asked = len(node.asked)
    node.bundles.learn({1: (A, B)})
    await node.until(1)
    assert node.read == [0, 1]
    assert len(node.asked) == asked


async def test_who_was_asked_in_vain_once_long_ago_is_asked_again() -> None:
    node = Node()
    node.silent = {A}
    node.bundles.learn({0: (A,)})
    await asyncio.sleep(0.1)
    node.bundles.learn({0: (A, B)})
    await node.until(0)
    assert [url for url, _ in node.asked] == [A, B]
    node.silent = set()
    await asyncio.sleep(2 * PATIENCE)
    node.bundles.learn({1: (A,)})
    await node.until(1)
    assert node.read == []
    assert [url for url, _ in node.asked] == [A, B, A]
