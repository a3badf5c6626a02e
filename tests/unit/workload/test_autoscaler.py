from typing import Any

import pytest

from tests.unit.workload.objects import hub, playground, render


def metric(name: str, percent: int) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


OWN = {"hpa": {"metrics": [metric("cpu", 50)], "behavior": {"scaleUp": {"stabilizationWindowSeconds": 1}}}}


@pytest.mark.parametrize(
    ("elastic", "config", "metrics"),
    [
        pytest.param(None, {}, None, id="no elasticConfig, no autoscaler"),
        pytest.param({"scaleTrigger": OWN}, {"backendName": "vllm"}, [metric("cpu", 50)], id="from the Playground"),
        pytest.param({}, {}, [metric("cpu", 20)], id="from the BackendRuntime"),
        pytest.param({"scaleTrigger": OWN}, {}, [metric("cpu", 50)], id="the Playground overrides the BackendRuntime"),
        pytest.param({}, {"configName": "fuz"}, [metric("memory", 70)], id="from the configuration that is named"),
        pytest.param({}, {"backendName": "vllm"}, None, id="nobody names a trigger"),
    ],
)
def test_the_autoscaler_scales_the_playground(
    elastic: dict[str, Any] | None, config: dict[str, Any], metrics: list[Any] | None
) -> None:
    bounds = None if elastic is None else {"minReplicas": 1, "maxReplicas": 3, **elastic}
    autoscaler = render(playground(elastic=bounds, **{"backendName": "fake-backend", **config}), hub()).autoscaler
    if metrics is None:
        assert autoscaler is None
        return
    assert autoscaler is not None
    spec: Any = autoscaler["spec"]
    assert spec["scaleTargetRef"] == {
        "apiVersion": "inference.llmaz.io/v1alpha1",
        "kind": "Playground",
        "name": "playground-llama3-8b",
    }
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 3)
    assert spec["metrics"] == metrics
