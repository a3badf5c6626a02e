"""A model that the node's agent keeps: linked, not copied; waited for while it is on its way; never relied upon."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from dev.hub import Hub, Repository
from modelswarm.content.manifest import Manifest
from modelswarm.loader.node import NodeModel, Patience, Sighting
from tests.unit.loader.conftest import Loader, manifest_of, mount, tree

QUICK = Patience(first_sign=0.6, fresh=1.0, tell=0.1)


@pytest.fixture
def manifest(loader: Loader, repository: Repository, tmp_path: Path) -> Manifest:
    manifest = manifest_of(repository)
    loader.environ["MODELSWARM_MANIFEST_DIR"] = mount(manifest, tmp_path / "manifest")
    return manifest


@pytest.fixture
def kept(loader: Loader, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model's directory on the node, still empty."""
    directory = tmp_path / "node" / manifest.digest.removeprefix("sha256:")
    directory.mkdir(parents=True)
    loader.environ["MODELSWARM_NODE_MODEL"] = str(directory)
    monkeypatch.setattr("modelswarm.loader.session.NodeModel", lambda path: NodeModel(path, QUICK))
    return directory


def fill(directory: Path, folder: Path, *paths: str) -> None:
    for path in paths or [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]:
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, target.with_name("beside"))
        target.with_name("beside").rename(target)


def sign(directory: Path, state: str = "Fetching", *, age: float = 0.0, message: str = "") -> None:
    path = directory / ".progress.json"
    path.write_text(json.dumps({"state": state, "doneBytes": 1, "bytes": 2, "message": message}))
    os.utime(path, (time.time() - age,) * 2)


def test_a_model_that_is_on_the_node_is_linked_and_the_hub_is_not_asked(
    loader: Loader, manifest: Manifest, kept: Path, model_folder: Path, hub: Hub
) -> None:
    fill(kept, model_folder)
    (kept / ".complete").touch()
    assert loader.run() == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)
    assert all(path.is_symlink() for path in loader.directory.rglob("*") if path.is_file())
    assert loader.sources() == {"node": manifest.bytes}
    assert hub.counters.total().requests == 0


def test_a_second_start_links_again_without_reading_a_byte(
    loader: Loader, manifest: Manifest, kept: Path, model_folder: Path
) -> None:
    fill(kept, model_folder)
    (kept / ".complete").touch()
    assert (loader.run(), loader.run()) == (0, 0), loader.output
    assert loader.sources() == {"node": manifest.bytes}


def test_a_model_on_its_way_is_waited_for_with_progress(
    loader: Loader, manifest: Manifest, kept: Path, model_folder: Path, hub: Hub
) -> None:
    shard = "model-00001-of-00002.safetensors"
    rest = [path.name for path in model_folder.iterdir() if path.is_file() and path.name != shard]
    fill(kept, model_folder, *rest)
    sign(kept, message="from peers")
    with loader.start() as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "the node's agent is fetching it: 50%" in line:
                assert "from peers" in line
                fill(kept, model_folder, shard)
                (kept / ".complete").touch()
        assert process.wait() == 0
    assert tree(loader.directory) == tree(model_folder)
    assert loader.sources() == {"node": manifest.bytes}
    assert hub.counters.total().requests == 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(None, "the node has no agent that fetches this model", id="no agent"),
        pytest.param(("Fetching", 60.0, ""), "the node's agent has given no sign for 1m0", id="a dead agent"),
        pytest.param(("Failed", -10.0, "need 2 GiB, free 1 GiB"), "need 2 GiB, free 1 GiB", id="an agent that cannot"),
    ],
)
def test_what_the_agent_does_not_bring_comes_from_the_origin(
    loader: Loader,
    manifest: Manifest,
    kept: Path,
    model_folder: Path,
    said: tuple[str, float, str] | None,
    why: str,
) -> None:
    shard = "model-00001-of-00002.safetensors"
    fill(kept, model_folder, shard)
    if said is not None:
        sign(kept, said[0], age=said[1], message=said[2])
    assert loader.run() == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)
    size = (model_folder / shard).stat().st_size
    assert loader.sources() == {"node": size, "origin": manifest.bytes - size}
    skipped = loader.summary["skipped"]
    assert isinstance(skipped, dict)
    assert skipped["node"].startswith("NodeUnavailable")
    assert why in skipped["node"]
    assert why in loader.output


