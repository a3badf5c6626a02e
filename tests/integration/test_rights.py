"""The shipped rules are what the operator needs: nothing is refused, and nothing is allowed that it never does."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from dev.audit import AuditEvent
from dev.controlplane import ControlPlane
from dev.hub import HubThread
from dev.installation import NAMESPACE, ROOT, SERVICE_ACCOUNT, OperatorProcess, install
from dev.registry import Registry
from tests.integration.support import Api, Manifest, eventually, open_model, p2p_task, playground
from tests.integration.support.played import PlayedAgents, make_namespace

HOME = "default"
USER = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
OURS = "app.kubernetes.io/managed-by=modelswarm"
TOKEN = "hf_of_the_operator"
RULES = (ROOT / "config" / "operator" / "rbac.yaml", ROOT / "config" / "operator" / "rbac-agents.yaml")


class Right(NamedTuple):
    group: str
    resource: str
    verb: str
    name: str = ""


NEVER_SEEN = {
    Right("llmaz.io", "openmodels", "get"): "read from the watch; goes with list and watch in every tool",
    Right("inference.llmaz.io", "playgrounds", "get"): "as above",
    Right("inference.llmaz.io", "backendruntimes", "get"): "as above",
    Right("llmaz.io", "nodecaches", "get"): "as above",
    Right("llmaz.io", "openmodels/finalizers", "update"): "asked by OwnerReferencesPermissionEnforcement, if it is on",
    Right("llmaz.io", "p2ptasks/finalizers", "update"): "as above",
    Right("inference.llmaz.io", "playgrounds/finalizers", "update"): "as above",
    Right("llmaz.io", "p2ptasks", "create"): "a server-side apply of a new object: authorized as patch and as create",
    Right("apps", "deployments", "create"): "as above",
    Right("", "services", "create"): "as above",
    Right("autoscaling", "horizontalpodautoscalers", "create"): "as above",
    Right("", "secrets", "get", "oss-access-secret"): "as modelhub-secret, for OSS sources",
    Right("", "secrets", "get", "aws-access-secret"): "as modelhub-secret, for S3 sources",
    Right("", "secrets", "get", "dragonfly-token"): "only where the Dragonfly engine is configured",
}
"""Rights that no request in the log shows, each with the reason why it is given all the same."""


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False, audit_log=True) as running:
        install(running)
        make_namespace(running)
        running.apply(RULES[1])
        yield running


@pytest.fixture(scope="module")
def used(
    own_cluster: ControlPlane, hub_server: HubThread, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> list[AuditEvent]:
    """All requests of an operator that has met everything once: new, changed, scaled, lost, deleted, handed over."""
    logs: Path = tmp_path_factory.mktemp("rights")
    kubeconfig = own_cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)

    def operator(name: str, *more: str) -> OperatorProcess:
        return OperatorProcess(
            kubeconfig,
            logs / f"{name}.log",
            arguments=["--log-format=text", f"--registries=docker.io={registry.url}", *more],
            environment={"HF_ENDPOINT": hub_server.url},
        )

    with operator("without-agents") as running, Api(own_cluster) as api:
        running.wait_leading()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "modelhub-secret", "namespace": NAMESPACE}}
        hub_server.hub.allow(TOKEN, "*")
        api.apply({**secret, "stringData": {"HF_TOKEN": TOKEN}})
        _live_through(api)
    with operator("with-agents", "--agent-root=/mnt/models") as running, Api(own_cluster) as api:
        running.wait_leading()
        _live_with_agents(api, PlayedAgents(api))
    return [event for event in own_cluster.audit_events() if event.user == USER]


def _live_through(api: Api) -> None:
    scaled = {"elasticConfig": {"minReplicas": 1, "maxReplicas": 2, "scaleTrigger": {"hpa": {}}}}
    api.apply(open_model("first", "facebook/opt-125m"))
    api.apply(_at_home(playground("served", "first", **scaled)))
    eventually(lambda: api.find("HorizontalPodAutoscaler", "served", HOME), 20)
    # The user scales by hand instead, and takes another version of the image.
    api.apply(_at_home(playground("served", "first", replicas=2)))
    eventually(lambda: api.find("HorizontalPodAutoscaler", "served", HOME) is None, 10)
    eventually(lambda: api.get("Deployment", "served", HOME)["spec"]["replicas"] == 2, 10)
    # Another model is another task and another manifest; the old ones go when the Deployment has moved on.
    before = {task["metadata"]["name"] for task in api.all("P2PTask", NAMESPACE)}
    copies = {obj["metadata"]["name"] for obj in api.all("ConfigMap", HOME, labels=OURS)}
    assert before
    assert copies
    api.apply(open_model("first", "Qwen/Qwen2-0.5B-Instruct"))
    eventually(lambda: _become_available(api) and _none_of(api, "P2PTask", NAMESPACE, before), 20)
    eventually(lambda: _become_available(api) and _none_of(api, "ConfigMap", HOME, copies), 20)
    # A task made by hand, which goes by itself.
    task = p2p_task("by-hand", "facebook/opt-125m", ttlSecondsAfterFinished=0)
    api.apply({**task, "metadata": {"name": "by-hand", "namespace": HOME}})
    eventually(lambda: api.find("P2PTask", "by-hand", HOME) is None, 10)


def _live_with_agents(api: Api, agents: PlayedAgents) -> None:
    agents.add("n1")
    api.apply(open_model("second", "facebook/opt-6.7b"))

    def task() -> Manifest:
        tasks = api.all("P2PTask", NAMESPACE, labels="llmaz.io/model-name=second")
        assert len(tasks) == 1, tasks
        found = tasks[0]
        return found.get("status", {})  # type: ignore[no-any-return]

    eventually(lambda: task().get("nodes") == ["n1"], 30)
    agents.report("n1", task()["resolved"]["digest"], state="Ready")
    eventually(lambda: task()["phase"] == "Succeeded", 30)


def _at_home(obj: Manifest) -> Manifest:
    return {**obj, "metadata": {**obj["metadata"], "namespace": HOME}}


def _none_of(api: Api, kind: str, namespace: str, names: set[str]) -> bool:
    return names.isdisjoint(obj["metadata"]["name"] for obj in api.all(kind, namespace))


def _become_available(api: Api) -> bool:
    live = api.get("Deployment", "served", HOME)
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    status = {"observedGeneration": live["metadata"]["generation"], **dict.fromkeys(counts, live["spec"]["replicas"])}
    if live.get("status") != status:
        api.patch("Deployment", "served", HOME, {"status": status}, subresource="status")
    return True


def _given() -> set[Right]:
    rights: set[Right] = set()
    for document in (each for path in RULES for each in yaml.safe_load_all(path.read_text())):
        for rule in document.get("rules", []):
            rights |= {
                Right(group, resource, verb, name)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
                for name in rule.get("resourceNames", [""])
            }
    return rights


def _is_request_for(event: AuditEvent, right: Right) -> bool:
    """Whether the right is what allowed the request."""
    same = (event.api_group, event.resource, event.verb) == right[:3]
    return same and right.name in ("", event.name)


def test_no_request_of_the_operator_is_refused(used: list[AuditEvent]) -> None:
    assert used
    assert [event for event in used if event.code in (401, 403)] == []


def test_every_right_is_used_or_has_a_reason(used: list[AuditEvent]) -> None:
    unused = {right for right in _given() if not any(_is_request_for(event, right) for event in used)}
    assert unused == NEVER_SEEN.keys()


def test_secrets_are_only_read_by_name(used: list[AuditEvent]) -> None:
    asked = {(event.verb, event.namespace, event.name) for event in used if event.resource == "secrets"}
    assert asked == {("get", NAMESPACE, "modelhub-secret")}


@pytest.mark.parametrize(
    ("allowed", "request_"),
    [
        pytest.param("yes", ("get", "secret/modelhub-secret", "-n", NAMESPACE), id="may read its own named Secret"),
        pytest.param("no", ("get", "secret/another", "-n", NAMESPACE), id="may not read another Secret"),
        pytest.param("no", ("get", "secret/modelhub-secret", "-n", HOME), id="may not read a user's Secret"),
        pytest.param("no", ("list", "secrets", "-n", NAMESPACE), id="may not list Secrets where it lives"),
        pytest.param("no", ("list", "secrets", "-A"), id="may not list all Secrets"),
        pytest.param("no", ("watch", "secrets", "-A"), id="may not watch Secrets"),
        pytest.param("no", ("delete", "deployments", "-A"), id="may not delete Deployments"),
        pytest.param("no", ("create", "pods", "-A"), id="may not make pods"),
        pytest.param("no", ("delete", "playgrounds.inference.llmaz.io", "-A"), id="may not delete Playgrounds"),
        pytest.param("no", ("update", "leases/another", "-n", NAMESPACE), id="may not take another Lease"),
    ],
)
def test_what_the_operator_may(own_cluster: ControlPlane, allowed: str, request_: tuple[str, ...]) -> None:
    answer = own_cluster.kubectl("auth", "can-i", *request_, "--as", USER, check=False)
    assert answer.strip() == allowed
