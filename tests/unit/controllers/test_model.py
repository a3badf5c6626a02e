"""On how many nodes the model controller wants a model."""

import pytest

from modelswarm.api.meta import ApiModel, JsonObject
from modelswarm.controllers.model import ModelController
from modelswarm.controllers.queue import Key
from modelswarm.kube.kinds import OPENMODEL, P2PTASK, PLAYGROUND
from tests.unit.controllers.fake_kube import FakeKube, watch, world
from tests.unit.workload.objects import hub, playground


class Applying(FakeKube):
    """Keeps of an object what was applied last, which is enough for one reconcile."""

    async def apply(self, obj: JsonObject, *, force: bool = True) -> JsonObject:
        return self.put(obj)


def of_kind(api_version: str, kind: str, found: ApiModel) -> JsonObject:
    return {"apiVersion": api_version, "kind": kind, **found.to_json()}


@pytest.mark.parametrize(
    ("setting", "replicas", "copies"),
    [
        pytest.param({}, 1, 2, id="two, when nobody says anything"),
        pytest.param({"placement_copies": 1}, 1, 1, id="one, as the setting says"),
        pytest.param({"placement_copies": 1}, 3, 3, id="as many as a Playground has pods"),
        pytest.param({"placement_copies": 4}, 3, 4, id="more than a Playground has pods, as the setting says"),
    ],
)
async def test_copies_are_those_of_the_setting_or_more_for_a_larger_playground(
    setting: dict[str, int], replicas: int, copies: int
) -> None:
    kube = Applying()
    kube.put(of_kind("llmaz.io/v1alpha1", "OpenModel", hub("m")))
    kube.put(of_kind("inference.llmaz.io/v1alpha1", "Playground", playground("m", replicas=replicas)))
    given = world(kube, **setting)
    for kind in (OPENMODEL, PLAYGROUND):
        watch(given, kind)
    await ModelController(given).reconcile(Key("", "m"))
    [task] = [obj for (kind, _), obj in kube.objects.items() if kind is P2PTASK]
    spec = task["spec"]
    assert isinstance(spec, dict)
    assert spec["placement"] == {"copies": copies, "minReady": 1}
