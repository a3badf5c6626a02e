"""The quick start, followed word by word on real nodes: the commands are taken out of the page, and run as written.

What is not as on the page, all of it: Docker's and kind's commands, for the nodes are there and the images are built;
the origins, which are stand-ins (two more values for the chart); the engines' programs; and the engines ask for less
processor, because these nodes have two of them.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dev.cluster.archive import push
from dev.cluster.cluster import Cluster
from dev.hub import Hub, Repository, make_gguf, make_model
from dev.installation import ROOT
from tests.documents import blocks_of
from tests.e2e.support.mirror import LLAMACPP, VLLM, Engine, mirror, values
from tests.e2e.support.page import Walk
from tests.e2e.support.release import TAG
from tests.e2e.support.shell import Shell
from tests.integration.support import Api, eventually

PAGE = "docs/quickstart.md"
UPGRADE = "docs/how-to/upgrade.md"
WORKERS = "models=yes nvidia.com/gpu.present=true"
"""Labels that the page expects on the nodes."""
GPU = '[{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "1"}]'
LESS = '[{"op": "replace", "path": "/spec/recommendedConfigs/0/resources", "value": {"requests": {"cpu": "500m"}}}]'


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path) -> Iterator[Shell]:
    """Stands in what is a clone for it, so that the files which the page writes are not written into ours."""
    home, clone = tmp_path / "home", tmp_path / "clone"
    home.mkdir()
    clone.mkdir()
    (home / "kubeconfig").write_text(cluster.plane.kubeconfig.read_text())
    for name in ("charts", "examples"):
        (clone / name).symlink_to(ROOT / name)
    shell = Shell(home, clone)
    shell(f"kubectl label nodes --all {WORKERS}")
    for name, node in cluster.nodes.items():
        shell(f"kubectl patch node {name} --subresource=status --type=json -p '{GPU}'")
        node.run(["rm", "-rf", "/mnt/models"])  # a new user's nodes have nothing there yet
    yield shell
    labels = " ".join(f"{each.partition('=')[0]}-" for each in WORKERS.split())
    shell(f"kubectl label nodes --all {labels}")


@pytest.fixture
def _uninstalled(shell: Shell, api: Api) -> Iterator[None]:
    """Afterwards, by the commands of the page about it."""
    yield
    with Walk(shell, UPGRADE, "Uninstall") as page:
        page.run("helm uninstall")
        page.skip("kubectl patch p2ptask NAME")  # no task has a finalizer
        page.run("kubectl delete -f charts/modelswarm/crds")
        labels = page.run("kubectl get nodes --show-labels | grep").split()
        assert labels
        page.run_each("kubectl label nodes --all content.modelswarm.io/DIGITS-", "content.modelswarm.io/DIGITS", labels)
    eventually(lambda: not api.all("Pod", "default") + api.all("Pod", "llmaz-system"), 60)


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()[1:]]


def add_values(shell: Shell, cluster: Cluster, hub: Hub, *engines: Engine) -> None:
    with (shell.directory / "values.yaml").open("a") as file:
        file.write(values(cluster, hub.url, *engines))


def wait_for_agents(shell: Shell, count: int) -> None:
    """Until the operator, which looks at their Service every 5 s, has seen all of them Ready; what is applied before
    then is brought to fewer nodes than there are, and may be to more of them later."""
    query = "{.items[*].endpoints[?(@.conditions.ready==true)].nodeName}"
    look = "kubectl -n llmaz-system get endpointslices -l kubernetes.io/service-name=ome-peers"
    eventually(lambda: len(set(shell(f'{look} -o jsonpath="{query}"').split())) == count, 60, every=0.5)
    time.sleep(12)


def sent(hub: Hub, repository: Repository) -> int:
    return hub.counters.total(name=f"{repository.id}/*").content


@pytest.mark.usefixtures("_uninstalled")
def test_on_kind(shell: Shell, cluster: Cluster, archives: Mapping[str, Path], hub: Hub, tmp_path: Path) -> None:
    file = make_gguf(tmp_path / "model" / "qwen2-0_5b-instruct-q5_k_m.gguf", tensor_bytes=32 << 20, seed=7)
    make_gguf(file.with_name("qwen2-0_5b-instruct-q8_0.gguf"), seed=8)
    repository = hub.add(Repository.from_folder(file.parent, id="Qwen/Qwen2-0.5B-Instruct-GGUF"))
    mirror(cluster, tmp_path, LLAMACPP)
    with Walk(shell, PAGE, "On kind") as page:
        # Docker's and kind's part: the nodes are there, and the images are loaded into them by containerd.
        page.skip("cat > kind.yaml", "kind create cluster", "for image in operator agent loader; do\n  docker build")
        for node in cluster.nodes.values():
            for target, archive in archives.items():
                node.import_image(archive)
                name = f"modelswarm/{target}:{TAG}"
                node.run(["ctr", "-n", "k8s.io", "images", "tag", f"docker.io/{name}", f"local.invalid/{name}"])
        page.run("cat > values.yaml")
        add_values(shell, cluster, hub, LLAMACPP)
        page.run("helm install")
        page.run("kubectl -n llmaz-system rollout status deployment/modelswarm-operator")
        page.run("kubectl -n llmaz-system rollout status daemonset/ome-model-agent")
        nodes = rows(page.until("kubectl get nodecaches", lambda said: len(rows(said)) == len(cluster.nodes)))
        assert {row[0] for row in nodes} == set(cluster.nodes), "one NodeCache for each worker"
        shell(f"kubectl patch backendruntime llamacpp --type=json -p '{LESS}'")
        wait_for_agents(shell, len(cluster.nodes))

        applied = page.run("kubectl apply -f examples/llamacpp/playground.yaml")
        assert applied.count(" created") == 2

        def all_decided(said: str) -> bool:
            return sorted(row[2] for row in rows(said)) == ["BitTorrent", "Direct", "Direct"]

        page.until("kubectl get p2ptasks -A", all_decided)
        page.run("kubectl get playgrounds")

        def on_two(said: str) -> bool:
            return sorted(row[1] for row in rows(said)) == ["0/0", "1/1", "1/1"]

        page.until("kubectl get nodecaches", on_two)
        once_and_once = [["2/2", "32.0Mi", "32.0Mi"]]
        page.until("kubectl get p2ptasks -n llmaz-system -o custom-columns", lambda said: rows(said) == once_and_once)
        page.run("kubectl wait --for=condition=Available")
        with page.background("kubectl port-forward"):
            answer = page.until("curl -s localhost:8080/v1/chat/completions", bool)
        assert json.loads(answer)["choices"][0]["message"]["content"]

        once = sent(hub, repository)
        assert 0.99 <= once / (32 << 20) <= 1.05
        page.run("kubectl scale playground")
        page.until("kubectl get p2ptasks -A -o wide", lambda said: "3/3" in said)
        log = page.until(
            "kubectl logs -l", lambda said: len({line.partition(" ")[0] for line in said.splitlines()}) == 3
        )
        print(log)
        assert sent(hub, repository) == once
        page.run("kubectl delete -f examples/llamacpp/playground.yaml")
        page.skip("kind delete cluster")


@pytest.mark.usefixtures("_uninstalled")
def test_on_a_cluster(shell: Shell, cluster: Cluster, archives: Mapping[str, Path], hub: Hub, tmp_path: Path) -> None:
    repository = hub.add(Repository.from_folder(make_model(tmp_path / "model", seed=9), id="facebook/opt-125m"))
    ahead = hub.add(Repository.from_folder(make_model(tmp_path / "ahead", seed=10), id="Qwen/Qwen2-0.5B-Instruct"))
    mirror(cluster, tmp_path, VLLM)
    with Walk(shell, PAGE, "On a cluster") as page:
        page.skip("for image in operator agent loader; do\n  docker build")
        for target, archive in archives.items():
            push(archive, cluster.registry, f"modelswarm/{target}", TAG)
        [chosen] = blocks_of(page.text, "yaml")
        (shell.directory / "values.yaml").write_text(chosen.replace("registry.example.com", cluster.registry.host))
        add_values(shell, cluster, hub, VLLM)
        page.run("helm install")
        page.run("kubectl -n llmaz-system rollout status deployment/modelswarm-operator")
        page.run("kubectl -n llmaz-system rollout status daemonset/ome-model-agent")
        assert "Phase:          Succeeded" in page.run("helm -n llmaz-system test modelswarm")
        page.until("kubectl get nodecaches", lambda said: len(rows(said)) == len(cluster.nodes))
        hub.allow("hf_...")  # somebody's token, as it stands there
        page.run("kubectl -n llmaz-system create secret generic modelhub-secret")
        shell(f"kubectl patch backendruntime vllm --type=json -p '{LESS}'")
        page.run("kubectl apply -f examples/huggingface/playground.yaml")
        page.run("kubectl get openmodels,playgrounds,p2ptasks -A")
        page.run("kubectl wait --for=condition=Available")
        page.run("kubectl -n llmaz-system apply -f examples/p2ptask-model.yaml")
        page.run("kubectl -n llmaz-system wait --for=condition=Ready p2ptask/warm-qwen2-0--5b")
    size = sum(blob.size for blob in repository.get("main").files.values())
    assert 0.99 <= sent(hub, repository) / size <= 1.05
    wanted = {blob.sha256: blob.size for name, blob in ahead.get("main").files.items() if not name.endswith(".md")}
    # A node that has the first model has some small files of the second one.
    here = {blob.sha256 for blob in repository.get("main").files.values()}
    fresh = sum(size for sha256, size in wanted.items() if sha256 not in here)
    assert 0.9 < fresh / sum(wanted.values()) < 1
    assert 0.99 * fresh <= sent(hub, ahead) <= 1.05 * sum(wanted.values())
    shell("kubectl -n llmaz-system delete -f examples/p2ptask-model.yaml")
    shell("kubectl -n llmaz-system delete secret modelhub-secret")
    shell("kubectl delete -f examples/huggingface/playground.yaml")
