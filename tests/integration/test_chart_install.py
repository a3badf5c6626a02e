"""The chart's life on a real API server: install, upgrade, rollback, uninstall; and the same objects without Helm.

There is no kubelet, so nothing runs: what is tested is what the API server accepts, keeps and loses.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.controlplane import ControlPlane, KubectlFailed
from dev.helm import CHART, HelmFailed, helm, setting
from dev.installation import ROOT
from dev.manifests import manifests
from tests.integration.support import open_model, p2p_task
from tests.integration.support.chart import one, rendered

NAMESPACE = "swarm"
OBJECTS = [open_model("kept"), p2p_task("kept")]
DUAL_STACK = "--service-cluster-ip-range=10.0.0.0/16,fd00:10::/108"
ONE_FAMILY, TWO_FAMILIES = "ipFamilyPolicy: SingleStack", "ipFamilyPolicy: PreferDualStack"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False, apiserver_flags=[DUAL_STACK]) as running:
        yield running


@pytest.fixture
def release(cluster: ControlPlane) -> Iterator["Release"]:
    release = Release(cluster)
    yield release
    release.helm("uninstall", "--ignore-not-found")


class Release:
    """One release in its namespace."""

    def __init__(self, cluster: ControlPlane, name: str = "modelswarm", namespace: str = NAMESPACE) -> None:
        self._cluster, self._name, self._namespace = cluster, name, namespace

    def helm(self, verb: str, *arguments: str | Path) -> str:
        words = (verb, self._name, *arguments, "--namespace", self._namespace)
        return helm(*words, kubeconfig=self._cluster.kubeconfig)

    def put(self, verb: str = "install", **values: str | int | bool) -> str:
        chosen = setting(image__registry="registry.test", **values)
        return self.helm(verb, CHART, *(["--create-namespace"] if verb == "install" else []), *chosen)


def get(cluster: ControlPlane, *what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", *what, "-o", "json"))
    return found


def replicas(cluster: ControlPlane) -> int:
    return int(get(cluster, "deployment/modelswarm-operator", "-n", NAMESPACE)["spec"]["replicas"])


def test_install_upgrade_rollback_uninstall_lose_nothing(cluster: ControlPlane, release: Release) -> None:
    notes = release.put()
    assert f"kubectl -n {NAMESPACE} rollout status deployment/modelswarm-operator" in notes
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=120s", "crd", "--all")
    cluster.apply(yaml.safe_dump_all(OBJECTS))

    def secret() -> str:
        return str(get(cluster, "secret/ome-peers", "-n", NAMESPACE)["data"]["secret"])

    first = secret()
    release.put("upgrade", operator__replicas=2)
    assert (replicas(cluster), secret()) == (2, first)
    release.helm("rollback", "1")
    assert (replicas(cluster), secret()) == (1, first)

    release.helm("uninstall")
    for kind in ("openmodel/kept", "p2ptask/kept -n default"):
        assert "finalizers" not in get(cluster, *kind.split())["metadata"]
    assert len(get(cluster, "backendruntimes")["items"]) == 6
    assert len(get(cluster, "crds")["items"]) == 5
    kinds = "deployments,daemonsets,services,secrets,serviceaccounts,roles,rolebindings,networkpolicies"
    left = get(cluster, kinds, "-n", NAMESPACE)["items"]
    assert [each["metadata"]["name"] for each in left if "modelswarm" in json.dumps(each["metadata"])] == []
    for kind in ("clusterroles", "clusterrolebindings", "validatingadmissionpolicies"):
        assert not [each for each in get(cluster, kind)["items"] if "ome-model-agent" in each["metadata"]["name"]]

    release.put()  # what was kept is taken back
    assert len(get(cluster, "backendruntimes")["items"]) == 6


def families(cluster: ControlPlane, namespace: str) -> list[str]:
    found: list[str] = get(cluster, "service/ome-peers", "-n", namespace)["spec"]["ipFamilies"]
    return found


def test_agents_have_one_address_each_and_lose_a_second_one_with_an_upgrade(
    cluster: ControlPlane, release: Release, tmp_path: Path
) -> None:
    """A pod has an address of each family on such a cluster; an agent knows and listens on the first."""
    older = tmp_path / "chart"
    shutil.copytree(CHART, older)
    template = older / "templates" / "agent.yaml"
    template.write_text(template.read_text().replace(ONE_FAMILY, TWO_FAMILIES))
    release.helm("install", older, "--create-namespace", *setting(image__registry="registry.test"))
    assert families(cluster, NAMESPACE) == ["IPv4", "IPv6"]
    release.put("upgrade")
    assert families(cluster, NAMESPACE) == ["IPv4"]
    release.helm("uninstall")
    release.put()
    assert families(cluster, NAMESPACE) == ["IPv4"]


@pytest.mark.parametrize("flags", [(), ("--server-side",)], ids=["from here", "server-side"])
def test_without_helm_they_lose_it_when_the_file_is_applied_again(
    cluster: ControlPlane, flags: tuple[str, ...]
) -> None:
    service = (ROOT / "config" / "p2p" / "headless-service.yaml").read_text()
    try:
        cluster.kubectl("apply", *flags, "-f", "-", input=service.replace(ONE_FAMILY, TWO_FAMILIES))
        assert families(cluster, "ome") == ["IPv4", "IPv6"]
        cluster.kubectl("apply", *flags, "-f", "-", input=service)
        assert families(cluster, "ome") == ["IPv4"]
    finally:
        cluster.kubectl("delete", "service/ome-peers", "-n", "ome")


def test_a_second_installation_is_refused_with_the_reason(cluster: ControlPlane, release: Release) -> None:
    release.put()
    other = Release(cluster, "other", "elsewhere")
    with pytest.raises(HelmFailed, match=r"DaemonSet swarm/ome-model-agent \(release modelswarm\)"):
        other.put()
    with pytest.raises(HelmFailed, match=r"modelswarm-operator.* cannot be imported into the current release"):
        other.put(agent__enabled=False)


def test_agents_that_helm_did_not_install_are_seen_too(cluster: ControlPlane, release: Release) -> None:
    for name in ("headless-service", "model-agent-daemonset"):
        cluster.apply(ROOT / "config" / "p2p" / f"{name}.yaml")
    try:
        with pytest.raises(HelmFailed, match=r"DaemonSet ome/ome-model-agent \(not by Helm\).*agent\.enabled=false"):
            release.put()
        release.put(agent__enabled=False)
    finally:
        cluster.kubectl("delete", "daemonset/ome-model-agent", "-n", "ome")
        for kind in (
            "clusterrole",
            "clusterrolebinding",
            "validatingadmissionpolicy",
            "validatingadmissionpolicybinding",
        ):
            cluster.kubectl("delete", kind, "ome-model-agent")
        for namespace in ("ome", "default"):
            cluster.kubectl("delete", "role,rolebinding", "ome-model-agent", "-n", namespace)


def test_a_namespace_of_the_agents_that_is_missing_is_named(cluster: ControlPlane, release: Release) -> None:
    release.put()
    with pytest.raises(HelmFailed, match="kubectl create namespace nowhere"):
        release.put("upgrade", agent__namespace="nowhere")


def test_the_server_accepts_every_object(cluster: ControlPlane) -> None:
    cluster.apply(ROOT / "crds")
    for namespace in ("dry", "team-a"):
        cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}))
    values: dict[str, str | int | bool] = {
        "dragonfly__managerUrl": "http://manager.test",
        "priorityClass__create": True,
        "operator__replicas": 2,
    }
    names = '[{"name": "team-a", "pullSecrets": ["regcred"]}]'
    objects = rendered("--skip-tests", "--set-json", f"credentialNamespaces={names}", namespace="dry", **values)
    text = yaml.safe_dump_all(objects)
    out = cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-o", "name", "-f", "-", input=text
    )
    assert len(out.split()) == len(objects)


def test_the_operators_pod_is_restricted(cluster: ControlPlane) -> None:
    """As Pod Security sees it; the agents' pod is not, for its directory on the node."""
    level = "pod-security.kubernetes.io/enforce"
    meta = {"name": "strict", "labels": {level: "restricted"}}
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}))
    for account in ("default", "modelswarm-operator", "ome-model-agent"):
        account_meta = {"name": account, "namespace": "strict"}
        cluster.apply(json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account_meta}))
    objects = rendered(namespace="strict")

    def create(kind: str) -> str:
        spec = one(objects, kind)["spec"]["template"]["spec"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "strict"}, "spec": spec}
        return cluster.kubectl("create", "--dry-run=server", "-o", "name", "-f", "-", input=json.dumps(pod))

    assert create("Deployment") == "pod/p\n"
    with pytest.raises(KubectlFailed, match="hostPath"):
        create("DaemonSet")
    test = one(objects, "Pod")
    assert (
        cluster.kubectl("create", "--dry-run=server", "-o", "name", "-f", "-", input=json.dumps(test))
        == "pod/modelswarm-test\n"
    )


def test_the_manifests_apply_on_an_empty_cluster_without_helm(tmp_path: Path) -> None:
    path = tmp_path / "modelswarm.yaml"
    path.write_text(manifests("registry.test"))
    assert "Helm" not in path.read_text()
    with ControlPlane(controllers=False, scheduler=False) as cluster:
        command = ("apply", "--server-side", "-f", path)
        with pytest.raises(KubectlFailed, match="ensure CRDs are installed first"):
            cluster.kubectl(*command)  # kubectl looks all kinds up before it applies anything
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=120s", "crd", "--all")
        cluster.wait_for_storage(*cluster.kubectl("get", "crd", "-o", "jsonpath={.items[*].metadata.name}").split())
        cluster.kubectl(*command)
        assert len(get(cluster, "backendruntimes")["items"]) == 6
        cluster.kubectl("get", "deployment/modelswarm-operator", "-n", "llmaz-system")
        cluster.kubectl("get", "daemonset/ome-model-agent", "-n", "ome")
