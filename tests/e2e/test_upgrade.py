"""From an earlier version to this one, back again, and away: by the commands of the page about it.

The earlier version is a commit of this repository: its chart, and its images. What users made and what serves goes
through all of it untouched, and a new installation takes it over.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev import images
from dev.cluster.archive import push
from dev.cluster.cluster import Cluster
from dev.installation import ROOT
from tests.e2e.support import Place, Release
from tests.e2e.support.mirror import values
from tests.e2e.support.page import Walk
from tests.e2e.support.place import left_once
from tests.e2e.support.release import NAMESPACE, TAG
from tests.e2e.support.shell import Shell
from tests.integration.support import Api, eventually

PAGE = "docs/how-to/upgrade.md"
VERSION = "0.0.9"
"""What the earlier chart is called here, so that its images have another tag."""
KINDS = ("OpenModel", "Playground", "BackendRuntime", "P2PTask", "NodeCache")


@dataclass(frozen=True, slots=True)
class Earlier:
    """The version that is upgraded."""

    chart: Path
    """As a package."""
    images: Mapping[str, Path]


@pytest.fixture(scope="module")
def earlier(archives: Mapping[str, Path], earlier_tree: Path | None) -> Earlier:
    if earlier_tree is None:
        pytest.skip("the commit that is upgraded is not in this clone (it is shallow, or no clone)")
    folder = earlier_tree
    built = images.prepare(archives, root=folder)
    shell = Shell(folder, folder)
    shell(f"helm package charts/modelswarm --version {VERSION} --app-version {VERSION}")
    return Earlier(folder / f"modelswarm-{VERSION}.tgz", {target: image.archive for target, image in built.items()})


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path) -> Shell:
    home, clone = tmp_path / "home", tmp_path / "clone"
    home.mkdir()
    clone.mkdir()
    (home / "kubeconfig").write_text(cluster.plane.kubeconfig.read_text())
    (clone / "charts").symlink_to(ROOT / "charts")
    return Shell(home, clone)


@dataclass(slots=True)
class Story:
    """What must not change, whatever is installed."""

    place: Place
    api: Api
    serving: str
    """A Playground with three replicas."""

    def objects(self) -> dict[tuple[str, str, str], str]:
        """Uids of our objects, but for the tasks of loader images, which come and go with versions."""
        found = {
            (kind, each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
            for kind in KINDS
            for each in self.api.all(kind)
        }
        return {key: each["metadata"]["uid"] for key, each in found.items() if "image-loader" not in key[2]}

    def pods(self) -> dict[str, str]:
        """Uids and restarts of those that serve."""
        return {
            pod["metadata"]["uid"]: str([each["restartCount"] for each in pod["status"]["containerStatuses"]])
            for pod in self.place.pods(self.serving)
        }

    def finalizers(self) -> list[str]:
        return [
            each["metadata"]["name"]
            for kind in KINDS
            for each in self.api.all(kind)
            if "finalizers" in each["metadata"]
        ]


def image_tags(api: Api) -> set[str]:
    """Of the images that run in the release's namespace."""
    pods = [pod for pod in api.all("Pod", NAMESPACE) if "deletionTimestamp" not in pod["metadata"]]
    return {each["image"].rpartition(":")[2] for pod in pods for each in pod["spec"]["containers"]}


@dataclass(slots=True)
class Installed:
    """``gone``: the test has removed it."""

    gone: bool = False


@pytest.fixture
def installed(
    shell: Shell, cluster: Cluster, earlier: Earlier, archives: Mapping[str, Path], place: Place
) -> Iterator[Installed]:
    """The earlier version, with images of both in the registry."""
    for tag, each in ((f"v{VERSION}", earlier.images), (TAG, archives)):
        for target, archive in each.items():
            push(archive, cluster.registry, f"modelswarm/{target}", tag)
    file = shell.home / "values.yaml"
    file.write_text(values(cluster, place.hub.url) + f"image:\n  registry: {cluster.registry.host}\n")
    shell(f"helm install modelswarm {earlier.chart} -n {NAMESPACE} --create-namespace -f {file}")
    _rolled_out(shell)
    installed = Installed()
    yield installed
    if not installed.gone:
        shell(f"helm uninstall modelswarm -n {NAMESPACE}")


