"""Dragonfly's real programs on real nodes: the main job through ``dfget`` in init containers, and an image pull."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev import images
from dev.binaries import BinaryUnavailable
from dev.cluster.archive import push
from dev.cluster.cluster import STANDIN, Cluster
from dev.cluster.dragonfly import ClusterDragonfly
from dev.dragonfly.builds import locate
from dev.dragonfly.configs import CLUSTER
from dev.dragonfly.packages import PackagesMissing, ensure_packages
from dev.images.targets import WITH_DFGET
from dev.oci_image import CONFIG, MANIFEST, Blob, build_image
from dev.registry import Registry
from dev.registry_client import push_blob, push_manifest
from tests.e2e.conftest import TAG
from tests.e2e.support import Place, Release
from tests.e2e.support.place import left_once, size
from tests.e2e.support.release import NAMESPACE
from tests.integration.support import COLLECTED, Api, Manifest, eventually, p2p_task

SECRET = "dragonfly-token"
LOADER = f"modelswarm/{WITH_DFGET}"
SHARDS, SHARD_BYTES = 3, 9 << 20
LAYERS = (9 << 20, 6 << 20)
"""More than what dfdaemon calls small (4 MiB): smaller ones come from the registry in any case."""


@dataclass(frozen=True, slots=True)
class Image:
    reference: str
    repository: str
    layers: tuple[Blob, ...]
    """Those that no node has."""
    config: Blob


@pytest.fixture(scope="module")
def loader() -> Path:
    """The archive of the loader with dfget. Outside CI it skips where programs are missing or not built yet."""
    unattended = bool(os.environ.get("CI"))
    try:
        ensure_packages(install=unattended)
        if not unattended and WITH_DFGET not in images.usual_targets():
            raise BinaryUnavailable("dfdaemon and dfget are not built: make dragonfly")
        locate()
        return images.build([WITH_DFGET])[WITH_DFGET]
    except (BinaryUnavailable, PackagesMissing) as error:
        if unattended:
            raise
        pytest.skip(f"SKIPPED: {error}")


@pytest.fixture(scope="module")
def dragonfly(cluster: Cluster, api: Api, loader: Path, release: Release) -> Iterator[ClusterDragonfly]:
    """With a dfdaemon on every node, and the release connected to it as docs/how-to/dragonfly.md says."""
    push(loader, cluster.registry, LOADER, TAG)
    with ClusterDragonfly(cluster) as running:
        stack = running.stack
        metadata = {"name": SECRET, "namespace": NAMESPACE}
        token = {"token": stack.token}
        api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": token})
        try:
            release.put(
                dragonfly__managerUrl=stack.manager_url,
                loader__repository=LOADER,
                **{
                    f"dragonfly__schedulers__{CLUSTER}": stack.scheduler_address,
                    "operator__settings__dragonfly-image-ids": "url",
                },
            )
            release.wait()
            stack.wait_preheatable()
            yield running
            # What is still there when Dragonfly is turned off takes another engine.
            eventually(lambda: not engines(api) & {"Dragonfly"}, COLLECTED)
        finally:
            release.put()
            release.wait()
            api.delete("Secret", SECRET, NAMESPACE)


def test_a_model_is_served_on_every_node_through_its_daemon(dragonfly: ClusterDragonfly, place: Place) -> None:
    """The main job: one replica, then three, then six, each with a loader that asks its node's socket."""
    before = traffic(dragonfly)
    repository = place.repository(shards=SHARDS, shard_bytes=SHARD_BYTES)
    name = place.serve("through-daemons", repository, place.runtime(cpu="800m"), replicas=1)
    deployment = eventually(lambda: place.scene.find("Deployment", name), 60)
    tasks = place.scene.tasks(model=place.scene.name("through-daemons"))
    assert len(tasks) == 3, "the model, the engine's image and the loader's"
    for task in tasks:
        assert task["status"]["engine"] == "Dragonfly"
        [ready] = [each for each in task["status"]["conditions"] if each["type"] == "Ready"]
        assert (ready["status"], ready["reason"]) == ("True", "Distributed")
        assert ready["lastTransitionTime"] <= deployment["metadata"]["creationTimestamp"]
    for count in (1, 3, 6):
        place.scale(name, count)
        replicas, seconds = place.timed_replicas(name, count)
        print(f"{count} replicas after {seconds:.1f} s, on {sorted(replica.node for replica in replicas)}")
        place.check_files(replicas, repository)
    assert {replica.node for replica in replicas} == set(place.cluster.nodes)
    for node, summary in summaries(place, name):
        assert summary["bytesBySource"]["dfdaemon"] >= SHARDS * SHARD_BYTES, (node, summary)
        assert "skipped" not in summary, (node, summary)
    # The preheat, and what the loaders read at the origin because asking for it takes longer than reading it.
    assert left_once(place, repository, most=1.05)
    for node, grown in growth(dragonfly, before, at_least=SHARDS * SHARD_BYTES).items():
        print(f"{node}: {dict(grown)}")
        assert grown["BACK_TO_SOURCE"] <= 0.02 * size(repository), node
    place.remove(name)


