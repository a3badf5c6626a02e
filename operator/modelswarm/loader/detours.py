"""Why files did not come from a leg that stands before another one: counted, heeded, and told in the summary."""

from dataclasses import dataclass, field

LIMIT = 3
"""Failures in a row after which a leg is left alone for the rest of the run."""
MOST_CHARACTERS = 300
_MOST_REASONS = 3


@dataclass(slots=True)
class _Record:
    """What is known of one leg. ``reasons``: how often, and the message of the first time."""

    in_a_row: int = 0
    off: bool = False
    unused: str = ""
    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    def text(self) -> str:
        if self.unused:
            return f"not used: {self.unused}"
        told = [f"{reason} x{count} ({first})" for reason, (count, first) in self.reasons.items()]
        parts = told[:_MOST_REASONS]
        if len(told) > _MOST_REASONS:
            parts.append(f"{len(told) - _MOST_REASONS} more reasons")
        end = f"; not asked any more after {LIMIT} failures in a row" if self.off else ""
        return _cut("; ".join(parts), MOST_CHARACTERS - len(end)) + end


class Detours:
    """Legs by name. The last leg of a file is nobody's detour and never off."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def unused(self, leg: str, why: str) -> None:
        """The leg is configured, and is not asked for anything in this run."""
        self._record(leg).unused = _cut(why, MOST_CHARACTERS // 2)

    def failed(self, leg: str, reason: str, message: str) -> bool:
        """A file has to come from the next leg; returns whether this was one time too many."""
        record = self._record(leg)
        count, first = record.reasons.get(reason, (0, _cut(message, MOST_CHARACTERS // 2)))
        record.reasons[reason] = (count + 1, first)
        record.in_a_row += 1
        ended = record.in_a_row >= LIMIT and not record.off
        record.off = record.off or ended
        return ended

    def served(self, leg: str) -> None:
        """The leg has given a file, and its bytes were right."""
        self._record(leg).in_a_row = 0

    def is_off(self, leg: str) -> bool:
        """Whether the leg is left alone from now on."""
        return leg in self._records and self._records[leg].off

    def texts(self) -> dict[str, str]:
        """For each leg that was left out of a file: why, in plain characters, at most ``MOST_CHARACTERS`` of them."""
        return {name: record.text() for name, record in self._records.items() if record.unused or record.reasons}

    def _record(self, leg: str) -> _Record:
        return self._records.setdefault(leg, _Record())


def _cut(text: str, characters: int) -> str:
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)
    return plain if len(plain) <= characters else plain[: characters - 3] + "..."
