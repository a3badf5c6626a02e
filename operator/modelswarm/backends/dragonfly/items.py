"""Sets of file numbers, as short text: ``0-3,7``. A status and a job's marker have to fit thousands of them."""

import re
from collections.abc import Iterable

_TEXT = re.compile(r"(\d{1,7}(-\d{1,7})?(,\d{1,7}(-\d{1,7})?)*)?", re.ASCII)
Items = frozenset[int]
"""Numbers of files in the order of the plan, from 0 on."""


def format_items(items: Iterable[int]) -> str:
    """``0-3,7``: ascending, without repetition; empty text for none."""
    parts: list[str] = []
    run: list[int] = []
    for number in [*sorted(set(items)), None]:
        if run and (number is None or number != run[-1] + 1):
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        if number is not None:
            run.append(number)
    return ",".join(parts)


def parse_items(text: str, *, below: int) -> Items:
    """The set that ``text`` means, without numbers from ``below`` on; nothing for text of another form."""
    found: set[int] = set()
    if _TEXT.fullmatch(text):
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            found.update(range(int(first), min(int(last or first), below - 1) + 1))
    return frozenset(found)
