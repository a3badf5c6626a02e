import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelswarm.api import conditions as module
from modelswarm.api.conditions import (
    MESSAGE_LENGTH,
    Condition,
    ModelCondition,
    ModelReason,
    PlaygroundCondition,
    PlaygroundReason,
    Status,
    TaskCondition,
    TaskReason,
    find,
    is_true,
    set_condition,
)
from modelswarm.api.p2ptask import Phase
from modelswarm.errors import ContentReason, RenderReason

NOW = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
UNNAMED = "Failed"
"""What a node reports that failed without a reason of its own."""
WHOLE = NOW.replace(microsecond=0)
LATER = NOW + timedelta(minutes=5)
REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def put(
    conditions: tuple[Condition, ...] = (),
    type_: str = "Ready",
    status: Status = "False",
    reason: str = "Running",
    message: str = "on its way",
    *,
    generation: int = 1,
    now: datetime = NOW,
) -> tuple[Condition, ...]:
    return set_condition(conditions, type_, status, reason, message, generation=generation, now=now)


def test_a_new_condition_is_written_as_metav1_condition() -> None:
    (condition,) = put()
    assert condition.to_json() == {
        "type": "Ready",
        "status": "False",
        "reason": "Running",
        "message": "on its way",
        "lastTransitionTime": "2025-06-01T12:00:00Z",
        "observedGeneration": 1,
    }


@pytest.mark.parametrize(
    ("changed", "moment"),
    [
        pytest.param(put(put(), now=LATER), WHOLE, id="nothing changes: the time stays"),
        pytest.param(put(put(), reason="Stalled", now=LATER), WHOLE, id="another reason: the time stays"),
        pytest.param(put(put(), message="71%", now=LATER), WHOLE, id="another message: the time stays"),
        pytest.param(put(put(), generation=2, now=LATER), WHOLE, id="another generation: the time stays"),
        pytest.param(
            put(put(), status="True", now=LATER), LATER.replace(microsecond=0), id="another status: the time moves"
        ),
        pytest.param(
            put(put(), status="Unknown", now=LATER), LATER.replace(microsecond=0), id="Unknown is a status too"
        ),
    ],
)
def test_the_transition_time_moves_with_the_status_only(changed: tuple[Condition, ...], moment: datetime) -> None:
    (condition,) = changed
    assert condition.last_transition_time == moment


def test_reason_message_and_generation_are_the_new_ones() -> None:
    (condition,) = put(put(), reason="Stalled", message="no byte", generation=7)
    assert (condition.reason, condition.message, condition.observed_generation) == ("Stalled", "no byte", 7)


def test_the_order_is_kept_and_a_new_one_goes_last() -> None:
    known = put(put(put(type_="C"), "A"), "B")
    assert [condition.type for condition in put(known, "A", status="True")] == ["C", "A", "B"]


def test_strangers_are_left_alone() -> None:
    known = put(type_="SomebodyElse", reason="Theirs")
    assert put(known, "Ready")[0] is known[0]


def test_a_message_that_is_too_long_is_cut() -> None:
    (condition,) = put(message="x" * 100_000)
    assert condition.message == "x" * MESSAGE_LENGTH


def test_a_condition_needs_a_reason() -> None:
    with pytest.raises(ValidationError):
        put(reason="")


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["True", "False", "Unknown"]), st.text())))
def test_whatever_is_set_every_type_is_there_once_and_again_changes_nothing(
    changes: list[tuple[str, Status, str]],
) -> None:
    conditions: tuple[Condition, ...] = ()
    for type_, status, text in changes:
        conditions = put(conditions, type_, status, message=text)
        assert put(conditions, type_, status, message=text, now=LATER) == conditions
    types = [condition.type for condition in conditions]
    assert types == list(dict.fromkeys(type_ for type_, _, _ in changes))


def test_find_and_is_true() -> None:
    known = put(put(type_="A", status="True"), "B")
    assert find(known, "A") == known[0]
    assert find(known, "C") is None
    assert [is_true(known, type_) for type_ in "ABC"] == [True, False, False]


# --- the vocabulary -------------------------------------------------------------------------------------------------

VOCABULARIES = (
    ModelCondition,
    ModelReason,
    PlaygroundCondition,
    TaskCondition,
    PlaygroundReason,
    TaskReason,
    ContentReason,
    RenderReason,
)


@pytest.mark.parametrize("words", VOCABULARIES, ids=lambda words: words.__name__)
def test_every_word_is_one_that_the_api_server_takes(words: type[StrEnum]) -> None:
    for word in words:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?", word)


def test_llmaz_s_words_are_llmaz_s() -> None:
    assert [PlaygroundReason.PENDING, PlaygroundReason.ABORT, PlaygroundReason.READY] == [
        "Pending",
        "AbortProcessing",
        "PlaygroundReady",
    ]
    assert [PlaygroundReason.IN_PROGRESS, PlaygroundReason.NOT_READY] == ["PlaygroundInProgress", "PlaygroundNotReady"]
    assert [ModelCondition.PENDING, ModelCondition.READY] == ["Pending", "Ready"]
    assert [ModelReason.PENDING, ModelReason.READY] == ["Pending", "Ready"]
    assert [PlaygroundCondition.PROGRESSING, PlaygroundCondition.AVAILABLE] == ["Progressing", "Available"]


def documented(section: str, part: str) -> list[str]:
    """The words in the first column of the table of a kind's section; reasons have their own page."""
    page = "troubleshooting.md" if part == "Reasons" else "conditions.md"
    text = (REFERENCE / page).read_text(encoding="utf-8")
    match = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    assert match, f"no section {section!r}"
    if part == "Reasons":
        return re.findall(r"^\| `(\w+)` \|", match[1], flags=re.M)
    match = re.search(rf"^### {part}$(.*?)(?=^### |\Z)", match[1], flags=re.M | re.S)
    assert match, f"no part {part!r} in the section {section!r}"
    return re.findall(r"^\| `(\w+)` \|", match[1], flags=re.M)


@pytest.mark.parametrize(
    ("section", "part", "words"),
    [
        pytest.param("OpenModel", "Conditions", {*ModelCondition}, id="conditions of an OpenModel"),
        pytest.param(
            "OpenModel",
            "Reasons",
            {*ModelReason, TaskReason.FELL_BACK, TaskReason.NAME_CLASH, ContentReason.INVALID_REFERENCE},
            id="reasons of an OpenModel",
        ),
        pytest.param("Playground", "Conditions", {*PlaygroundCondition}, id="conditions of a Playground"),
        pytest.param(
            "Playground",
            "Reasons",
            {*PlaygroundReason, *RenderReason, ContentReason.INVALID_REFERENCE},
            id="reasons of a Playground",
        ),
        pytest.param("P2PTask", "Conditions", {*TaskCondition}, id="conditions of a P2PTask"),
        pytest.param("P2PTask", "Phases", {*Phase}, id="phases of a P2PTask"),
        pytest.param("P2PTask", "Reasons", {*TaskReason, *ContentReason, UNNAMED}, id="reasons of a P2PTask"),
    ],
)
def test_the_reference_and_the_vocabulary_agree(section: str, part: str, words: set[str]) -> None:
    found = documented(section, part)
    assert len(found) == len(set(found)), "each word once"
    assert set(found) == {str(word) for word in words}


def test_every_vocabulary_of_the_module_is_covered() -> None:
    defined = {each for each in vars(module).values() if isinstance(each, type) and issubclass(each, StrEnum)}
    assert defined - {StrEnum} <= set(VOCABULARIES)
