import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.api.meta import JsonObject
from modelswarm.controllers.drift import (
    APPLIED,
    ControllerOf,
    Ownership,
    controller_of,
    is_applied,
    ownership,
    stamped,
)
from tests.unit.controllers.objects import playground, task


@pytest.mark.parametrize(
    ("desired", "live", "expected"),
    [
        pytest.param({"a": 1}, {"a": 1}, True, id="equal"),
        pytest.param({"a": 1}, {"a": 1, "b": 2}, True, id="defaults and other owners' fields do not matter"),
        pytest.param({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "status": {}}, True, id="nor do they deeper down"),
        pytest.param({"a": 1}, {"a": 2}, False, id="another value"),
        pytest.param({"a": 1}, {}, False, id="a field that somebody removed"),
        pytest.param({"a": {"b": 1}}, {"a": None}, False, id="an object that somebody removed"),
        pytest.param({"a": {"b": 1}}, {"a": "b"}, False, id="another type"),
        pytest.param({"a": "true"}, {"a": True}, False, id="text is not a boolean"),
        pytest.param({"a": None}, {}, True, id="None is what is not there"),
        pytest.param({"a": None}, {"a": 1}, False, id="None is not a value"),
        pytest.param({"a": {}}, {}, True, id="an empty object is what the API server leaves out"),
        pytest.param({"a": []}, {}, True, id="an empty list is what the API server leaves out"),
        pytest.param({"a": []}, {"a": [1]}, False, id="an empty list is not a list with something in it"),
        pytest.param({"a": [1]}, {}, False, id="a list that somebody removed"),
        pytest.param({"a": [1, 2]}, {"a": [1, 2]}, True, id="equal lists"),
        pytest.param({"a": (1, 2)}, {"a": [1, 2]}, True, id="a tuple is a list"),
        pytest.param({"a": [1, 2]}, {"a": [2, 1]}, False, id="order counts"),
        pytest.param({"a": [1]}, {"a": [1, 2]}, False, id="a list that somebody made longer"),
        pytest.param({"a": [1, 2]}, {"a": [1]}, False, id="a list that somebody made shorter"),
        pytest.param({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, True, id="defaults in the elements of a list"),
        pytest.param({"limits": {"cpu": "1000m"}}, {"limits": {"cpu": "1"}}, True, id="quantities go by value"),
        pytest.param({"limits": {"gpu": 1}}, {"limits": {"gpu": "1"}}, True, id="a number is a quantity"),
        pytest.param({"requests": {"memory": "1024Mi"}}, {"requests": {"memory": "1Gi"}}, True, id="binary suffixes"),
        pytest.param({"limits": {"cpu": "2"}}, {"limits": {"cpu": "1"}}, False, id="another quantity"),
        pytest.param({"limits": {"cpu": "a lot"}}, {"limits": {"cpu": "1"}}, False, id="no quantity at all"),
        pytest.param({"emptyDir": {"sizeLimit": "2048Mi"}}, {"emptyDir": {"sizeLimit": "2Gi"}}, True, id="sizeLimit"),
        pytest.param(
            {"metrics": [{"resource": {"target": {"type": "AverageValue", "averageValue": "0.5"}}}]},
            {"metrics": [{"resource": {"target": {"type": "AverageValue", "averageValue": "500m"}}}]},
            True,
            id="an autoscaler's target",
        ),
        pytest.param(
            {"metrics": [{"resource": {"target": {"type": "Value"}}}]},
            {"metrics": [{"resource": {"target": {"type": "AverageValue"}}}]},
            False,
            id="another kind of target",
        ),
        pytest.param({"labels": {"v": "1.10"}}, {"labels": {"v": "1.1"}}, False, id="a label is not a quantity"),
        pytest.param({"args": ["08"]}, {"args": ["8"]}, False, id="an argument is not a quantity"),
        pytest.param({"port": 80}, {"port": "80"}, False, id="a port is not a quantity"),
    ],
)
def test_is_applied(desired: Any, live: Any, expected: bool) -> None:
    assert is_applied(desired, live) is expected


_keys = st.sampled_from(["a", "b", "limits", "target", "sizeLimit"])
_leaves = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(["1", "1000m", "x", "", "1.10"]))
_values = st.recursive(
    _leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=3)),
    max_leaves=8,
)
_objects = st.dictionaries(_keys, _values, max_size=4)


