"""What an OpenModel says when its task cannot be what it should be, and when another task takes its place."""

from typing import Any

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import OpenModel
from modelswarm.controllers.model import REFUSED_SECONDS, ModelController
from modelswarm.controllers.queue import Key
from modelswarm.controllers.world import World
from modelswarm.errors import Forbidden, Invalid, KubeError
from modelswarm.kube.kinds import OPENMODEL, P2PTASK, Kind
from modelswarm.kube.objects import key_of, metadata
from modelswarm.workload.tasks import model_task_name
from tests.unit.controllers.fake_kube import world
from tests.unit.controllers.objects import message, summary
from tests.unit.controllers.strict_kube import StrictKube, of_kind, see
from tests.unit.workload.objects import hub, model, uri

MODEL = hub("m", model_id="a/b")
TASK = model_task_name(MODEL)
KEY = Key("", "m")
READY = {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "True", "reason": "Distributed"}]}
FELL_BACK = {
    "phase": "FellBack",
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "FellBackToOrigin"},
        {"type": "Degraded", "status": "True", "reason": "Stalled"},
    ],
}


def put_model(kube: StrictKube, given: World, found: OpenModel) -> None:
    """As a user does, who leaves the status alone."""
    before = kube.objects.get((OPENMODEL, KEY), {})
    status = {"status": before["status"]} if "status" in before else {}
    kube.put({**of_kind("llmaz.io/v1alpha1", "OpenModel", found), **status})
    see(given, OPENMODEL)


def put_status(kube: StrictKube, given: World, status: dict[str, Any]) -> None:
    """Of the one task, as the task controller does."""
    conditions: list[Any] = [
        {"message": "as it is", "lastTransitionTime": "2025-06-01T11:00:00Z", **each} for each in status["conditions"]
    ]
    kube.put({**kube.only(P2PTASK), "status": {**status, "conditions": conditions}})
    see(given, P2PTASK)


def status_of(kube: StrictKube) -> Any:
    return OpenModel.model_validate(kube.objects[OPENMODEL, KEY]).status


async def test_a_stranger_s_task_that_the_watch_has_not_told_of_stays_the_stranger_s() -> None:
    kube = StrictKube()
    given = world(kube)
    put_model(kube, given, MODEL)
    stranger = {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "P2PTask",
        "spec": {"model": {"source": {"modelHub": {"modelID": "a/b"}}}},
    }
    kube.put({**stranger, "metadata": {"name": TASK, "namespace": given.settings.namespace}})
    before = kube.only(P2PTASK)
    controller = ModelController(given)
    for _ in range(2):
        await controller.reconcile(KEY)
        assert kube.only(P2PTASK) == before
        assert summary(status_of(kube))["Ready"] == ("False", "NameClash")
        see(given, P2PTASK)
        see(given, OPENMODEL)


class Vanishing(StrictKube):
    """Its model is deleted while it is asked for something."""

    given: World

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject:
        if (gone := self.objects.pop((OPENMODEL, KEY), None)) is not None:
            self.given.gone(OPENMODEL, gone)
        return await super().get(kind, name, namespace)


async def test_for_a_model_that_is_deleted_meanwhile_nothing_is_made() -> None:
    kube = Vanishing()
    kube.given = world(kube)
    put_model(kube, kube.given, MODEL)
    await ModelController(kube.given).reconcile(KEY)
    assert kube.objects == {}


@pytest.mark.parametrize(
    ("error", "reason", "advice"),
    [
        pytest.param(Forbidden("exceeded quota: tasks", status=403), "Forbidden", "quota", id="a quota"),
        pytest.param(Invalid("spec.x: Invalid value", status=422), "InvalidObject", "delete", id="a rule"),
    ],
)
async def test_a_refused_task_is_told_and_tried_again(error: KubeError, reason: str, advice: str) -> None:
    kube = StrictKube(faults={("apply", TASK): [error]})
    given = world(kube)
    put_model(kube, given, MODEL)
    controller = ModelController(given)
    result = await controller.reconcile(KEY)
    assert result.requeue_after == REFUSED_SECONDS
    assert summary(status_of(kube)) == {"Pending": ("False", reason), "Ready": ("False", reason)}
    words = message(status_of(kube), "Ready")
    assert error.message in words
    assert TASK in words
    assert advice in words.split("; ")[1]
    see(given, OPENMODEL)
    await controller.reconcile(KEY)
    assert kube.names(P2PTASK) == [TASK]
    put_status(kube, given, READY)
    see(given, OPENMODEL)
    await controller.reconcile(KEY)
    assert summary(status_of(kube))["Ready"] == ("True", "Ready")


