"""What ``modelswarm render`` prints, file by file; ``--update-golden`` rewrites it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelswarm.cli.render import main
from tests.unit.workload.objects import FIXTURES, assert_acceptable

EXAMPLES = sorted((FIXTURES / "examples").glob("*.yaml"))
LOADER = ["--loader-image", "inftyai/model-loader:v0.0.10"]
SHIPPED = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_renders_as_before(
    file: Path, golden: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["-f", str(file), "--runtimes", str(FIXTURES / "backendruntimes"), *LOADER])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    golden(file.name, printed.out)


def test_the_hugging_face_example_is_llmazs_pod(capsys: pytest.CaptureFixture[str]) -> None:
    """llmaz's pod for its quick start, as its controllers write it, but for the pin and what comes with it."""
    file = str(FIXTURES / "examples" / "huggingface.yaml")
    options = ["--runtimes", str(FIXTURES / "backendruntimes"), "--scheduler-name", "default-scheduler", *LOADER]
    assert main(["-f", file, *options]) == 0
    objects = list(yaml.safe_load_all(capsys.readouterr().out))
    template = next(each for each in objects if each["kind"] == "Deployment")["spec"]["template"]
    assert template["metadata"]["labels"].pop("llmaz.io/playground") == "opt-125m"
    [loader], [engine] = template["spec"]["initContainers"], template["spec"]["containers"]
    assert loader["env"].pop() == {"name": "MODELSWARM_MANIFEST_DIR", "value": "/etc/modelswarm/manifest"}
    assert loader["volumeMounts"].pop()["name"] == template["spec"]["volumes"].pop()["name"] == "model-manifest"
    revision = next(each for each in loader["env"] if each["name"] == "REVISION")
    assert revision["value"] == "<pinned>"
    revision["value"] = "main"
    for name in ("lifecycle", "startupProbe", "livenessProbe", "readinessProbe"):
        assert engine.pop(name)
    token = {"secretKeyRef": {"name": "modelhub-secret", "key": "HF_TOKEN", "optional": True}}
    path = "/workspace/models/models--facebook--opt-125m"
    resources = {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"}
    assert template == {
        "metadata": {"labels": {"llmaz.io/model-name": "opt-125m", "llmaz.io/model-family-name": "opt"}},
        "spec": {
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 130,
            "initContainers": [
                {
                    "name": "model-loader",
                    "image": "inftyai/model-loader:v0.0.10",
                    "env": [
                        {"name": "MODEL_SOURCE_TYPE", "value": "modelhub"},
                        {"name": "MODEL_ID", "value": "facebook/opt-125m"},
                        {"name": "MODEL_HUB_NAME", "value": "Huggingface"},
                        {"name": "REVISION", "value": "main"},
                        {"name": "HUGGING_FACE_HUB_TOKEN", "valueFrom": token},
                        {"name": "HF_TOKEN", "valueFrom": token},
                    ],
                    "volumeMounts": [{"name": "model-volume", "mountPath": "/workspace/models/"}],
                }
            ],
            "containers": [
                {
                    "name": "model-runner",
                    "image": "vllm/vllm-openai:v0.7.3",
                    "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
                    "args": f"--model {path} --served-model-name opt-125m --host 0.0.0.0 --port 8080".split(),
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "resources": {"requests": resources, "limits": resources},
                    "volumeMounts": [
                        {"name": "dshm", "mountPath": "/dev/shm"},
                        {"name": "model-volume", "mountPath": "/workspace/models/", "readOnly": True},
                    ],
                }
            ],
            "volumes": [
                {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
                {"name": "model-volume", "emptyDir": {}},
            ],
        },
    }


@pytest.mark.parametrize(
    "file", sorted(SHIPPED.rglob("*.yaml")), ids=lambda file: str(file.relative_to(SHIPPED).with_suffix(""))
)
def test_every_shipped_example_gives_a_workload(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [each for each in yaml.safe_load_all(file.read_text()) if each]
    wanted = [each["metadata"]["name"] for each in given if each["kind"] == "Playground"]
    code = main(["-f", str(file)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    objects: list[Any] = list(yaml.safe_load_all(printed.out))
    deployments = [each for each in objects if each["kind"] == "Deployment"]
    assert [each["metadata"]["name"] for each in deployments] == wanted
    for deployment in deployments:
        assert_acceptable(deployment["spec"]["template"]["spec"])
