"""Whatever is killed while a model is on its way, it arrives: without help, and without leaving the hub again."""

from collections.abc import Callable

import pytest

from dev.hub import Kind, Slow
from tests.e2e.support import Place, Release
from tests.e2e.support.place import PATIENCE, left_once, size
from tests.integration.support import Manifest, eventually

# As in the tests with agents as processes: at a kill some MiB are in flight, or not yet with another node, whatever the
# size; and how many these are depends on the rate.
SHARDS, SHARD_BYTES = 4, 16 << 20
PER_RESPONSE = 1 << 19
"""Bytes per second of each of the hub's responses: slow enough to be in the middle of it for a while."""
ALL_NODES = {"copies": "All"}


class Download:
    """A model on its way to all nodes. ``task`` is made by hand, so that nothing else waits for it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.repository = place.repository(shards=SHARDS, shard_bytes=SHARD_BYTES)
        for kind in (Kind.CDN, Kind.RESOLVE):
            place.hub.fail(f"*{self.repository.id}*", Slow(bytes_per_second=PER_RESPONSE), on=kind)
        source = {"modelHub": {"modelID": self.repository.id}}
        place.scene.api.apply(
            {
                "apiVersion": "llmaz.io/v1alpha1",
                "kind": "P2PTask",
                "metadata": {"name": place.scene.suffix, "namespace": "llmaz-system"},
                "spec": {"model": {"source": source}, "placement": ALL_NODES},
            }
        )

    def status(self) -> Manifest:
        found: Manifest = self.place.scene.api.get("P2PTask", self.place.scene.suffix, "llmaz-system").get("status", {})
        return found

    def wait_half(self) -> None:
        """Until some of it has left the hub, and by far not all."""
        eventually(lambda: self.sent() > size(self.repository) // 5, PATIENCE)
        assert self.sent() < size(self.repository) * 0.8, "too fast to be disturbed in the middle"

    def sent(self) -> int:
        return self.place.sent(self.repository)

    def wait_everywhere(self, seconds: float = 90.0) -> None:
        def look() -> bool:
            status = self.status()
            nodes = [node for node in self.place.cluster.nodes.values() if node.running]
            assert (status.get("phase"), status.get("ready")) == ("Succeeded", len(nodes)), status
            return True

        eventually(look, seconds, every=0.2)

    def remove(self) -> None:
        self.place.scene.api.delete("P2PTask", self.place.scene.suffix, "llmaz-system")


@pytest.fixture
def download(release: Release, place: Place) -> Download:
    return Download(place)


def kill_agent(release: Release, download: Download) -> None:
    release.kill(release.agent_on("node-2"))


def kill_coordinator(release: Release, download: Download) -> None:
    def holder() -> str:
        leases = download.place.scene.api.all("Lease", "llmaz-system", labels="ome.io/type=model-download")
        repo = download.repository.id
        [ours] = [lease for lease in leases if lease["metadata"]["annotations"].get("modelswarm.io/repo") == repo]
        assert "ome.io/status" not in ours["metadata"]["labels"]
        return str(ours["spec"].get("holderIdentity", ""))

    release.kill(release.agent_on(eventually(holder, 5)))


def kill_operator(release: Release, download: Download) -> None:
    [operator] = release.operators()
    release.kill(operator)


def power_failure(release: Release, download: Download) -> None:
    """A node dies in the middle of it and comes back with what its disk has."""
    download.place.cluster.nodes["node-3"].kill()
    download.place.cluster.join(3)


def restart_api_server(release: Release, download: Download) -> None:
    release.restart_api_server()


def upgrade(release: Release, download: Download) -> None:
    """Another limit for uploads: all agents are replaced, one after the other."""
    release.put(agent__maxUploadRate=str(500 << 20))


@pytest.mark.parametrize(
    ("disturb", "most"),
    [
        pytest.param(kill_agent, 1.2, id="an agent's pod is killed"),
        pytest.param(kill_coordinator, 1.2, id="the pod of the agent that coordinates is killed"),
        pytest.param(kill_operator, 1.05, id="the operator's pod is killed"),
        pytest.param(power_failure, 1.2, id="a node dies and comes back"),
        pytest.param(restart_api_server, 1.05, id="the API server restarts"),
        pytest.param(upgrade, 1.5, id="helm upgrade replaces the agents"),
    ],
)
def test_a_download_survives(
    release: Release, download: Download, disturb: Callable[[Release, Download], None], most: float
) -> None:
    download.wait_half()
    disturb(release, download)
    download.wait_everywhere()
    release.wait()
    ratio = download.sent() / size(download.repository)
    print(f"left the hub {ratio:.3f} times")
    assert left_once(download.place, download.repository, most)
    download.remove()
