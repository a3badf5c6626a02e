"""Every typed reason has a cause and a remedy."""

from collections.abc import Iterator
from enum import StrEnum

import pytest

from modelswarm.agent import troubles
from modelswarm.agent.provisions import ProvisionReason
from modelswarm.agent.wanted import ScoutReason
from modelswarm.api.conditions import ModelReason, PlaygroundReason, TaskReason
from modelswarm.api.remedies import NOTHING, REMEDIES, Grade, Remedy, Subject, find_remedy
from modelswarm.backends.dragonfly.reasons import DragonflyReason
from modelswarm.errors import ContentReason, RenderReason, StoreReason
from modelswarm.loader.outcome import Reason as LoaderReason

TROUBLES = [
    value for name, value in vars(troubles).items() if name.isupper() and isinstance(value, str) and name != "TASK"
]
"""The agent's reasons that are constants of their module."""


def typed() -> Iterator[tuple[Subject, type[StrEnum]]]:
    yield Subject.OPENMODEL, ModelReason
    yield Subject.PLAYGROUND, PlaygroundReason
    yield Subject.PLAYGROUND, RenderReason
    yield Subject.P2PTASK, TaskReason
    yield Subject.P2PTASK, ContentReason
    yield Subject.DRAGONFLY, DragonflyReason
    yield Subject.NODECACHE, ContentReason
    yield Subject.NODECACHE, StoreReason
    yield Subject.NODECACHE, ScoutReason
    yield Subject.NODECACHE, ProvisionReason
    yield Subject.LOADER, LoaderReason


CASES = [
    *(pytest.param(subject, reason.value, id=f"{subject}: {reason}") for subject, enum in typed() for reason in enum),
    *(pytest.param(Subject.NODECACHE, reason, id=f"NodeCache: {reason}") for reason in TROUBLES),
]


@pytest.mark.parametrize(("subject", "reason"), CASES)
def test_every_typed_reason_has_an_entry_of_its_own(subject: Subject, reason: str) -> None:
    assert reason in REMEDIES[subject]


@pytest.mark.parametrize(
    ("subject", "reason", "entry"),
    [
        pytest.param(subject, reason, entry, id=f"{subject}: {reason}")
        for subject, entries in REMEDIES.items()
        for reason, entry in entries.items()
    ],
)
def test_every_entry_is_two_sentences_without_padding(subject: Subject, reason: str, entry: Remedy) -> None:
    for sentence in (entry.cause, entry.remedy):
        assert sentence[0].isupper() or sentence[0] == "`" or sentence.split()[0] in _LOWER, sentence
        assert sentence.rstrip("`").endswith("."), sentence
        assert "  " not in sentence
        assert "\n" not in sentence
        assert sentence.count("`") % 2 == 0
    assert (entry.remedy == NOTHING) == (entry.grade is Grade.FINE)
    assert entry.on or subject is Subject.LOADER, f"{reason} does not say where it stands"


_LOWER = frozenset({"filename,", "llmaz's", "storageUri", "storage.path", "storage.parameters.token"})
"""Fields keep their spelling at the start of a sentence."""


@pytest.mark.parametrize(
    ("subject", "reason", "words"),
    [
        pytest.param(Subject.PLAYGROUND, "NoAgent", "ready agent", id="a Playground carries the reason of its task"),
        pytest.param(Subject.P2PTASK, "InsufficientCapacity", "does not fit", id="a task carries a node's reason"),
        pytest.param(Subject.OPENMODEL, "ManagerUnreachable", "manager", id="a model carries an engine's reason"),
        pytest.param(Subject.DRAGONFLY, "SourceNotFound", "404", id="an engine's own word wins over the task's"),
        pytest.param(Subject.LOADER, "AccessDenied", "gated", id="the loader gives reasons of the content, too"),
    ],
)
def test_a_reason_is_found_where_it_comes_from(subject: Subject, reason: str, words: str) -> None:
    found = find_remedy(subject, reason)
    assert found is not None
    assert words in found.cause


def test_a_word_of_a_newer_version_has_no_entry() -> None:
    assert find_remedy(Subject.P2PTASK, "Levitating") is None
