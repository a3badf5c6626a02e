"""The generated CRDs: structural, complete, small, always the same bytes, and current in the repository."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelswarm.api import schema
from modelswarm.api.meta import Resource
from modelswarm.api.schema import KINDS, crd_text, definition, embedded, generated, main

ROOT = Path(__file__).parents[3]
CLIENT_SIDE_APPLY_LIMIT = 256 * 1024
"""Bytes that fit into the annotations of an object."""

Schema = dict[str, Any]

every_kind = pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.KIND) for kind in KINDS])


def root(kind: type[Resource]) -> Schema:
    result: Schema = version(kind)["schema"]["openAPIV3Schema"]
    return result


def version(kind: type[Resource]) -> Schema:
    spec: Any = definition(kind)["spec"]
    result: Schema = spec["versions"][0]
    return result


def nodes(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


def at(kind: type[Resource], path: str) -> Schema:
    return dict(nodes(root(kind)))[path]


@every_kind
def test_schemas_are_structural(kind: type[Resource]) -> None:
    for path, node in nodes(root(kind)):
        assert not {"$ref", "anyOf", "oneOf", "allOf", "not", "nullable", "title", "$defs"} & set(node), path
        assert ("type" in node) != (node.get("x-kubernetes-int-or-string") is True), path
        assert (node.get("type") == "array") == ("items" in node), path
        assert set(node.get("required", ())) <= set(node.get("properties", ())), path


@every_kind
def test_keys_of_list_maps_are_required_or_have_a_default(kind: type[Resource]) -> None:
    for path, node in nodes(root(kind)):
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"] or "default" in node["items"]["properties"][key], path


@every_kind
def test_only_the_spec_has_defaults(kind: type[Resource]) -> None:
    """A default in a status would be stored without its controller having said so."""
    assert [path for path, node in nodes(root(kind)) if "default" in node and not path.startswith(".spec.")] == []


@every_kind
def test_every_field_of_ours_is_described(kind: type[Resource]) -> None:
    parts = root(kind)["properties"]
    spec = parts.get("spec") or parts["status"]
    assert [path for path, node in nodes(spec) if not path.endswith("]") and not node.get("description")] == []


@every_kind
def test_rules_have_a_message_and_point_to_a_field_that_exists(kind: type[Resource]) -> None:
    found = dict(nodes(root(kind)))
    for path, node in found.items():
        for rule in node.get("x-kubernetes-validations", ()):
            assert rule["message"], path
            assert path + rule.get("fieldPath", "") in found


@every_kind
def test_a_crd_is_small_enough_for_client_side_apply(kind: type[Resource]) -> None:
    assert len(crd_text(kind)) < CLIENT_SIDE_APPLY_LIMIT / 2


@every_kind
def test_the_text_is_the_definition(kind: type[Resource]) -> None:
    assert yaml.safe_load(crd_text(kind)) == definition(kind)


REQUIRED = [
    pytest.param("OpenModel", ".spec", ["familyName", "source"], id="OpenModel: familyName and source"),
    pytest.param("Playground", ".spec.elasticConfig", ["maxReplicas"], id="Playground: maxReplicas"),
    pytest.param("Playground", ".spec.modelClaims.models[]", ["name"], id="Playground: name of a model"),
    pytest.param("Playground", ".status", ["replicas"], id="Playground: replicas in a status"),
    pytest.param("BackendRuntime", ".spec", ["image", "version"], id="BackendRuntime: image and version"),
    pytest.param("BackendRuntime", ".spec.envs[]", ["name"], id="BackendRuntime: name of a variable"),
    pytest.param("BackendRuntime", ".spec.recommendedConfigs[]", ["name"], id="BackendRuntime: name of a config"),
    pytest.param("P2PTask", ".spec", [], id="P2PTask: nothing by itself"),
    pytest.param("P2PTask", ".status", [], id="P2PTask: nothing in a status"),
    pytest.param("NodeCache", "", [], id="NodeCache: no spec"),
    pytest.param("NodeCache", ".status.models[]", ["content", "name", "state"], id="NodeCache: what a model is"),
]


@pytest.mark.parametrize(("kind", "path", "fields"), REQUIRED)
def test_required_fields(kind: str, path: str, fields: list[str]) -> None:
    assert at({each.KIND: each for each in KINDS}[kind], path).get("required", []) == fields


GOLDEN_COLUMNS = {
    "OpenModel": [
        ("OwnedBy", ".spec.ownedBy", 0),
        ("Age", ".metadata.creationTimestamp", 0),
        ("ModelHub", ".spec.source.modelHub.name", 0),
        ("ModelID", ".spec.source.modelHub.modelID", 0),
        ("URI", ".spec.source.uri", 0),
        ("Ready", ".status.conditions[?(@.type=='Ready')].status", 1),
        ("Message", ".status.conditions[?(@.type=='Ready')].message", 1),
    ],
    "Playground": [
        ("Model", ".spec.modelClaim.modelName", 0),
        ("Replicas", ".status.replicas", 0),
        ("Status", ".status.conditions[?(@.type=='Available')].reason", 0),
        ("Age", ".metadata.creationTimestamp", 0),
        ("Message", ".status.conditions[?(@.type=='Available')].message", 1),
    ],
    "BackendRuntime": [
        ("Image", ".spec.image", 1),
        ("Version", ".spec.version", 1),
        ("Age", ".metadata.creationTimestamp", 0),
    ],
    "P2PTask": [
        ("Engine", ".status.engine", 0),
        ("Ready", ".status.display.ready", 0),
        ("Progress", ".status.display.progress", 0),
        ("ETA", ".status.display.eta", 0),
        ("Phase", ".status.phase", 0),
        ("Age", ".metadata.creationTimestamp", 0),
        ("Origin", ".status.display.origin", 1),
        ("Peer", ".status.display.peer", 1),
        ("Revision", ".status.resolved.revision", 1),
        ("Message", ".status.display.message", 1),
    ],
    "NodeCache": [
        ("Models", ".status.display.models", 0),
        ("Size", ".status.display.size", 0),
        ("Free", ".status.display.free", 0),
        ("Age", ".metadata.creationTimestamp", 0),
        ("Metainfo", ".status.agent.metainfoURL", 1),
        ("Version", ".status.agent.version", 1),
        ("Closed By", ".status.closedBy", 1),
    ],
}


@every_kind
def test_columns(kind: type[Resource]) -> None:
    columns = version(kind)["additionalPrinterColumns"]
    found = [(column["name"], column["jsonPath"], column.get("priority", 0)) for column in columns]
    assert found == GOLDEN_COLUMNS[kind.KIND]


@every_kind
def test_columns_read_fields_that_exist(kind: type[Resource]) -> None:
    known = dict(nodes(root(kind)))
    for column in version(kind)["additionalPrinterColumns"]:
        path = column["jsonPath"].partition("[?")[0]
        assert path in known or path.startswith(".metadata")


NAMES = [
    ("openmodels.llmaz.io", "om", "Cluster", False),
    ("playgrounds.inference.llmaz.io", "pl", "Namespaced", True),
    ("backendruntimes.inference.llmaz.io", "br", "Cluster", False),
    ("p2ptasks.llmaz.io", "p2pt", "Namespaced", False),
    ("nodecaches.llmaz.io", "nc", "Cluster", False),
]


@pytest.mark.parametrize(("kind", "names"), list(zip(KINDS, NAMES, strict=True)))
def test_names_scope_and_subresources(kind: type[Resource], names: tuple[str, str, str, bool]) -> None:
    crd: Any = definition(kind)
    subresources = version(kind)["subresources"]
    found = (
        crd["metadata"]["name"],
        *crd["spec"]["names"]["shortNames"],
        crd["spec"]["scope"],
        "scale" in subresources,
    )
    assert found == names
    assert subresources["status"] == {}


def test_embedded_types_carry_the_core_schema() -> None:
    probe = schema.core_schema("io.k8s.api.core.v1.Probe")
    assert probe["properties"]["periodSeconds"]["type"] == "integer"  # type: ignore[index,call-overload]
    port = probe["properties"]["httpGet"]["properties"]["port"]  # type: ignore[index,call-overload]
    assert port["x-kubernetes-int-or-string"] is True  # type: ignore[index,call-overload]


# The program


def test_the_files_in_the_repository_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(ROOT / "crds"), "--docs", str(ROOT / "docs/reference/crds.md")]
    arguments += ["--embed", str(ROOT / "config/p2p/model-agent-daemonset.yaml"), "--check"]
    assert main(arguments) == 0, capsys.readouterr().err


def test_only_our_crds_in_a_file_are_renewed() -> None:
    crd = crd_text(KINDS[-1])
    before = ["a: 1", crd.replace("shortNames", "longNames").rstrip("\n"), "# Generated by somebody else\nb: 2\n"]
    after = ["a: 1", crd.rstrip("\n"), "# Generated by somebody else\nb: 2\n"]
    assert embedded("\n---\n".join(before)) == "\n---\n".join(after)


def test_no_other_files_lie_beside_the_generated_crds() -> None:
    assert {path.name for path in (ROOT / "crds").iterdir()} == {path.name for path in generated(Path("x"), None)}


def test_check_tells_what_is_stale_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(tmp_path), "--docs", str(tmp_path / "docs" / "crds.md")]
    assert main([*arguments, "--check"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    path = tmp_path / "llmaz.io_p2ptasks.yaml"
    path.write_text(path.read_text().replace("- p2pt", "- task"))
    capsys.readouterr()
    assert main([*arguments, "--check"]) == 1
    error = capsys.readouterr().err
    assert "llmaz.io_p2ptasks.yaml is not current" in error
    assert "-    - task" in error
    assert "+    - p2pt" in error
    assert "openmodels" not in error


def test_every_run_writes_the_same_bytes(tmp_path: Path) -> None:
    texts = []
    for seed in ("0", "1"):
        output = tmp_path / seed
        command = [
            sys.executable,
            "-m",
            "modelswarm.api.schema",
            "--output",
            str(output),
            "--docs",
            str(output / "d.md"),
        ]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "operator")}
        subprocess.run(command, check=True, env=environment, cwd=tmp_path)
        texts.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert texts[0] == texts[1]
    assert len(texts[0]) == len(KINDS) + 1
