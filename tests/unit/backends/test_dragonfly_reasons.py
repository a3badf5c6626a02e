"""The vocabulary of engine Dragonfly is documented, word for word."""

import re
from pathlib import Path

from modelswarm.backends.dragonfly.reasons import DragonflyReason

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "troubleshooting.md"


def test_every_reason_is_in_the_document_once_and_none_besides() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("\n## P2PTask with engine Dragonfly\n")[2]
    documented = re.findall(r"^\| `(\w+)` \|", section.partition("\n#")[0], flags=re.M)
    assert sorted(documented) == sorted(DragonflyReason)