@pytest.mark.parametrize("state", ["Fetching", "Failed"])
def test_a_sign_that_an_earlier_attempt_left_behind_is_no_reason_to_read_the_origin(
    loader: Loader,
    manifest: Manifest,
    kept: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    patient = Patience(first_sign=30.0, fresh=1.0, tell=0.1)
    monkeypatch.setattr("modelswarm.loader.session.NodeModel", lambda path: NodeModel(path, patient))
    sign(kept, state, age=3 * 3600.0, message="of another day")

    def bring() -> None:
        fill(kept, model_folder)
        (kept / ".complete").touch()

    agent = threading.Timer(1.0, bring)
    agent.start()
    assert loader.run() == 0, loader.output
    agent.join()
    assert loader.sources() == {"node": manifest.bytes}
    assert "waiting for the node's agent" in loader.output
    assert "another day" not in loader.output


def test_a_file_of_the_wrong_size_on_the_node_is_fetched_and_the_link_to_it_is_replaced(
    loader: Loader, manifest: Manifest, kept: Path, model_folder: Path
) -> None:
    fill(kept, model_folder)
    (kept / ".complete").touch()
    assert loader.run() == 0
    with (kept / "config.json").open("ab") as file:
        file.write(b"x")
    assert loader.run() == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)
    assert not (loader.directory / "config.json").is_symlink()
    assert "1 of" in loader.output


def test_a_link_out_of_the_nodes_directory_is_not_followed(
    loader: Loader, manifest: Manifest, kept: Path, model_folder: Path, tmp_path: Path
) -> None:
    fill(kept, model_folder)
    secret = tmp_path / "secret"
    secret.write_bytes((model_folder / "config.json").read_bytes())
    (kept / "config.json").unlink()
    (kept / "config.json").symlink_to(secret)
    (kept / ".complete").touch()
    assert loader.run() == 0, loader.output
    assert (loader.directory / "config.json").resolve() != secret
    assert loader.sources()["origin"] == secret.stat().st_size


def test_another_version_on_the_node_is_left_alone(
    loader: Loader, manifest: Manifest, kept: Path, model_folder: Path, tmp_path: Path
) -> None:
    other = kept.with_name("ab" * 32)
    other.mkdir()
    fill(other, model_folder)
    (other / ".complete").touch()
    assert loader.run(MODELSWARM_NODE_MODEL=str(other)) == 0, loader.output
    assert loader.sources() == {"origin": manifest.bytes}
    assert "the node keeps another version" in loader.output


@pytest.mark.parametrize(
    ("sighting", "waited", "gone"),
    [
        pytest.param(Sighting(complete=True), 99.0, False, id="complete"),
        pytest.param(Sighting(), 0.1, False, id="no sign yet"),
        pytest.param(Sighting(), 0.7, True, id="no sign for too long"),
        pytest.param(Sighting(state="Fetching", age=0.5), 99.0, False, id="a fresh sign, however long it takes"),
        pytest.param(Sighting(state="Fetching", age=1.5), 0.1, False, id="a stale sign, maybe of an earlier attempt"),
        pytest.param(Sighting(state="Fetching", age=1.5), 0.7, True, id="a stale sign, and no other since"),
        pytest.param(Sighting(state="Failed", age=0.1), 0.1, True, id="failed"),
        pytest.param(Sighting(state="Failed", age=9e3), 0.1, False, id="failed, hours ago"),
        pytest.param(Sighting(state="Failed", age=9e3), 0.7, True, id="failed, hours ago, and no other sign since"),
    ],
)
def test_waiting_ends_with_the_signs_of_life(sighting: Sighting, waited: float, gone: bool) -> None:
    assert bool(sighting.gone(waited, QUICK)) is gone
