"""A real operator says in JSON which object each line is about, and exports what the reference page lists."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dev.installation import OperatorProcess
from dev.reference.exported import OURS, of_operator
from tests.integration.support import Operators, Scene, eventually

NOWHERE = {"modelHub": {"name": "Huggingface", "modelID": "nobody/nothing"}}


@pytest.fixture(scope="module", autouse=True)
def talking(operators: Operators) -> Iterator[OperatorProcess]:
    with operators.replaced("--log-format=json") as other:
        yield other


def test_a_task_with_a_problem_is_in_log_and_metrics(scene: Scene, talking: OperatorProcess) -> None:
    task = scene.model_task(scene.model(source=NOWHERE))["metadata"]

    def problem() -> dict[str, str] | None:
        return next((labels for labels in problems(talking) if labels["task"] == task["name"]), None)

    assert eventually(problem) == {
        "task_namespace": task["namespace"],
        "task": task["name"],
        "engine": "Direct",
        "phase": "Failed",
        "reason": "SourceNotFound",
    }

    def about_it() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in talking.child.log.read_text().splitlines()]
        assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
        return [line for line in lines if line.get("object") == f"{task['namespace']}/{task['name']}"]

    # The watch may be told of the status before its writer, who logs it.
    told = eventually(lambda: [line for line in about_it() if line.get("reason") == "SourceNotFound"])
    about = about_it()
    assert {(line["controller"], line["level"]) for line in told} == {("p2ptask", "warning")}
    assert all(line["reconcile_id"] for line in about)


def test_every_metric_is_on_the_page(scene: Scene, talking: OperatorProcess) -> None:
    scene.has("OpenModel", scene.model(), "Ready", "True", "Ready")
    documented = of_operator()
    found = [family for family in text_string_to_metric_families(talking.metrics()) if family.name.startswith(OURS)]
    assert len(found) > 10
    for family in found:
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            name = next(name for name in (sample.name, sample.name.rpartition("_")[0]) if name in documented)
            assert set(sample.labels) - {"le"} == set(documented[name].labels), sample.name


def problems(operator: OperatorProcess) -> list[dict[str, str]]:
    families = text_string_to_metric_families(operator.metrics())
    return [
        sample.labels for family in families if family.name == "modelswarm_p2ptask_problem" for sample in family.samples
    ]