async def test_a_model_whose_task_cannot_be_changed_goes_on_as_it_was_and_is_degraded() -> None:
    kube = StrictKube()
    given = world(kube)
    put_model(kube, given, MODEL)
    await ModelController(given).reconcile(KEY)
    put_status(kube, given, READY)
    kube.faults["apply", TASK] = [Forbidden("the policy wants two copies", status=403)]
    more = world(kube, placement_copies=7)
    see(more, OPENMODEL, P2PTASK)
    controller = ModelController(more)
    assert (await controller.reconcile(KEY)).requeue_after == REFUSED_SECONDS
    assert summary(status_of(kube)) == {
        "Pending": ("False", "Ready"),
        "Ready": ("True", "Ready"),
        "Degraded": ("True", "Forbidden"),
    }
    assert "the policy wants two copies" in message(status_of(kube), "Degraded")
    see(more, OPENMODEL)
    await controller.reconcile(KEY)
    assert summary(status_of(kube))["Degraded"] == ("False", "Healthy")


@pytest.mark.parametrize(
    ("source", "again"),
    [
        pytest.param({"uri": "s3://b/p"}, {"uri": "S3://b/p/"}, id="a URI"),
        pytest.param(
            {"modelHub": {"modelID": "a/b", "revision": ""}}, {"modelHub": {"modelID": "a/b"}}, id="a revision"
        ),
    ],
)
async def test_another_spelling_of_the_source_is_the_same_task_and_changes_nothing_in_it(
    source: dict[str, Any], again: dict[str, Any]
) -> None:
    kube = StrictKube()
    given = world(kube)
    put_model(kube, given, model("m", source))
    controller = ModelController(given)
    await controller.reconcile(KEY)
    before = kube.only(P2PTASK)
    put_status(kube, given, READY)
    put_model(kube, given, model("m", again))
    await controller.reconcile(KEY)
    after = kube.only(P2PTASK)
    assert (after["spec"], metadata(after)["uid"]) == (before["spec"], metadata(before)["uid"])
    assert kube.has_applied(key_of(before).name) == 1
    assert summary(status_of(kube))["Ready"] == ("True", "Ready")


async def test_the_rest_of_a_task_follows_also_where_the_source_is_spelled_in_another_way() -> None:
    kube = StrictKube()
    given = world(kube)
    put_model(kube, given, uri("m", "s3://b/p"))
    await ModelController(given).reconcile(KEY)
    more = world(kube, placement_copies=7)
    see(more, P2PTASK)
    put_model(kube, more, uri("m", "s3://b/p/"))
    await ModelController(more).reconcile(KEY)
    spec: Any = kube.only(P2PTASK)["spec"]
    assert (spec["model"]["source"]["uri"], spec["placement"]["copies"]) == ("s3://b/p", 7)


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        pytest.param(hub("m", model_id="a/c"), ("False", "Pending"), id="another source"),
        pytest.param(uri("m", "ollama://qwen2:0.5b"), ("True", "Ready"), id="nothing to distribute"),
    ],
)
async def test_a_model_is_not_degraded_any_more_once_the_task_that_was_is_replaced(
    found: OpenModel, ready: tuple[str, str]
) -> None:
    kube = StrictKube()
    given = world(kube)
    put_model(kube, given, MODEL)
    controller = ModelController(given)
    await controller.reconcile(KEY)
    put_status(kube, given, FELL_BACK)
    await controller.reconcile(KEY)
    assert summary(status_of(kube))["Degraded"] == ("True", "Stalled")
    put_model(kube, given, found)
    await controller.reconcile(KEY)
    assert summary(status_of(kube))["Degraded"] == ("False", "Healthy")
    assert summary(status_of(kube))["Ready"] == ready


async def test_a_model_that_was_never_degraded_says_nothing_of_it() -> None:
    kube = StrictKube()
    given = world(kube)
    put_model(kube, given, uri("m", "host:///models/m"))
    await ModelController(given).reconcile(KEY)
    assert summary(status_of(kube)) == {"Pending": ("False", "Ready"), "Ready": ("True", "Ready")}