def _rolled_out(shell: Shell) -> None:
    for workload in ("deployment/modelswarm-operator", "daemonset/ome-model-agent"):
        shell(f"kubectl -n {NAMESPACE} rollout status {workload}")


def test_upgrade_roll_back_uninstall_and_install(
    installed: Installed, shell: Shell, api: Api, place: Place, request: pytest.FixtureRequest
) -> None:
    repository = place.repository()
    runtime = place.runtime(cpu="100m")
    name = place.serve("served", repository, runtime, replicas=3)
    place.wait_replicas(name, 3)
    by_hand = place.repository()
    place.scene.apply(
        {
            "apiVersion": "llmaz.io/v1alpha1",
            "kind": "P2PTask",
            "metadata": {"name": place.scene.suffix, "namespace": NAMESPACE},
            "spec": {"model": {"source": {"modelHub": {"modelID": by_hand.id}}}, "placement": {"copies": "All"}},
        }
    )

    def ready() -> bool:
        status = api.get("P2PTask", place.scene.suffix, NAMESPACE).get("status", {})
        return (status.get("phase"), status.get("ready")) == ("Succeeded", len(place.cluster.nodes))

    eventually(ready, 60)
    story = Story(place, api, name)
    objects, pods = story.objects(), story.pods()

    def unchanged() -> bool:
        assert objects.items() <= story.objects().items()
        assert story.pods() == pods, "what serves is not touched"
        place.check_files(place.replicas(name), repository)
        return left_once(place, repository, 1.05) and left_once(place, by_hand, 1.05)

    assert image_tags(api) == {f"v{VERSION}"}
    with Walk(shell, PAGE, None) as page:
        page.run("helm show crds")
        page.run("helm upgrade")
        page.run("kubectl -n llmaz-system rollout status deployment/modelswarm-operator")
        page.run("kubectl -n llmaz-system rollout status daemonset/ome-model-agent")
        eventually(lambda: image_tags(api) == {TAG}, 30)
        assert unchanged()
    with Walk(shell, PAGE, "What is restarted, and what is not") as page:
        assert page.run("kubectl diff") == "", "the chart's BackendRuntimes are this version's"
    eventually(ready, 30)
    with Walk(shell, PAGE, "Roll back") as page:
        page.run("helm rollback")
    _rolled_out(shell)
    eventually(lambda: image_tags(api) == {f"v{VERSION}"}, 30)
    assert unchanged()
    eventually(ready, 30)

    with Walk(shell, PAGE, "Uninstall") as page:
        page.run("helm uninstall")
        installed.gone = True
        page.skip(
            "kubectl patch p2ptask",
            "kubectl delete -f charts/modelswarm/crds",
            "kubectl get nodes",
            "kubectl label nodes",
        )
    eventually(lambda: not api.all("Pod", NAMESPACE), 60)
    assert unchanged()
    assert story.finalizers() == []
    for node in place.cluster.nodes.values():
        kept = sum(file.stat().st_size for file in node.path("/mnt/models").rglob("*.safetensors") if file.is_file())
        assert kept, "models stay on the nodes"

    # Whoever installs it again goes on where it ended.
    release: Release = request.getfixturevalue("release")
    assert image_tags(api) == {TAG}
    eventually(ready, 60)
    assert unchanged()
    place.scale(name, 4)
    place.check_files(place.wait_replicas(name, 4), repository)
    assert left_once(place, repository, 1.05)
    place.remove(name)
    api.delete("P2PTask", place.scene.suffix, NAMESPACE)
    release.wait()
