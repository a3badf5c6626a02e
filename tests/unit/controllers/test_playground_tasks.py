"""The tasks that a Playground makes for itself: images, and models with its own namespace's credentials."""

from typing import Any

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.controllers.queue import Key
from modelswarm.errors import KubeError, Unavailable
from modelswarm.kube.kinds import P2PTASK
from modelswarm.kube.objects import key_of
from modelswarm.workload.tasks import model_task
from tests.unit.controllers.stage import (
    DENIED,
    ENGINE,
    KEY,
    LOADER,
    deployment,
    finish,
    look,
    put_inputs,
    put_model_task,
    reason,
    tasks,
)
from tests.unit.controllers.strict_kube import StrictKube
from tests.unit.workload.objects import hub

LONG_ID = "organisation/" + "a" * 64
MODEL = hub("m", model_id=LONG_ID)
WAITS = (None, "WaitingForModel")


def account(*secrets: str) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "default"},
        "imagePullSecrets": [{"name": name} for name in secrets],
    }


def started(*secrets: str) -> StrictKube:
    kube = StrictKube()
    put_inputs(kube, MODEL)
    kube.put(account(*secrets))
    return kube


def pull_secrets(kube: StrictKube) -> dict[str, tuple[str, ...]]:
    """By image, as its task has them."""
    found: list[Any] = list(tasks(kube, "image").values())
    specs = [task["spec"]["image"] for task in found]
    return {spec["reference"]: tuple(secret["name"] for secret in spec.get("pullSecrets", [])) for spec in specs}


async def test_pull_secrets_that_are_given_later_reach_the_tasks_that_are_there() -> None:
    kube = started()
    await look(kube)
    assert pull_secrets(kube) == {ENGINE: (), LOADER: ()}
    kube.put(account("regcred"))
    await look(kube)
    assert pull_secrets(kube) == {ENGINE: ("regcred",), LOADER: ("regcred",)}
    await look(kube, credential_namespaces=())
    assert pull_secrets(kube) == {ENGINE: (), LOADER: ()}
    assert reason(kube) in WAITS


async def test_a_stranger_s_task_that_the_watch_has_not_told_of_stays_the_stranger_s() -> None:
    kube = started()
    await look(kube)
    [(name, ours)] = [(name, task) for name, task in tasks(kube, "image").items() if ENGINE in str(task["spec"])]
    meta = {"name": name, "namespace": KEY.namespace}
    kube.objects.pop((P2PTASK, Key(KEY.namespace, name)))
    stranger = kube.put({**ours, "metadata": meta})
    await look(kube, unseen=P2PTASK)
    assert tasks(kube)[name] == stranger
    assert reason(kube) == "NameClash"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Unavailable("away", status=503), id="the API server is away"),
        pytest.param(KubeError("odd", status=400), id="anything else"),
    ],
)
async def test_pull_secrets_stay_while_the_service_account_cannot_be_read(error: KubeError) -> None:
    kube = started("regcred")
    await look(kube)
    kube.faults["get", "default"] = [error]
    await look(kube)
    assert pull_secrets(kube) == {ENGINE: ("regcred",), LOADER: ("regcred",)}


async def test_where_the_service_account_was_never_read_images_are_asked_for_without_credentials() -> None:
    kube = started("regcred")
    kube.faults["get", "default"] = [Unavailable("away", status=503)]
    await look(kube)
    assert pull_secrets(kube) == {ENGINE: (), LOADER: ()}


async def test_another_spelling_of_an_image_is_the_same_task_and_changes_nothing_in_it() -> None:
    kube = started()
    await look(kube)
    before = tasks(kube)
    put_inputs(kube, MODEL, image="docker.io/vllm/vllm-openai")
    await look(kube, loader_image=f"docker.io/{LOADER}")
    assert tasks(kube) == before
    assert reason(kube) in WAITS


async def test_an_image_that_is_engine_and_loader_in_two_spellings_has_one_task_that_stays_as_it_is() -> None:
    kube = started()
    await look(kube, loader_image=f"docker.io/{ENGINE}")
    before = tasks(kube)
    await look(kube, loader_image=f"docker.io/{ENGINE}")
    assert tasks(kube) == before
    assert (len(before), reason(kube) in WAITS) == (1, True)


async def test_each_revision_of_a_model_with_a_long_id_has_a_private_task_of_its_own() -> None:
    kube = started()
    for number in range(24):  # with one hex digit two of them would be the same
        revision = hub("m", model_id=LONG_ID, revision=f"v{number}")
        put_inputs(kube, revision)
        put_model_task(kube, revision, DENIED)
        await look(kube)
        assert reason(kube) in WAITS
    assert len(tasks(kube, "modelHub")) == 24


async def test_a_private_task_with_the_name_of_an_earlier_version_stays_what_the_deployment_runs_on() -> None:
    kube = started()
    put_model_task(kube, MODEL, DENIED)
    await look(kube)
    finish(kube)
    await look(kube)
    running = deployment(kube)
    [name] = tasks(kube, "modelHub")
    old: Any = tasks(kube)[name]
    kube.server.remove(P2PTASK, name, KEY.namespace)
    wanted = model_task(MODEL, namespace=KEY.namespace)
    assert wanted is not None
    earlier = f"{key_of(wanted).name[:56]}-5ec5b9"
    kube.put({**old, "metadata": {**old["metadata"], "name": earlier, "uid": "earlier"}})
    for _ in range(2):
        await look(kube)
        assert list(tasks(kube, "modelHub")) == [earlier]
    assert deployment(kube) == running

    # Another revision is another task, and the old one goes when that is there.
    revision = hub("m", model_id=LONG_ID, revision="v2")
    put_inputs(kube, revision)
    put_model_task(kube, revision, DENIED)
    await look(kube)
    assert len(tasks(kube, "modelHub")) == 2
    finish(kube)
    await look(kube)
    [name] = tasks(kube, "modelHub")
    assert name != earlier