def test_an_image_is_pulled_from_what_was_preheated(dragonfly: ClusterDragonfly, place: Place) -> None:
    """A task by hand, and then a pod on every node at once, whose containerd goes to the daemon's proxy."""
    registry, scene = place.cluster.registry, place.scene
    image = push_engine(registry, f"engines/{scene.suffix}")
    total = sum(len(layer.content) for layer in image.layers)
    scene.apply(p2p_task("engine", image=image.reference, engine="Dragonfly"))
    scene.has("P2PTask", "engine", "Ready", "True", "Distributed", seconds=60)
    # The daemon asks for one byte of a layer to learn its size.
    eventually(lambda: sent(registry, image) >= total)
    assert sent(registry, image) <= total + len(image.layers)

    before, fetched = traffic(dragonfly), sent(registry, image)
    with dragonfly.mirrored(registry):
        for node in place.cluster.nodes:
            scene.create(pod_on(node, image.reference))
        scene.kubectl("wait", "--for=condition=Ready", "--timeout=180s", "pods", "--all")
    pulled = growth(dragonfly, before, at_least=total)
    for node, grown in pulled.items():
        print(f"{node}: {dict(grown)}")
        # The image's configuration is small.
        assert grown["BACK_TO_SOURCE"] <= len(image.config.content), node
    assert sent(registry, image) - fetched <= len(pulled) * len(image.layers)
    examples = {each["name"]: each["id"] for each in scene.get("P2PTask", "engine")["status"]["dragonfly"]["examples"]}
    preheated = {examples[layer.digest] for layer in image.layers}
    for node, daemon in dragonfly.daemons.items():
        assert preheated <= daemon.tasks(), f"{node} asked for other tasks than those that were preheated"


def test_a_node_whose_daemon_is_dead_reads_the_origin(dragonfly: ClusterDragonfly, place: Place) -> None:
    """Its socket is still there, as after a crash. The other nodes are served as before."""
    dead = min(dragonfly.daemons)
    dragonfly.daemons[dead].stop()
    try:
        repository = place.repository(shards=SHARDS, shard_bytes=SHARD_BYTES)
        # Room for one on a node.
        name = place.serve("without-daemon", repository, place.runtime(cpu="1100m"), replicas=len(dragonfly.daemons))
        place.check_files(place.wait_replicas(name, len(dragonfly.daemons)), repository)
        by_node = dict(summaries(place, name))
        assert by_node.keys() == dragonfly.daemons.keys()
        for node, summary in by_node.items():
            print(f"{node}: {summary['bytesBySource']}, {summary.get('skipped')}")
            large = summary["bytesBySource"].get("origin" if node == dead else "dfdaemon", 0)
            assert large >= SHARDS * SHARD_BYTES, (node, summary)
        assert "DfgetFailed" in by_node[dead]["skipped"]["dfdaemon"]
        assert 1.99 <= place.sent(repository) / size(repository) <= 2.05
        place.remove(name)
    finally:
        dragonfly.daemons[dead].start()


# What tasks, daemons and loaders say


def engines(api: Api) -> set[str]:
    return {task.get("status", {}).get("engine", "") for task in api.all("P2PTask")}


def traffic(dragonfly: ClusterDragonfly) -> dict[str, Counter[str]]:
    """By node."""
    return {node: daemon.traffic() for node, daemon in dragonfly.daemons.items()}


def growth(
    dragonfly: ClusterDragonfly, before: Mapping[str, Counter[str]], *, at_least: int
) -> dict[str, Counter[str]]:
    """What each node's daemon has got since, once all of them count ``at_least`` so many bytes from their peers."""

    def look() -> dict[str, Counter[str]]:
        found = traffic(dragonfly)
        for node, counted in found.items():
            counted.subtract(before[node])
            assert counted["REMOTE_PEER"] >= at_least, (node, counted)
        return found

    return eventually(look, 10)


def summaries(place: Place, name: str) -> list[tuple[str, Manifest]]:
    """What the loader of each pod had to tell in the end, with the pod's node."""
    found: list[tuple[str, Manifest]] = []
    for pod in place.pods(name):
        [loader] = pod["status"]["initContainerStatuses"]
        found.append((pod["spec"]["nodeName"], json.loads(loader["state"]["terminated"]["message"])))
    return found


# Images


def push_engine(registry: Registry, repository: str) -> Image:
    """The stand-in engine with layers that no node has."""
    name, tag = STANDIN
    extra = build_image(["linux/amd64"], LAYERS, repository).platforms[0].layers
    with registry.client() as client:
        parent = client.get(f"/v2/{name}/manifests/{tag}", headers={"Accept": MANIFEST}).raise_for_status().json()
        described = client.get(f"/v2/{name}/blobs/{parent['config']['digest']}").raise_for_status().json()
        described["rootfs"]["diff_ids"] += [layer.digest for layer in extra]
        config = Blob.of_json(CONFIG, described)
        base = [
            Blob.of(each["mediaType"], client.get(f"/v2/{name}/blobs/{each['digest']}").raise_for_status().content)
            for each in parent["layers"]
        ]
        for blob in (config, *base, *extra):
            push_blob(client, repository, blob)
        layers = [layer.descriptor() for layer in (*base, *extra)]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": layers}
        push_manifest(client, repository, tag, Blob.of_json(MANIFEST, manifest))
    return Image(f"{registry.host}/{repository}:{tag}", repository, extra, config)


def sent(registry: Registry, image: Image) -> int:
    """Bytes of the image's own layers that the registry has sent."""
    paths = {f"/v2/{image.repository}/blobs/{layer.digest}" for layer in image.layers}
    asked = [entry for entry in registry.access_log() if entry.method == "GET"]
    return sum(entry.size for entry in asked if entry.uri.partition("?")[0] in paths)


def pod_on(node: str, image: str) -> Manifest:
    container = {"name": "engine", "image": image, "command": ["/standin", "pause"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"on-{node}"},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1},
    }
