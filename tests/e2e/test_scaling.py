"""Load scales a Playground: a real HorizontalPodAutoscaler asks for metrics and writes the scale subresource."""

import pytest

from tests.e2e.support import Place, Release
from tests.e2e.support.metrics import MetricsApi
from tests.integration.support import eventually
from tests.integration.test_playground import cpu_metric

REQUEST = 100
"""Millicores that a replica asks for; half of it is what the autoscaler aims at."""
BUSY, IDLE = 2 * REQUEST, 1
# The autoscaler looks every 15 s.
PATIENCE = 60.0


def test_an_autoscaler_scales_up_and_down_again(
    release: Release, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    repository = place.repository()
    runtime = place.runtime(cpu=f"{REQUEST}m")
    trigger = {"hpa": {"metrics": [cpu_metric(50)], "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}}
    elastic = {"minReplicas": 1, "maxReplicas": 3, "scaleTrigger": trigger}
    with MetricsApi(place.cluster, place.scene.api, tmp_path_factory.mktemp("metrics")) as metrics:
        metrics.millicores = IDLE
        name = place.serve("elastic", repository, runtime, elasticConfig=elastic)
        place.wait_replicas(name, 1)
        metrics.millicores = BUSY
        replicas, seconds = place.timed_replicas(name, 3, PATIENCE)
        print(f"three replicas {seconds:.1f} s after the load came")
        place.check_files(replicas, repository)
        assert place.scene.get("Playground", name)["spec"]["replicas"] == 3
        spent = place.sent(repository)
        metrics.millicores = IDLE
        place.wait_replicas(name, 1, PATIENCE)
        assert place.sent(repository) == spent
        # Without an elasticConfig nobody scales it any more.
        place.serve(name, repository, runtime, replicas=1)
        eventually(lambda: place.scene.find("HorizontalPodAutoscaler", name) is None, PATIENCE)
        place.remove(name)
