from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.api.backendruntime import ResourceRequirements
from modelswarm.workload.quantity import compare
from modelswarm.workload.resources import Resources, merge_resources, with_flavor


def requirements(requests: dict[str, Any] | None = None, limits: dict[str, Any] | None = None) -> ResourceRequirements:
    return ResourceRequirements(requests=requests, limits=limits)


RECOMMENDED = requirements({"cpu": 4, "memory": "8Gi"}, {"cpu": 4, "memory": "8Gi"})


@pytest.mark.parametrize(
    ("recommended", "wanted", "requests", "limits"),
    [
        pytest.param(None, None, {}, {}, id="nobody says anything"),
        pytest.param(
            RECOMMENDED, None, {"cpu": "4", "memory": "8Gi"}, {"cpu": "4", "memory": "8Gi"}, id="recommended as it is"
        ),
        pytest.param(requirements({"cpu": 4}), None, {"cpu": "4"}, {}, id="a recommended request alone gets no limit"),
        pytest.param(
            RECOMMENDED,
            requirements({"cpu": 1}, {"cpu": 10}),
            {"cpu": "1", "memory": "8Gi"},
            {"cpu": "10", "memory": "8Gi"},
            id="the Playground wins key by key, the rest is recommended",
        ),
        pytest.param(
            RECOMMENDED,
            requirements({"cpu": 10}),
            {"cpu": "10", "memory": "8Gi"},
            {"cpu": "10", "memory": "8Gi"},
            id="a request above the recommended limit raises it",
        ),
        pytest.param(
            RECOMMENDED,
            requirements(limits={"cpu": 1}),
            {"cpu": "4", "memory": "8Gi"},
            {"cpu": "4", "memory": "8Gi"},
            id="a limit below the recommended request is raised to it",
        ),
        pytest.param(
            None,
            requirements({"cpu": "500m", "nvidia.com/gpu": 1}),
            {"cpu": "500m", "nvidia.com/gpu": "1"},
            {"cpu": "500m"},
            id="a missing limit counts as zero, for cpu and memory only",
        ),
        pytest.param(
            RECOMMENDED,
            requirements({"nvidia.com/gpu": 1}, {"nvidia.com/gpu": 1}),
            {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
            {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
            id="another resource is added",
        ),
    ],
)
def test_resources_merge(
    recommended: ResourceRequirements | None,
    wanted: ResourceRequirements | None,
    requests: dict[str, str],
    limits: dict[str, str],
) -> None:
    merged = merge_resources(recommended, wanted)
    assert dict(merged.requests) == requests
    assert dict(merged.limits) == limits


def test_a_flavor_replaces_requests_and_limits() -> None:
    merged = merge_resources(RECOMMENDED, requirements({"nvidia.com/gpu": 4}, {"nvidia.com/gpu": 4}))
    flavored = with_flavor(merged, {"nvidia.com/gpu": 1, "cpu": "2000m"})
    assert dict(flavored.requests) == {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"}
    assert flavored.requests == flavored.limits


def test_empty_resources_are_left_out() -> None:
    assert Resources().to_json() == {}
    assert Resources(requests={"cpu": "1"}).to_json() == {"requests": {"cpu": "1"}}


lists = st.dictionaries(
    st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]), st.sampled_from([1, "500m", "4", "1Gi", "8Gi", "2000m"])
)
requirement = st.builds(requirements, lists, lists)


@given(st.none() | requirement, requirement)
def test_a_merge_is_idempotent_and_leaves_no_cpu_or_memory_request_above_its_limit(
    recommended: ResourceRequirements | None, wanted: ResourceRequirements
) -> None:
    once = merge_resources(recommended, wanted)
    for name in ("cpu", "memory"):
        if name in once.requests:
            assert compare(once.requests[name], once.limits[name]) <= 0
    assert merge_resources(ResourceRequirements.model_validate(once.to_json()), wanted) == once
    known = recommended.requests if recommended is not None else {}
    assert list(once.requests) == list(dict.fromkeys([*(known or {}), *(wanted.requests or {})]))
