"""Every file in examples/, applied for real: each Playground gets its workload and serves."""

from pathlib import Path

import pytest
import yaml

from dev.installation import ROOT
from tests.integration.support import Manifest, Scene

EXAMPLES = ROOT / "examples"
FILES = sorted(path for path in EXAMPLES.glob("**/*.yaml"))
OURS = ("llmaz.io/", "inference.llmaz.io/")


def documents(path: Path) -> list[Manifest]:
    """The file's objects of our kinds. The Gateway API's, which one example has too, need CRDs of their own."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document["apiVersion"].startswith(OURS)]


def test_every_example_of_llmaz_is_here() -> None:
    """All 16 that have a Playground (facts: two files serve two engines each)."""
    with_playground = [path for path in FILES if any(document["kind"] == "Playground" for document in documents(path))]
    assert len(with_playground) >= 16


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(EXAMPLES))) for path in FILES])
def test_example_gets_its_workload(scene: Scene, path: Path) -> None:
    found = documents(path)
    assert found
    # As written: these names are not this test's own, so nothing of an earlier example may be left.
    for document in found:
        scene.apply(document)
    for document in found:
        name = document["metadata"]["name"]
        match document["kind"]:
            case "Playground":
                deployment = scene.make_ready(name)
                scene.has("Playground", name, "Available", "True", "PlaygroundReady")
                assert scene.get("Service", f"{name}-lb")["spec"]["ports"][0]["port"] == 8080
                runner = deployment["spec"]["template"]["spec"]["containers"][0]
                assert not [argument for argument in runner.get("args", []) if "{{ ." in argument]
                if "elasticConfig" in document["spec"]:
                    hpa = scene.get("HorizontalPodAutoscaler", name)
                    assert hpa["spec"]["scaleTargetRef"]["kind"] == "Playground"
            case "OpenModel":
                scene.has("OpenModel", name, "Ready", "True", "Ready")
            case "P2PTask":
                scene.has("P2PTask", name, "Ready", "True", "NothingToDistribute")
            case other:
                pytest.fail(f"nothing is known of {other}")


def test_hostpath_runs_where_llmaz_gives_it_two_volumes_of_one_name(scene: Scene) -> None:
    for document in documents(EXAMPLES / "hostpath" / "playground.yaml"):
        scene.apply(document)
        name = document["metadata"]["name"]
    pod = scene.pod_template(name)["spec"]
    path = "/workspace/Qwen2-0.5B-Instruct"
    assert [v for v in pod["volumes"] if v["name"] == "model-volume"] == [
        {"name": "model-volume", "hostPath": {"path": path, "type": ""}}
    ]
    mounts = [m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "model-volume"]
    assert mounts == [{"name": "model-volume", "mountPath": path, "readOnly": True}]
    assert "initContainers" not in pod
