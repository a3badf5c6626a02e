"""The first seed's README on real nodes: its two commands, a model, and its troubleshooting, word for word."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dev.cluster.cluster import Cluster
from dev.hub import Hub, Repository
from dev.installation import ROOT
from tests.e2e.support.place import Place, left_once
from tests.e2e.support.shell import Shell
from tests.integration.support import Api, Manifest, eventually, kubectl_json
from tests.integration.support.ome import OME_CRDS, base_model

NAMESPACE = "ome"
FILES = ("headless-service.yaml", "model-agent-daemonset.yaml")
LABEL = "models.ome.io/clusterbasemodel.{}"


@pytest.fixture(scope="module")
def shell(
    cluster: Cluster, archives: Mapping[str, Path], hub_server: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shell]:
    home = tmp_path_factory.mktemp("seed")
    # A copy, because the current namespace is kept in it.
    (home / "kubeconfig").write_text(cluster.plane.kubeconfig.read_text())
    shell = Shell(home, ROOT / "config" / "p2p")
    shell(f"kubectl config set-context --current --namespace={NAMESPACE}")
    for node in cluster.nodes.values():
        node.import_image(archives["agent"])
    cluster.plane.apply(OME_CRDS)
    yield shell
    shell("kubectl delete clusterbasemodels --all")
    shell(f"kubectl delete -f {FILES[1]}; kubectl delete -f {FILES[0]} --timeout=120s")
    cluster.plane.kubectl("delete", "-f", "-", input=OME_CRDS)


def agents(cluster: Cluster) -> list[Manifest]:
    select = "app.kubernetes.io/name=ome-model-agent"
    found: list[Manifest] = kubectl_json(cluster.plane, "-n", NAMESPACE, "get", "pods", "-l", select)["items"]
    return found


def labelled(api: Api, label: str) -> dict[str, str]:
    nodes = {node["metadata"]["name"]: node["metadata"].get("labels", {}) for node in api.all("Node")}
    return {name: labels[label] for name, labels in nodes.items() if label in labels}


def spread(api: Api, cluster: Cluster, name: str, repository: Repository) -> None:
    api.create(base_model(name, f"hf://{repository.id}", path=f"/mnt/models/{name}"))
    eventually(lambda: labelled(api, LABEL.format(name)) == dict.fromkeys(cluster.nodes, "Ready"), 60, 0.2)


def test_the_two_commands_bring_an_agent_to_every_node(shell: Shell, cluster: Cluster, hub: Hub) -> None:
    shell("kubectl apply -f headless-service.yaml")
    shell("kubectl apply -f model-agent-daemonset.yaml")
    # The only thing that is not in the README: the public hub cannot be reached from here.
    shell(f"kubectl set env daemonset/ome-model-agent HF_ENDPOINT={hub.url}")
    shell("kubectl rollout status daemonset/ome-model-agent --timeout=180s")
    assert {pod["spec"]["nodeName"] for pod in agents(cluster)} == set(cluster.nodes)


def test_a_model_reaches_every_node_and_leaves_the_hub_once(shell: Shell, place: Place) -> None:
    repository = place.repository()
    spread(place.scene.api, place.cluster, "seeded", repository)
    assert left_once(place, repository)
    wanted = {name: blob.sha256 for name, blob in repository.get("main").files.items()}
    for node in place.cluster.nodes.values():
        listing = node.run(
            ["bash", "-c", "cd /mnt/models/seeded && find . -type f -not -name .complete | xargs sha256sum"]
        )
        lines = [line.split(maxsplit=1) for line in listing.stdout.splitlines()]
        assert {path.removeprefix("./"): digest for digest, path in lines} == wanted


def test_p2p_not_working(shell: Shell, cluster: Cluster) -> None:
    pods = agents(cluster)
    assert "ome-peers" in shell("kubectl get svc ome-peers -n ome")
    pod = pods[0]["metadata"]["name"]
    answer = shell(f"kubectl exec -it {pod} -- nslookup ome-peers.ome.svc.cluster.local")
    for each in pods:
        assert each["status"]["podIP"] in answer
        # The exit code says it, whatever this nc prints.
        shell(f"kubectl exec -it {pod} -- nc -zv {each['status']['podIP']} 6881")
    shell(f"kubectl exec -it {pod} -- nc -zv {pods[0]['status']['podIP']} 6882", fails=True)


def test_lease_stuck(shell: Shell, place: Place) -> None:
    leases = shell("kubectl get leases -n ome -l ome.io/type=model-download -o name").split()
    assert len(leases) == 1
    assert leases[0].startswith("lease.coordination.k8s.io/ome-model-")
    shell(f"kubectl delete lease {leases[0].rpartition('/')[2]} -n ome")
    # Nothing is lost by it: the next model goes on as the first did.
    repository = place.repository()
    spread(place.scene.api, place.cluster, "afterwards", repository)
    assert left_once(place, repository)


def test_rate_limiting_still_occurring(shell: Shell, cluster: Cluster) -> None:
    for pod in agents(cluster):
        said = shell(f'kubectl logs {pod["metadata"]["name"]} | grep "P2P"')
        assert "P2P enabled: BitTorrent on port 6881, metainfo on port 8081" in said
    assert json.dumps("ome.io/status") not in shell("kubectl get leases -n ome -o yaml")
    assert "holderIdentity" in shell("kubectl get leases -n ome -o yaml")
