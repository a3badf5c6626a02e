"""``playground/NAME`` and the like: what a user points at, and what they may have meant. Pure."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from modelswarm.plugin.exits import unknown, usage


class What(StrEnum):
    """The kinds that commands take, by the word that messages use."""

    PLAYGROUND = "playground"
    MODEL = "openmodel"
    TASK = "p2ptask"
    NODE = "node"


_WORDS = {
    **dict.fromkeys(("playground", "playgrounds", "pl"), What.PLAYGROUND),
    **dict.fromkeys(("openmodel", "openmodels", "om", "model"), What.MODEL),
    **dict.fromkeys(("p2ptask", "p2ptasks", "p2pt", "task"), What.TASK),
    **dict.fromkeys(("node", "nodes", "nodecache", "nodecaches", "nc", "no"), What.NODE),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """One object. Playgrounds and tasks also have a namespace, which is an option of the command."""

    what: What
    name: str

    def __str__(self) -> str:
        return f"{self.what}/{self.name}"


def parse(text: str, allowed: Iterable[What], default: What | None = None) -> Reference:
    """``KIND/NAME``, or a bare name where there is a ``default``. Raises CommandError (usage)."""
    kinds = tuple(allowed)
    kind, slash, name = text.partition("/")
    forms = ", ".join(f"{each}/NAME" for each in kinds)
    if not slash and default is not None and kind:
        return Reference(default, kind)
    # As kubectl: the full name of a resource carries its group.
    what = _WORDS.get(kind.lower().partition(".")[0])
    if not slash or what not in kinds or not name or "/" in name:
        raise usage(f"{text!r} does not name an object of this command; write {forms}")
    return Reference(what, name)


def missing(what: What, name: str, existing: Iterable[str], where: str = "") -> Exception:
    """The error for an object that does not exist, with names that look like it."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(existing)), n=3, cutoff=0.6)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    return unknown(f"{what}/{name} does not exist{where}{meant}")
