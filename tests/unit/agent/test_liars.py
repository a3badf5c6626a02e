"""Whole agents, one of which lies to the coordinator: the others get the right bytes, whatever it says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from modelswarm.agent import bits
from modelswarm.agent.messages import BadFile, Busy, Report
from tests.unit.agent.company import Agent, company_of, hash_of
from tests.unit.agent.store.conftest import MIB, content, noise, tree

pytestmark = pytest.mark.looptime

FILES = {"model.bin": noise("model", 7 * MIB + 123), "other.bin": noise("other", 3 * MIB), "config.json": b"{}"}
MODEL = content(FILES)
EVERYTHING = bits.to_bytes(bits.full(16))


def bogus_hashes(report: Report) -> Report:
    """It publishes hashes of bytes that do not exist."""
    published = tuple(
        each.model_copy(update={"hashes": bytes(len(each.hashes))}) if each.publisher == report.node else each
        for each in report.published
    )
    return report.model_copy(update={"published": published})


def has_everything(report: Report) -> Report:
    """It has everything, gives nothing, and tells no hashes."""
    return report.model_copy(
        update={"have": EVERYTHING, "verified": EVERYTHING, "complete": True, "published": (), "working": {}}
    )


def verified(report: Report) -> Report:
    """All that it publishes is right, it says."""
    return report.model_copy(update={"verified": EVERYTHING})


def complains(report: Report) -> Report:
    """All that the others have published is wrong, it says."""
    bad = tuple(BadFile(file=number) for number in range(3))
    return report.model_copy(update={"bad": bad, "have": EVERYTHING})


def starves(report: Report) -> Report:
    """Nobody gives it anything, it says."""
    return report.model_copy(update={"starved": tuple(range(8))})


def is_busy(report: Report) -> Report:
    """It fills all files for another content, it says."""
    return report.model_copy(update={"busy": tuple(Busy(file=number, content="0" * 64) for number in range(3))})


def whole(agent: Agent) -> bool:
    return tree(agent.parts.store.directory(hash_of(MODEL))) == FILES


@pytest.mark.parametrize("honest_nodes", [1, 2])
@pytest.mark.parametrize(
    ("lie", "flips"),
    [
        pytest.param(bogus_hashes, False, id="hashes that match nothing that it serves"),
        pytest.param(has_everything, False, id="it has everything"),
        pytest.param(verified, True, id="wrong bytes that it has verified"),
        pytest.param(complains, False, id="everybody else is wrong"),
        pytest.param(complains, True, id="everybody else is wrong, and wrong bytes of its own"),
        pytest.param(starves, False, id="nobody gives it anything"),
        pytest.param(is_busy, False, id="everything comes with another content"),
    ],
)
async def test_the_others_get_the_right_bytes(
    tmp_path: Path, lie: Callable[[Report], Report], flips: bool, honest_nodes: int
) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        *honest, liar = company.add(*"ab"[:honest_nodes], "liar")
        liar.lie = lie
        liar.leg.flips = dict.fromkeys(FILES, 99) if flips else {}
        for agent in (*honest, liar):
            agent.leg.pause = 0.2
            await agent.start(MODEL)
        await company.until_ready(MODEL, honest)
        assert all(map(whole, honest))
        assert liar.is_ready(MODEL) <= whole(liar)
        # Whatever the liar reads is its own affair.
        assert all(agent.standing(MODEL).origin_bytes <= 4 * MODEL.bytes for agent in honest)
