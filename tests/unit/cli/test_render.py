import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelswarm.cli import render

RUNTIMES = str(Path(__file__).parents[1] / "workload" / "fixtures" / "backendruntimes")

MODEL = """
apiVersion: llmaz.io/v1alpha1
kind: OpenModel
metadata: {name: opt}
spec: {familyName: opt, source: {modelHub: {modelID: facebook/opt-125m}}}
"""
PLAYGROUND = """
apiVersion: inference.llmaz.io/v1alpha1
kind: Playground
metadata: {name: opt}
spec: {modelClaim: {modelName: opt}}
"""
RUNTIME = """
apiVersion: inference.llmaz.io/v1alpha1
kind: BackendRuntime
metadata: {name: vllm}
spec: {image: mine, version: v1, recommendedConfigs: [{name: default}]}
"""
ALL = ["P2PTask", "P2PTask", "P2PTask", "Deployment", "Service"]


class Rendered:
    """Exit code, objects and lines of one call."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.lines = code, out, err.splitlines()
        self.objects: list[dict[str, Any]] = [each for each in yaml.safe_load_all(out) if each]
        self.kinds = [each["kind"] for each in self.objects]

    def first(self, kind: str) -> dict[str, Any]:
        return next(each for each in self.objects if each["kind"] == kind)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the texts as files and renders them; further options may be given."""

    def call(*texts: str, options: tuple[str, ...] = ("--runtimes", RUNTIMES), stdin: str = "") -> Rendered:
        files = []
        for index, text in enumerate(texts):
            (tmp_path / f"{index}.yaml").write_text(text)
            files += ["-f", str(tmp_path / f"{index}.yaml")]
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = render.main([*files, *options])
        printed = capsys.readouterr()
        return Rendered(code, printed.out, printed.err)

    return call


def test_several_files_are_one_input(run: Any) -> None:
    rendered = run(PLAYGROUND, MODEL)
    assert (rendered.code, rendered.lines, rendered.kinds) == (0, [], ALL)


def test_several_documents_in_one_file_and_empty_ones(run: Any) -> None:
    assert run("---\n---".join(["# nothing", MODEL, PLAYGROUND, ""])).kinds == ALL


def test_standard_input(run: Any) -> None:
    assert run(options=("-f", "-", "--runtimes", RUNTIMES), stdin=f"{MODEL}---{PLAYGROUND}").kinds == ALL


def test_a_directory_is_read_with_what_is_below_it(run: Any, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "model.yml").write_text(MODEL)
    (tmp_path / "in" / "deep" / "playground.json").write_text(json.dumps(yaml.safe_load(PLAYGROUND)))
    (tmp_path / "in" / "README.md").write_text("no YAML: {")
    assert run(options=("-f", str(tmp_path / "in"), "--runtimes", RUNTIMES)).kinds == ALL


def test_several_files_after_one_option(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(MODEL)
    (tmp_path / "b").write_text(PLAYGROUND)
    options = ("-f", str(tmp_path / "a"), str(tmp_path / "b"), "--runtimes", RUNTIMES)
    assert run(options=options).kinds == ALL


def test_the_items_of_a_list_are_read(run: Any) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(MODEL), yaml.safe_load(PLAYGROUND)]}
    assert run(yaml.safe_dump(items)).kinds == ALL


def test_what_only_a_cluster_or_a_hub_knows_has_a_placeholder(run: Any) -> None:
    rendered = run(MODEL, PLAYGROUND)
    deployment = rendered.first("Deployment")
    [loader] = deployment["spec"]["template"]["spec"]["initContainers"]
    assert {"name": "REVISION", "value": "<pinned>"} in loader["env"]
    assert {each["metadata"]["ownerReferences"][0]["uid"] for each in rendered.objects} == {"<uid>"}


def test_tasks_and_workload_are_where_the_operator_puts_them(run: Any) -> None:
    rendered = run(MODEL, PLAYGROUND, options=("--runtimes", RUNTIMES, "--namespace", "ours", "--loader-image", "me:1"))
    assert [each["metadata"]["namespace"] for each in rendered.objects] == ["ours", *["default"] * 4]
    references = [each["spec"]["image"]["reference"] for each in rendered.objects[1:3]]
    assert references == ["vllm/vllm-openai:v0.7.3", "me:1"]


