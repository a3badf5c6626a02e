"""Image tasks: pinned to a digest, private registries, tags that move."""

import pytest

from dev.registry import Registry
from tests.integration.support import Scene, eventually, p2p_task


def test_an_image_task_is_pinned_to_the_digest_of_its_tag(scene: Scene, registry: Registry) -> None:
    pushed = registry.push_image("team/app", scene.suffix, layer_bytes=(3000, 5000))
    scene.apply(p2p_task("warm", image=f"docker.io/team/app:{scene.suffix}"))
    scene.has("P2PTask", "warm", "Ready", "True", "NothingToDistribute")
    resolved = scene.get("P2PTask", "warm")["status"]["resolved"]
    assert (resolved["digest"], resolved["digestSource"]) == (pushed["digest"], "Registry")
    # One platform: its manifest, its config and two layers.
    assert resolved["files"] == 4
    assert resolved["bytes"] > 8000


def test_platforms_choose_what_is_counted_of_a_multi_platform_image(scene: Scene, registry: Registry) -> None:
    platforms = ("linux/amd64", "linux/arm64")
    pushed = registry.push_image("team/multi", scene.suffix, platforms=platforms, layer_bytes=9000, seed=scene.suffix)
    for name, wanted in (("one", ["linux/arm64"]), ("both", list(platforms))):
        task = p2p_task(name, image=f"team/multi:{scene.suffix}")
        task["spec"]["image"]["platforms"] = wanted
        scene.apply(task)
        scene.has("P2PTask", name, "Ready", "True", "NothingToDistribute")
    one, both = (scene.get("P2PTask", name)["status"]["resolved"] for name in ("one", "both"))
    assert one["digest"] == both["digest"] == pushed["digest"]
    assert 9000 < one["bytes"] < both["bytes"]


@pytest.mark.parametrize(
    ("reference", "platforms", "reason"),
    [
        pytest.param("team/none:v1", [], "RevisionNotFound", id="no such repository"),
        pytest.param("library/busybox:v99", [], "RevisionNotFound", id="no such tag"),
        pytest.param("busybox:v1", ["linux/s390x"], "PlatformNotFound", id="not for this platform"),
    ],
)
def test_an_image_that_is_not_there_keeps_the_task_failed_with_the_reason(
    scene: Scene, reference: str, platforms: list[str], reason: str
) -> None:
    task = p2p_task("wrong", image=reference)
    if platforms:
        task["spec"]["image"]["platforms"] = platforms
    scene.apply(task)
    scene.has("P2PTask", "wrong", "Ready", "False", reason)
    assert scene.get("P2PTask", "wrong")["status"]["phase"] == "Failed"


def test_a_registry_that_only_the_nodes_can_reach_keeps_nobody_waiting(scene: Scene) -> None:
    """Nobody listens on port 1 of this machine."""
    scene.apply(p2p_task("away", image="127.0.0.1:1/team/app:v1"))
    scene.has("P2PTask", "away", "Ready", "True", "NothingToDistribute", saying="cannot be reached")
    scene.has("P2PTask", "away", "Degraded", "True", "SourceUnavailable")
    scene.has("P2PTask", "away", "Resolved", "False", "SourceUnavailable")


def test_a_missing_image_keeps_the_gate_closed_and_names_it(scene: Scene) -> None:
    model = scene.model()
    scene.playground("pg", model, version="v99")
    scene.has("Playground", "pg", "Available", "False", "PreheatingImage", saying="vllm/vllm-openai:v99: ")
    assert scene.find("Deployment", "pg") is None
    scene.playground("pg", model)
    scene.deployment("pg")
    # The task of the version that nobody wants any more is gone.
    eventually(lambda: not [t for t in scene.tasks("image") if t["spec"]["image"]["reference"].endswith(":v99")])


def test_a_tag_that_moved_is_said_on_task_and_playground_and_changes_nothing_else(
    scene: Scene, registry: Registry, engine_version: str
) -> None:
    image = f"vllm/vllm-openai:{engine_version}"
    model = scene.model()
    scene.playground("pg", model, version=engine_version)
    template = scene.pod_template("pg")
    before = scene.image_task(image)["status"]["resolved"]
    moved = registry.push_image("vllm/vllm-openai", engine_version, seed="something else")
    scene.has("Playground", "pg", "Degraded", "True", "ImageMoved", saying=moved["digest"], seconds=20)
    task = scene.image_task(image)
    scene.has("P2PTask", task["metadata"]["name"], "Degraded", "True", "ImageMoved")
    scene.has("P2PTask", task["metadata"]["name"], "Ready", "True", "NothingToDistribute")
    assert task["status"]["resolved"] == before
    assert scene.pod_template("pg") == template
    assert before["digest"] in task["status"]["conditions"][-1]["message"]
    # As its message advises: deleted, it is made anew and pinned to what the tag is now (once the answer of a few
    # seconds ago is forgotten).

    def pinned_anew() -> bool:
        digest = scene.image_task(image).get("status", {}).get("resolved", {}).get("digest")
        if digest == before["digest"]:
            scene.delete("P2PTask", task["metadata"]["name"])
        return bool(digest == moved["digest"])

    eventually(pinned_anew, 15, every=1.0)
    scene.has("Playground", "pg", "Degraded", "False", "Healthy")
    assert scene.pod_template("pg") == template
