"""The client on a real API server: ownership of fields, statuses, preconditions, pages, and every kind of refusal."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dev.controlplane import ControlPlane
from modelswarm.api.meta import JsonObject
from modelswarm.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import PAGE, KubeClient
from modelswarm.kube.events import EventRecorder
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import CONFIGMAP, EVENT, NODE, OPENMODEL, P2PTASK, SECRET
from modelswarm.kube.login import login_handler
from modelswarm.kube.objects import metadata
from modelswarm.kube.store import Store
from modelswarm.metrics import Metrics

ROOT = Path(__file__).parents[2]
SOURCE: JsonObject = {"modelHub": {"modelID": "a/b"}}

numbers = itertools.count()


@pytest.fixture(scope="module")
def api_server() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as cluster:
        cluster.apply(ROOT / "crds")
        yield cluster


@pytest.fixture
async def kube(api_server: ControlPlane) -> AsyncIterator[KubeClient]:
    async with open_client(await load_configuration(api_server.kubeconfig)) as api_client:
        yield KubeClient(api_client)


@pytest.fixture
def name() -> str:
    return f"thing-{next(numbers)}"


def config_map(name: str, /, **data: str) -> JsonObject:
    found: JsonObject = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
    }
    if data:
        found["data"] = dict(data)
    return found


def task(name: str, /, **extra: JsonObject) -> JsonObject:
    return {
        "apiVersion": "llmaz.io/v1alpha1",
        "kind": "P2PTask",
        "metadata": {"name": name, "namespace": "default"},
        **extra,
    }


def condition(type_: str, message: str = "m") -> JsonObject:
    return {
        "type": type_,
        "status": "True",
        "reason": "R",
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


async def test_apply_creates_changes_and_removes_what_is_no_longer_said(kube: KubeClient, name: str) -> None:
    assert (await kube.apply(config_map(name, a="1", b="1")))["data"] == {"a": "1", "b": "1"}
    assert (await kube.apply(config_map(name, a="2")))["data"] == {"a": "2"}
    found = await kube.get(CONFIGMAP, name, "default")
    assert found["data"] == {"a": "2"}
    assert [entry["manager"] for entry in metadata(found)["managedFields"]] == ["modelswarm"]


async def test_apply_leaves_other_peoples_fields_alone(api_server: ControlPlane, kube: KubeClient, name: str) -> None:
    await kube.apply(config_map(name, ours="1"))
    api_server.kubectl("label", "configmap", name, "user=label")
    api_server.kubectl("patch", "configmap", name, "--type=merge", "-p", '{"data": {"theirs": "1"}}')
    found = await kube.apply(config_map(name, ours="2"))
    assert found["data"] == {"ours": "2", "theirs": "1"}
    assert metadata(found)["labels"] == {"user": "label"}


async def test_the_same_apply_twice_writes_once(kube: KubeClient, name: str) -> None:
    first = await kube.apply(config_map(name, a="1"))
    second = await kube.apply(config_map(name, a="1"))
    assert metadata(first)["resourceVersion"] == metadata(second)["resourceVersion"]


async def test_without_force_a_field_of_somebody_else_is_a_conflict(
    api_server: ControlPlane, kube: KubeClient, name: str
) -> None:
    await kube.apply(config_map(name, a="1"))
    api_server.kubectl("patch", "configmap", name, "--type=merge", "-p", '{"data": {"a": "theirs"}}')
    with pytest.raises(Conflict, match="conflict with"):
        await kube.apply(config_map(name, a="ours"), force=False)
    assert (await kube.apply(config_map(name, a="ours")))["data"] == {"a": "ours"}


async def test_apply_with_a_uid_neither_creates_nor_touches_a_successor(kube: KubeClient, name: str) -> None:
    old = config_map(name, a="1")
    metadata(old)["uid"] = "8b0f6ba5-6a5c-4b7e-9f5b-000000000000"
    with pytest.raises(Conflict):
        await kube.apply(old)
    await kube.create(config_map(name, a="new"))
    with pytest.raises(Conflict):
        await kube.apply(old)
    assert (await kube.get(CONFIGMAP, name, "default"))["data"] == {"a": "new"}


async def test_a_status_is_exactly_what_was_written_last_and_the_spec_stays(kube: KubeClient, name: str) -> None:
    created = await kube.apply(task(name, spec={"model": {"source": SOURCE}}))
    status: JsonObject = {"phase": "Running", "ready": 0, "conditions": [condition("Accepted"), condition("Ready")]}
    first = await kube.apply_status(task(name, status=status))
    assert first["status"] == status
    status = {"phase": "Succeeded", "conditions": [condition("Ready", "done")]}
    second = await kube.apply_status(task(name, status=status))
    assert second["status"] == status, "fields that are not said any more must go away"
    assert second["spec"] == created["spec"]
    assert metadata(second)["generation"] == 1
    again = await kube.apply(task(name, spec={"model": {"source": SOURCE}, "pin": True}))
    assert again["status"] == status, "an apply of the object must not take its status away"


async def test_a_status_takes_over_what_another_program_wrote(
    api_server: ControlPlane, kube: KubeClient, name: str
) -> None:
    await kube.apply(task(name, spec={"model": {"source": SOURCE}}))
    api_server.kubectl(
        "patch", "p2ptask", name, "--subresource=status", "--type=merge", "-p", '{"status": {"phase": "Failed"}}'
    )
    assert (await kube.apply_status(task(name, status={"phase": "Running"})))["status"] == {"phase": "Running"}
    assert (await kube.apply_status(task(name, status={"desired": 2})))["status"] == {"desired": 2}


async def test_the_same_status_twice_writes_once_and_a_wrong_one_is_invalid(kube: KubeClient, name: str) -> None:
    created = await kube.create(task(name, spec={"model": {"source": SOURCE}}))
    body = task(name, status={"phase": "Running"})
    metadata(body)["uid"] = metadata(created)["uid"]
    first, second = await kube.apply_status(body), await kube.apply_status(body)
    assert metadata(first)["resourceVersion"] == metadata(second)["resourceVersion"]
    body["status"] = {"phase": "NoSuchPhase"}
    with pytest.raises(Invalid, match="NoSuchPhase"):
        await kube.apply_status(body)


async def test_a_status_for_an_object_that_is_gone_or_re_created_is_refused(kube: KubeClient, name: str) -> None:
    with pytest.raises(NotFound):
        await kube.apply_status(task(name, status={"phase": "Running"}))
    created = await kube.create(task(name, spec={"model": {"source": SOURCE}}))
    body = task(name, status={"phase": "Running"})
    metadata(body)["uid"] = "8b0f6ba5-6a5c-4b7e-9f5b-000000000000"
    with pytest.raises(Conflict):
        await kube.apply_status(body)
    metadata(body)["uid"] = metadata(created)["uid"]
    assert (await kube.apply_status(body))["status"] == {"phase": "Running"}


async def test_an_old_resource_version_in_a_status_is_a_conflict(kube: KubeClient, name: str) -> None:
    created = await kube.create(task(name, spec={"model": {"source": SOURCE}}))
    body = task(name, status={"phase": "Running"})
    metadata(body)["resourceVersion"] = metadata(created)["resourceVersion"]
    await kube.apply_status(body)
    body["status"] = {"phase": "Pending"}
    with pytest.raises(Conflict):
        await kube.apply_status(body)


async def test_create_and_replace(kube: KubeClient, name: str) -> None:
    created = await kube.create(config_map(name, a="1"))
    with pytest.raises(Conflict, match="already exists"):
        await kube.create(config_map(name))
    replaced = await kube.replace({**created, "data": {"b": "2"}})
    assert replaced["data"] == {"b": "2"}
    with pytest.raises(Conflict, match="has been modified"):
        await kube.replace({**created, "data": {"c": "3"}})


async def test_delete_says_whether_it_deleted(kube: KubeClient, name: str) -> None:
    created = await kube.create(config_map(name))
    assert not await kube.delete(CONFIGMAP, name, "default", uid="8b0f6ba5-6a5c-4b7e-9f5b-000000000000")
    await kube.get(CONFIGMAP, name, "default")
    assert await kube.delete(CONFIGMAP, name, "default", uid=metadata(created)["uid"])
    with pytest.raises(NotFound):
        await kube.get(CONFIGMAP, name, "default")
    assert not await kube.delete(CONFIGMAP, name, "default", uid=metadata(created)["uid"])
    assert not await kube.delete(CONFIGMAP, name, "default")


async def test_a_finalizer_is_removed_by_json_patch_only_from_the_version_that_was_looked_at(
    kube: KubeClient, name: str
) -> None:
    body = config_map(name)
    metadata(body)["finalizers"] = ["modelswarm.io/engine"]
    created = await kube.create(body)
    assert await kube.delete(CONFIGMAP, name, "default")
    assert metadata(await kube.get(CONFIGMAP, name, "default"))["deletionTimestamp"]
    remove: JsonObject = {"op": "remove", "path": "/metadata/finalizers/0"}

    def test_of(version: str) -> JsonObject:
        return {"op": "test", "path": "/metadata/resourceVersion", "value": version}

    with pytest.raises(Invalid):
        await kube.json_patch(CONFIGMAP, name, "default", [test_of(metadata(created)["resourceVersion"]), remove])
    version = metadata(await kube.get(CONFIGMAP, name, "default"))["resourceVersion"]
    await kube.json_patch(CONFIGMAP, name, "default", [test_of(version), remove])
    with pytest.raises(NotFound):
        await kube.get(CONFIGMAP, name, "default")


async def test_json_patch_of_a_subresource(kube: KubeClient, name: str) -> None:
    await kube.create(task(name, spec={"model": {"source": SOURCE}}))
    operation: JsonObject = {"op": "add", "path": "/status", "value": {"phase": "Running"}}
    found = await kube.json_patch(P2PTASK, name, "default", [operation], subresource="status")
    assert found["status"] == {"phase": "Running"}


async def test_a_list_of_several_pages_is_complete_and_knows_its_version(kube: KubeClient, name: str) -> None:
    count, labels = PAGE + 20, {"test": name}

    async def one(number: int) -> JsonObject:
        body = config_map(f"{name}-{number:04d}")
        metadata(body)["labels"] = labels
        return await kube.create(body)

    newest = 0
    for start in range(0, count, 100):
        made = await asyncio.gather(*(one(number) for number in range(start, min(start + 100, count))))
        newest = max(newest, *(int(metadata(obj)["resourceVersion"]) for obj in made))
    found = await kube.list(CONFIGMAP, label_selector=f"test={name}")
    assert [metadata(obj)["name"] for obj in found] == [f"{name}-{number:04d}" for number in range(count)]
    assert {(obj["apiVersion"], obj["kind"]) for obj in found} == {("v1", "ConfigMap")}
    assert int(found.resource_version) >= newest
    assert not await kube.list(CONFIGMAP, "kube-system", label_selector=f"test={name}")
    only = await kube.list(CONFIGMAP, "default", field_selector=f"metadata.name={name}-0003")
    assert [metadata(obj)["name"] for obj in only] == [f"{name}-0003"]

    store = Store()
    after = await one(9999)
    store.put(CONFIGMAP, after)
    store.put(CONFIGMAP, config_map_as_of("gone-meanwhile", int(found.resource_version) - 1))
    changed = store.replace_all(CONFIGMAP, found)
    assert len(changed) == count + 1
    assert Key("default", "gone-meanwhile") in changed
    assert store.count(CONFIGMAP) == count + 1
    assert store.size() / store.count(CONFIGMAP) < 400


def config_map_as_of(name: str, version: int) -> JsonObject:
    body = config_map(name)
    metadata(body)["resourceVersion"] = str(version)
    return body


async def test_what_breaks_a_schema_or_a_rule_is_invalid_with_the_servers_words(kube: KubeClient, name: str) -> None:
    with pytest.raises(Invalid, match="exactly one of") as caught:
        await kube.apply(task(name, spec={}))
    assert caught.value.status == 422
    with pytest.raises(Invalid):
        await kube.apply(config_map("Not_A_Name"))


async def test_a_kind_that_is_not_served_and_a_namespace_that_is_missing_are_not_found(
    kube: KubeClient, name: str
) -> None:
    body = config_map(name)
    metadata(body)["namespace"] = "nowhere"
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await kube.create(body)
    with pytest.raises(NotFound, match=f'configmaps "{name}" not found'):
        await kube.get(CONFIGMAP, name, "default")


async def test_what_rbac_does_not_allow_is_forbidden(api_server: ControlPlane, name: str) -> None:
    path = api_server.user_kubeconfig("nobody")
    async with open_client(await load_configuration(path)) as api_client:
        kube, metrics = KubeClient(api_client, metrics=(metrics := Metrics())), metrics
        with pytest.raises(Forbidden, match='User "nobody" cannot get resource "secrets"'):
            await kube.get(SECRET, name, "default")
        with pytest.raises(Forbidden):
            await kube.list(NODE)
    labels = {"verb": "get", "kind": "Secret", "code": "403"}
    assert metrics.registry.get_sample_value("modelswarm_api_requests_total", labels) == 1


async def test_a_service_account_token_works_and_a_wrong_one_is_forbidden(
    api_server: ControlPlane, tmp_path: Path
) -> None:
    api_server.kubectl("create", "serviceaccount", "robot")
    api_server.kubectl("create", "clusterrole", "reader", "--verb=get", "--resource=configmaps")
    api_server.kubectl(
        "create", "clusterrolebinding", "robot", "--clusterrole=reader", "--serviceaccount=default:robot"
    )
    api_server.kubectl("create", "configmap", "readable")
    path = api_server.service_account_kubeconfig("default", "robot")
    configuration = await load_configuration(path)
    async with open_client(configuration) as api_client:
        kube = KubeClient(api_client)
        assert await kube.get(CONFIGMAP, "readable", "default")
        token = configuration.api_key["BearerToken"].removeprefix("Bearer ")
        configuration.api_key["BearerToken"] = "Bearer wrong"
        with pytest.raises(Forbidden) as caught:
            await kube.get(CONFIGMAP, "readable", "default")
        assert caught.value.status == 401
        assert "wrong" not in str(caught.value)
    info = await login_handler(await load_configuration(path))()
    assert info.token == token


async def test_an_api_server_that_is_away_is_unavailable_and_then_used_again(
    kube: KubeClient, api_server: ControlPlane, name: str
) -> None:
    await kube.create(config_map(name))
    await asyncio.to_thread(api_server.stop_apiserver)
    try:
        with pytest.raises(Unavailable, match="no answer from the API server"):
            await kube.get(CONFIGMAP, name, "default")
    finally:
        await asyncio.to_thread(api_server.start_apiserver)
    assert await kube.get(CONFIGMAP, name, "default")


async def test_an_events_fields_are_what_the_api_server_wants(kube: KubeClient, name: str) -> None:
    created = await kube.create(
        {
            "apiVersion": OPENMODEL.api_version,
            "kind": "OpenModel",
            "metadata": {"name": name},
            "spec": {"familyName": "f", "source": SOURCE},
        }
    )
    metrics = Metrics()
    events = EventRecorder(kube, metrics=metrics)
    writer = asyncio.create_task(events.run())
    events.emit(created, "Warning", "SourceNotFound", "no such repository")
    events.emit(await kube.create(config_map(name)), "Normal", "Ready", "x" * 5000)
    assert await events.drain(60)
    writer.cancel()
    found = [
        obj
        for obj in await kube.list(EVENT, "default")
        if (obj["regarding"] or {}).get("name") == name  # type: ignore[union-attr]
    ]
    assert {obj["reason"] for obj in found} == {"SourceNotFound", "Ready"}
    assert not [sample for metric in metrics.events_dropped.collect() for sample in metric.samples]


async def test_a_field_that_a_built_in_kind_does_not_have_is_refused(kube: KubeClient, name: str) -> None:
    body = config_map(name)
    body["dta"] = {"a": "1"}
    with pytest.raises(Unavailable, match="field not declared in schema") as caught:
        await kube.apply(body)
    assert caught.value.status == 500, "the API server answers so, and we do not judge by the words of a message"
