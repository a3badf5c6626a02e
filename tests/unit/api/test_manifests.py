"""What we ship as YAML, read by the models: nothing is lost, and the runtimes are llmaz's."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.meta import Resource
from modelswarm.api.schema import KINDS

ROOT = Path(__file__).parents[3]
RUNTIMES = sorted(ROOT.glob("charts/modelswarm/backendruntimes/*.yaml"))
FILES = [*RUNTIMES, *sorted(ROOT.glob("examples/**/*.yaml"))]
MODELS: dict[str, type[Resource]] = {kind.KIND: kind for kind in KINDS}

every_file = pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in FILES])


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from leaves(child, f"{path}[{index}]")
    else:
        yield path, value


@every_file
def test_the_models_keep_every_field(path: Path) -> None:
    for document in documents(path):
        read = MODELS[document["kind"]].model_validate(document).to_json()
        assert dict(leaves(document["spec"])).items() <= dict(leaves(read["spec"])).items()


@every_file
def test_a_file_starts_with_a_sentence_that_says_what_it_shows(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


@every_file
def test_a_file_has_no_namespace_and_no_name_twice(path: Path) -> None:
    keys = [(document["kind"], document["metadata"]["name"]) for document in documents(path)]
    assert len(keys) == len(set(keys))
    assert not any("namespace" in document["metadata"] for document in documents(path))


def test_a_playground_of_an_example_finds_its_models_and_runtime_among_what_is_shipped() -> None:
    runtimes = {path.stem for path in RUNTIMES}
    for path in FILES:
        models = {document["metadata"]["name"] for document in documents(path) if document["kind"] == "OpenModel"}
        for document in documents(path):
            if document["kind"] == "Playground":
                playground = MODELS["Playground"].model_validate(document)
                assert {ref.name for ref in playground.model_refs} <= models  # type: ignore[attr-defined]
                assert playground.backend_name in runtimes  # type: ignore[attr-defined]


def runtime(name: str) -> BackendRuntime:
    (document,) = documents(ROOT / f"charts/modelswarm/backendruntimes/{name}.yaml")
    return BackendRuntime.model_validate(document)


IMAGES = [
    ("vllm", "vllm/vllm-openai:v0.7.3", ["default", "speculative-decoding"]),
    ("sglang", "lmsysorg/sglang:v0.4.5-cu121", ["default"]),
    ("llamacpp", "ghcr.io/ggerganov/llama.cpp:server", ["default", "speculative-decoding"]),
    ("tgi", "ghcr.io/huggingface/text-generation-inference:2.3.1", ["default"]),
    ("tensorrt-llm", "nvcr.io/nvidia/tritonserver:25.03-trtllm-python-py3", ["default"]),
    ("ollama", "ollama/ollama:latest", ["default"]),
]


@pytest.mark.parametrize(("name", "image", "configs"), IMAGES, ids=[name for name, *_ in IMAGES])
def test_images_and_configurations(name: str, image: str, configs: list[str]) -> None:
    spec = runtime(name).spec
    assert runtime(name).metadata.name == name
    assert f"{spec.image}:{spec.version}" == image
    assert [config.name for config in spec.recommended_configs] == configs


ARGUMENTS = [
    ("vllm", 0, "--model {{ .ModelPath }} --served-model-name {{ .ModelName }} --host 0.0.0.0 --port 8080"),
    (
        "vllm",
        1,
        "--model {{ .ModelPath }} --served-model-name {{ .ModelName }} --speculative_model {{ .DraftModelPath }}"
        " --host 0.0.0.0 --port 8080 --num_speculative_tokens 5 -tp 1",
    ),
    ("sglang", 0, "--model-path {{ .ModelPath }} --served-model-name {{ .ModelName }} --host 0.0.0.0 --port 8080"),
    ("llamacpp", 0, "-m {{ .ModelPath }} --host 0.0.0.0 --port 8080 --metrics"),
    (
        "llamacpp",
        1,
        "-m {{ .ModelPath }} -md {{ .DraftModelPath }} --host 0.0.0.0 --port 8080"
        " --draft-max 16 --draft-min 5 --metrics",
    ),
    ("tgi", 0, "--model-id {{ .ModelPath }} --port 8080"),
    ("tensorrt-llm", 0, "{{ .ModelPath }} --host 0.0.0.0 --port 8080"),
]


@pytest.mark.parametrize(("name", "index", "arguments"), ARGUMENTS)
def test_arguments(name: str, index: int, arguments: str) -> None:
    assert " ".join(runtime(name).spec.recommended_configs[index].args) == arguments


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in RUNTIMES])
def test_probes_and_hooks_use_the_port_that_the_engine_listens_on(path: Path) -> None:
    """llmaz's hook for vLLM asks port 8000, so that every pod needs all of its grace period to end."""
    spec = runtime(path.stem).spec
    for probe in (spec.startup_probe, spec.liveness_probe, spec.readiness_probe):
        if probe is not None:
            assert probe["httpGet"]["port"] == 8080  # type: ignore[index,call-overload]
    if spec.lifecycle is not None:
        assert "http://localhost:8080/metrics" in before_stop(path.stem)


def before_stop(name: str) -> str:
    """The shell program that a runtime's container runs before it is stopped."""
    lifecycle: Any = runtime(name).spec.lifecycle
    program: str = lifecycle["preStop"]["exec"]["command"][2]
    return program


BUSY = [
    pytest.param(
        "vllm",
        ["# HELP vllm:num_requests_running 7", 'vllm:num_requests_running{model_name="a b"} 1.0'],
        id="vllm with a running request",
    ),
    pytest.param(
        "vllm", ["vllm:num_requests_running 0.0", "vllm:num_requests_waiting 2.0"], id="vllm with a waiting one"
    ),
    pytest.param("llamacpp", ["llamacpp:requests_processing 1"], id="llama.cpp with a running request"),
    pytest.param("llamacpp", ["llamacpp:requests_deferred 1"], id="llama.cpp with a waiting one"),
    pytest.param("tgi", ["tgi_batch_current_size 3"], id="TGI with a batch"),
    pytest.param("tgi", ["tgi_queue_size 3"], id="TGI with a queue"),
]


@pytest.mark.parametrize(("name", "metrics"), BUSY)
def test_a_pod_waits_for_its_requests_before_it_stops(tmp_path: Path, name: str, metrics: list[str]) -> None:
    idle = [re.sub(r" [\d.]+$", " 0.0", line) if line[0] != "#" else line for line in metrics]
    assert waits(tmp_path, before_stop(name), [metrics, metrics, idle]) == 2


@pytest.mark.parametrize("name", ["vllm", "llamacpp", "tgi"])
def test_a_pod_whose_server_is_gone_stops_at_once(tmp_path: Path, name: str) -> None:
    assert waits(tmp_path, before_stop(name), []) == 0


def waits(directory: Path, program: str, answers: list[list[str]]) -> int:
    """How often the program sleeps, if curl gives these answers in turn and then fails."""
    for index, lines in enumerate(answers):
        (directory / f"answer-{index}").write_text("\n".join(lines) + "\n")
    shell = """
        curl() { [ -f answer-$(wc -l < slept) ] && cat answer-$(wc -l < slept); }
        sleep() { echo >> slept; }
    """
    (directory / "slept").touch()
    subprocess.run(["/bin/sh", "-c", shell + program], cwd=directory, check=True, timeout=10)
    return len((directory / "slept").read_text())
