"""Kubernetes' own rules: each row is decided by the scheduler in the same way."""

from typing import Any

import pytest

from modelswarm.agent.nodeaffinity import NodeAffinity, allows

LABELS = {"gpu": "a100", "cards": "8", "zone": "a", "empty": "", "nvidia.com/gpu.count": "8", "neg": "-3"}


def affinity(*terms: dict[str, Any]) -> NodeAffinity:
    required = {"nodeSelectorTerms": list(terms)}
    return NodeAffinity.model_validate({"requiredDuringSchedulingIgnoredDuringExecution": required})


def term(*expressions: tuple[str, str, list[str]], fields: list[tuple[str, str, list[str]]] | None = None) -> Any:
    def requirements(rows: Any) -> list[dict[str, Any]]:
        return [{"key": key, "operator": operator, "values": values} for key, operator, values in rows]

    return {"matchExpressions": requirements(expressions), "matchFields": requirements(fields or [])}


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        pytest.param(("gpu", "In", ["a100", "h100"]), True, id="In: one of the values"),
        pytest.param(("gpu", "In", ["h100"]), False, id="In: none of the values"),
        pytest.param(("none", "In", ["a100"]), False, id="In: no such label"),
        pytest.param(("empty", "In", [""]), True, id="In: the empty value"),
        pytest.param(("none", "In", [""]), False, id="In: an empty value is not a missing label"),
        pytest.param(("gpu", "In", []), False, id="In without values does not parse"),
        pytest.param(("gpu", "NotIn", ["h100"]), True, id="NotIn: another value"),
        pytest.param(("gpu", "NotIn", ["a100"]), False, id="NotIn: one of the values"),
        pytest.param(("none", "NotIn", ["a100"]), True, id="NotIn: no such label"),
        pytest.param(("gpu", "NotIn", []), False, id="NotIn without values does not parse"),
        pytest.param(("gpu", "Exists", []), True, id="Exists"),
        pytest.param(("none", "Exists", []), False, id="Exists: no such label"),
        pytest.param(("gpu", "Exists", ["a100"]), False, id="Exists with values does not parse"),
        pytest.param(("none", "DoesNotExist", []), True, id="DoesNotExist"),
        pytest.param(("gpu", "DoesNotExist", []), False, id="DoesNotExist: it does"),
        pytest.param(("none", "DoesNotExist", ["x"]), False, id="DoesNotExist with values does not parse"),
        pytest.param(("cards", "Gt", ["7"]), True, id="Gt"),
        pytest.param(("cards", "Gt", ["8"]), False, id="Gt: equal"),
        pytest.param(("cards", "Gt", ["10"]), False, id="Gt compares numbers, not texts"),
        pytest.param(("cards", "Lt", ["10"]), True, id="Lt compares numbers, not texts"),
        pytest.param(("cards", "Lt", ["8"]), False, id="Lt: equal"),
        pytest.param(("neg", "Lt", ["0"]), True, id="Lt: a negative number"),
        pytest.param(("neg", "Lt", ["-1"]), False, id="a negative bound is no label value, so it does not parse"),
        pytest.param(("gpu", "Gt", ["1"]), False, id="Gt: the label is no number"),
        pytest.param(("none", "Gt", ["1"]), False, id="Gt: no such label"),
        pytest.param(("none", "Lt", ["1"]), False, id="Lt: no such label"),
        pytest.param(("cards", "Gt", ["x"]), False, id="Gt: the bound is no number"),
        pytest.param(("cards", "Gt", ["1", "2"]), False, id="Gt with two values does not parse"),
        pytest.param(("cards", "Lt", ["9223372036854775807"]), True, id="Lt: the largest number"),
        pytest.param(("cards", "Lt", ["9223372036854775808"]), False, id="Lt: a number of 65 bits does not parse"),
        pytest.param(("nvidia.com/gpu.count", "In", ["8"]), True, id="a key with a prefix"),
        pytest.param(("bad key", "NotIn", ["x"]), False, id="a bad key does not parse"),
        pytest.param(("Bad_Prefix/x", "NotIn", ["x"]), False, id="a bad prefix does not parse"),
        pytest.param(("gpu", "NotIn", ["a b"]), False, id="a bad value does not parse"),
        pytest.param(("gpu", "NotIn", ["x" * 64]), False, id="a value that is too long does not parse"),
        pytest.param(("gpu", "in", ["a100"]), False, id="an unknown operator does not parse"),
    ],
)
def test_one_expression(requirement: tuple[str, str, list[str]], expected: bool) -> None:
    assert allows(affinity(term(requirement)), "node-1", LABELS) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param([("metadata.name", "In", ["node-1"])], True, id="this node"),
        pytest.param([("metadata.name", "In", ["node-2"])], False, id="another node"),
        pytest.param([("metadata.name", "NotIn", ["node-2"])], True, id="not another node"),
        pytest.param([("metadata.name", "NotIn", ["node-1"])], False, id="not this node"),
        pytest.param([("metadata.name", "In", ["node-1", "node-2"])], False, id="two values do not parse"),
        pytest.param([("metadata.name", "Exists", [])], False, id="other operators do not parse"),
        pytest.param([("metadata.uid", "In", ["x"])], False, id="a field that nodes do not have is empty"),
        pytest.param([("gpu", "In", ["a100"])], False, id="labels are not looked for in fields"),
    ],
)
def test_fields(fields: list[tuple[str, str, list[str]]], expected: bool) -> None:
    assert allows(affinity(term(fields=fields)), "node-1", LABELS) is expected


GPU = ("gpu", "Exists", [])
NO = ("none", "Exists", [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(None, True, id="no affinity at all"),
        pytest.param(NodeAffinity(), True, id="nothing required"),
        pytest.param(affinity(), False, id="a requirement without terms matches nothing"),
        pytest.param(affinity({}), False, id="an empty term matches nothing"),
        pytest.param(affinity({}, term(GPU)), True, id="an empty term does not stop the others"),
        pytest.param(affinity(term(GPU, NO)), False, id="all expressions of a term have to match"),
        pytest.param(affinity(term(NO), term(GPU)), True, id="one term is enough"),
        pytest.param(affinity(term(("gpu", "?", [])), term(GPU)), True, id="a term that does not parse is skipped"),
        pytest.param(
            affinity(term(GPU, fields=[("metadata.name", "In", ["node-2"])])), False, id="expressions and fields"
        ),
    ],
)
def test_terms(given: NodeAffinity | None, expected: bool) -> None:
    assert allows(given, "node-1", LABELS) is expected


def test_what_is_preferred_decides_nothing() -> None:
    preferred = [{"weight": 1, "preference": term(NO)}]
    given = NodeAffinity.model_validate({"preferredDuringSchedulingIgnoredDuringExecution": preferred})
    assert allows(given, "node-1", LABELS)