def test_a_runtime_of_the_input_comes_before_a_shipped_one(run: Any) -> None:
    rendered = run(MODEL, PLAYGROUND, RUNTIME)
    [engine] = rendered.first("Deployment")["spec"]["template"]["spec"]["containers"]
    assert engine["image"] == "mine:v1"


def test_a_model_alone_gives_its_task(run: Any) -> None:
    assert run(MODEL, options=()).kinds == ["P2PTask"]


def test_other_kinds_are_passed_by_with_a_note(run: Any) -> None:
    rendered = run("{apiVersion: v1, kind: Service, metadata: {name: x}}\n---" + MODEL, PLAYGROUND)
    assert (rendered.code, rendered.kinds) == (0, ALL)
    [note] = rendered.lines
    assert "Service x" in note
    assert "passed by" in note


def test_the_last_of_two_objects_with_one_name_counts(run: Any) -> None:
    rendered = run(MODEL, MODEL.replace("facebook/opt-125m", "a/other"))
    assert rendered.objects[0]["spec"]["model"]["source"]["modelHub"]["modelID"] == "a/other"
    assert len(rendered.lines) == 1


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        pytest.param(PLAYGROUND.replace("modelName: opt", "modelName: gone"), ["OpenModel gone"], id="missing model"),
        pytest.param(
            PLAYGROUND.replace("}}", "}, backendRuntimeConfig: {backendName: gone}}"),
            ["BackendRuntime gone", "--runtimes"],
            id="missing runtime",
        ),
        pytest.param(
            PLAYGROUND.replace("}}", "}, backendRuntimeConfig: {configName: gone}}"), ["'gone'"], id="unknown config"
        ),
        pytest.param(
            PLAYGROUND.replace("{modelClaim: {modelName: opt}}", "{replicas: many}"), ["replicas"], id="a schema"
        ),
        pytest.param("kind: [", ["not YAML"], id="broken YAML"),
        pytest.param("just text", ["not a Kubernetes object"], id="no object"),
        pytest.param("{apiVersion: llmaz.io/v1alpha1, kind: OpenModel}", ["metadata.name"], id="no name"),
        pytest.param(
            MODEL.replace("opt}", "bad}").replace("{modelHub: {modelID: facebook/opt-125m}}", "{uri: 'ftp://x'}"),
            ["OpenModel bad", "ftp"],
            id="an unreadable source",
        ),
    ],
)
def test_an_error_is_one_line_and_everything_else_is_printed(run: Any, broken: str, words: list[str]) -> None:
    good = PLAYGROUND.replace("metadata: {name: opt}", "metadata: {name: good}")
    rendered = run(MODEL, good, broken)
    assert rendered.code == 1
    assert rendered.kinds == ALL
    assert rendered.first("Deployment")["metadata"]["name"] == "good"
    [line] = rendered.lines
    assert line.startswith("modelswarm render: ")
    assert all(word in line for word in words)


def test_a_file_that_does_not_exist_is_an_error(run: Any) -> None:
    rendered = run(MODEL, options=("-f", "gone.yaml"))
    assert (rendered.code, rendered.kinds) == (1, ["P2PTask"])
    assert rendered.lines == ["modelswarm render: cannot read gone.yaml: No such file or directory"]


def test_without_a_directory_of_runtimes_the_error_names_the_option(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "_SHIPPED", Path("gone"))
    rendered = run(MODEL, PLAYGROUND, options=())
    assert rendered.code == 1
    assert "BackendRuntime vllm" in rendered.lines[0]
    assert "--runtimes DIR" in rendered.lines[0]


def test_yaml_begins_with_what_it_is_and_has_no_anchors(run: Any) -> None:
    rendered = run(MODEL, PLAYGROUND)
    documents = rendered.out.split("---\n")
    assert len(documents) == len(ALL)
    for document in documents:
        keys = [line.partition(":")[0] for line in document.splitlines() if line[:1].isalpha()]
        assert keys == ["apiVersion", "kind", "metadata", "spec"]
    assert "&id" not in rendered.out


def test_json_is_one_list(run: Any) -> None:
    rendered = run(MODEL, PLAYGROUND, options=("--runtimes", RUNTIMES, "-o", "json"))
    assert [each["kind"] for each in json.loads(rendered.out)["items"]] == ALL


def test_nothing_in_nothing_out(run: Any) -> None:
    rendered = run("")
    assert (rendered.code, rendered.out, rendered.lines) == (0, "", [])