def _with_extras(value: Any) -> Any:
    """What an API server might make of it: more fields in every object."""
    if isinstance(value, dict):
        return {**{key: _with_extras(each) for key, each in value.items()}, "extra": {"by": "somebody"}}
    return [_with_extras(each) for each in value] if isinstance(value, list) else value


@given(_objects)
def test_an_object_is_applied_to_itself_with_whatever_is_added(obj: dict[str, Any]) -> None:
    assert is_applied(obj, obj)
    assert is_applied(obj, _with_extras(obj))


@given(_objects, _objects)
def test_two_objects_that_are_applied_to_one_another_differ_in_spelling_only(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    if is_applied(one, other) and is_applied(other, one):
        assert _spelled(one) == _spelled(other)


def _spelled(value: Any) -> Any:
    """Without empty values, and with one spelling of each quantity in this test."""
    if isinstance(value, dict):
        kept = {key: _spelled(each) for key, each in value.items()}
        return {key: each for key, each in kept.items() if each not in (None, {}, [])}
    if isinstance(value, list):
        return [_spelled(each) for each in value]
    if value in (1, "1", "1000m", True):
        return 1
    return str(value) if isinstance(value, str | int) else value


@given(_objects)
def test_an_object_is_stamped_the_same_way_every_time_and_stays_as_it_was(obj: dict[str, Any]) -> None:
    before = copy.deepcopy(obj)
    assert stamped(obj) == stamped(copy.deepcopy(obj))
    assert obj == before
    assert is_applied(obj if "metadata" not in obj else {}, stamped(obj))


def test_a_stamp_shows_that_a_field_was_dropped() -> None:
    metadata: JsonObject = {"name": "x", "annotations": {"kept": "yes"}}
    old = stamped({"metadata": metadata, "spec": {"behavior": {"scaleDown": 1}, "max": 3}})
    new: JsonObject = {"metadata": metadata, "spec": {"max": 3}}
    assert is_applied(new, old), "without a stamp it looks like another owner's field"
    assert not is_applied(stamped(new), old)
    assert is_applied(stamped(new), stamped(new))
    stamp = stamped(new)["metadata"]
    assert isinstance(stamp, dict)
    assert isinstance(stamp["annotations"], dict)
    assert set(stamp["annotations"]) == {"kept", APPLIED}


def owned(*references: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "llama", "ownerReferences": list(references)}}


OURS = playground().owner_reference()


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(owned(OURS), Ownership.OURS, id="controlled by this very object"),
        pytest.param(owned({**OURS, "uid": "older"}), Ownership.STALE, id="controlled by its predecessor"),
        pytest.param(owned(), Ownership.FOREIGN, id="controlled by nobody"),
        pytest.param({"metadata": {"name": "llama"}}, Ownership.FOREIGN, id="without owners at all"),
        pytest.param({}, Ownership.FOREIGN, id="without metadata"),
        pytest.param(owned({**OURS, "controller": False}), Ownership.FOREIGN, id="owned but not controlled"),
        pytest.param(owned({**OURS, "kind": "ReplicaSet"}), Ownership.FOREIGN, id="controlled by another kind"),
        pytest.param(owned({**OURS, "name": "other"}), Ownership.FOREIGN, id="controlled by another of the kind"),
        pytest.param(
            owned({**OURS, "controller": False, "uid": "x"}, OURS), Ownership.OURS, id="one of several owners controls"
        ),
    ],
)
def test_ownership(obj: dict[str, Any], expected: Ownership) -> None:
    assert ownership(obj, playground()) is expected


def test_controller_of() -> None:
    assert controller_of(owned(task().owner_reference())) == ControllerOf("P2PTask", "task", "task-uid")
    assert controller_of(owned()) is None
