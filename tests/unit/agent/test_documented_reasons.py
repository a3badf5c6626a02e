"""Every reason that a NodeCache can have is explained to people."""

import re

import pytest

from dev.installation import ROOT
from modelswarm.agent import troubles
from modelswarm.agent.provisions import ProvisionReason
from modelswarm.agent.wanted import ScoutReason
from modelswarm.errors import ContentReason, StoreReason

OF_IMAGES = {ContentReason.PLATFORM_NOT_FOUND}
AT_THE_START = {StoreReason.STORE_BUSY}
OF_TROUBLES = {value for name, value in vars(troubles).items() if name.isupper() and isinstance(value, str)}
REASONS = {*ScoutReason, *ProvisionReason, *ContentReason, *StoreReason, *OF_TROUBLES} - OF_IMAGES - AT_THE_START


@pytest.fixture(scope="module")
def documented() -> set[str]:
    page = (ROOT / "docs" / "reference" / "troubleshooting.md").read_text()
    text = page.partition("\n## NodeCache\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {reason for cell in cells for reason in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("reason", sorted(map(str, REASONS)))
def test_a_reason_is_documented(reason: str, documented: set[str]) -> None:
    assert reason in documented
