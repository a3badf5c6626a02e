"""Loading from a hub, on real sockets: what ends up on the disk, and what it costs the hub."""

import json
import os
import socket
from datetime import datetime
from pathlib import Path

import pytest

from dev.hub import Hub, Kind, Repository, Slow, make_gguf
from modelswarm.content.manifest import Manifest, ManifestFile, OriginKind
from tests.unit.loader.conftest import MODEL, Loader, manifest_of, mount, tree

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def mounted(loader: Loader, repository: Repository, tmp_path: Path) -> Manifest:
    manifest = manifest_of(repository)
    loader.environ["MODELSWARM_MANIFEST_DIR"] = mount(manifest, tmp_path / "manifest")
    return manifest


def test_a_mounted_manifest_is_loaded_without_asking_the_hub_for_a_listing(
    loader: Loader, mounted: Manifest, model_folder: Path, hub: Hub
) -> None:
    assert loader.run() == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)
    assert hub.counters.total(Kind.API).requests == 0
    assert hub.counters.total().content == mounted.bytes
    assert loader.summary["result"] == "Loaded"
    assert loader.summary["files"] == len(mounted.files)
    assert loader.summary["revision"] == mounted.revision
    assert loader.sources() == {"origin": mounted.bytes}
    assert loader.summary["unverified"] == 0
    assert [path.name for path in loader.root.iterdir()] == ["models--org--model"]


@pytest.mark.parametrize("manifest_dir", ["absent", "empty", "none", "half", "damaged"])
def test_without_a_usable_manifest_the_loader_resolves_by_itself(
    loader: Loader, repository: Repository, model_folder: Path, tmp_path: Path, manifest_dir: str
) -> None:
    folder = tmp_path / "manifest"
    if manifest_dir in ("half", "damaged"):
        mount(manifest_of(repository), folder)
        shards = sorted(folder.iterdir())
        shards[0].unlink() if manifest_dir == "half" else shards[0].write_bytes(b"\x1f\x8b\x08")
    elif manifest_dir == "empty":
        folder.mkdir()
    if manifest_dir != "none":
        loader.environ["MODELSWARM_MANIFEST_DIR"] = str(folder)
    assert loader.run() == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)
    assert loader.summary["revision"] == repository.head
    assert ("asking the origin" in loader.output) == (manifest_dir in ("half", "damaged"))


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"MODEL_ID": "org/other"}, id="of another model"),
        pytest.param({"REVISION": "0" * 40}, id="of another commit"),
        pytest.param({"MODEL_HUB_NAME": "ModelScope"}, id="of another hub"),
        pytest.param({"MODEL_FILENAME": "model.gguf"}, id="of another file"),
        pytest.param({"MODEL_IGNORE_PATTERNS": "*.safetensors"}, id="with files that are not wanted"),
    ],
)
def test_a_manifest_is_refused_when_it_is(loader: Loader, mounted: Manifest, hub: Hub, environ: dict[str, str]) -> None:
    assert loader.run(**environ) == 2
    assert loader.summary["reason"] == "ManifestMismatch"
    assert not loader.root.exists()
    assert hub.counters.total().requests == 0


def test_lines_can_be_json(loader: Loader, mounted: Manifest) -> None:
    assert loader.run(MODELSWARM_LOG_FORMAT="json") == 0
    lines = [json.loads(line) for line in loader.output.splitlines()]
    assert {line["logger"] for line in lines} == {"modelswarm.loader"}
    assert lines[-1]["message"].endswith(f"verified {loader.directory}")
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)


def test_a_second_run_downloads_nothing(loader: Loader, mounted: Manifest, hub: Hub) -> None:
    assert loader.run() == 0
    hub.reset()
    assert loader.run() == 0
    assert hub.counters.total().requests == 0
    assert loader.sources() == {"present": mounted.bytes}


def test_a_file_that_was_altered_on_disk_is_found_and_replaced(
    loader: Loader, mounted: Manifest, model_folder: Path, hub: Hub
) -> None:
    assert loader.run() == 0
    target = loader.directory / SHARD
    status = target.stat()
    with target.open("r+b") as stream:
        stream.seek(12345)
        stream.write(b"\xa5")
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    hub.reset()
    assert loader.run("--check") == 1
    assert loader.summary["reason"] == "Incomplete"
    assert f"1 of {len(mounted.files)} files: {SHARD} is not what it should be" in str(loader.summary["message"])
    assert hub.counters.total().requests == 0
    assert loader.run() == 0
    assert tree(loader.directory) == tree(model_folder)
    assert hub.counters.total().content == status.st_size


def test_check_of_a_complete_model_succeeds_and_of_an_absent_one_fails(loader: Loader, mounted: Manifest) -> None:
    assert loader.run("--check") == 1
    assert "is missing; and" in str(loader.summary["message"])
    assert not loader.root.exists()
    assert loader.run() == 0
    assert loader.run("--check") == 0


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_connections_than_allowed(loader: Loader, mounted: Manifest, hub: Hub, parallel: int) -> None:
    hub.fail("*.safetensors", Slow(first_byte_delay=0.03), on=Kind.CDN)
    assert loader.run(MODELSWARM_LOAD_PARALLEL=str(parallel)) == 0
    assert hub.counters.peak == parallel


def test_a_large_file_is_fetched_in_ranges_over_one_redirect(loader: Loader, mounted: Manifest, hub: Hub) -> None:
    assert loader.run() == 0
    assert hub.counters.total(Kind.CDN, f"*{SHARD}").ranges > 1
    assert hub.counters.total(Kind.RESOLVE, f"*{SHARD}").requests == 1


def test_small_files_behind_the_hubs_own_redirect_carry_the_token_along(
    loader: Loader, mounted: Manifest, hub: Hub, repository: Repository, model_folder: Path
) -> None:
    hub._huggingface._resolve_cache = True
    repository.gated = "auto"
    hub.allow("hf_right", MODEL)
    assert loader.run(HF_TOKEN="hf_right") == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)


@pytest.mark.parametrize("patterns", ["allow", "ignore"])
def test_patterns_choose_the_files(loader: Loader, patterns: str) -> None:
    environ = {"MODEL_ALLOW_PATTERNS": "*.json,README.md"} if patterns == "allow" else {}
    if patterns == "ignore":
        environ = {"MODEL_IGNORE_PATTERNS": "*.safetensors,.gitattributes"}
    assert loader.run(**environ) == 0, loader.output
    assert sorted(tree(loader.directory)) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_filename_is_placed_where_llmaz_looks_for_it(loader: Loader, hub: Hub, tmp_path: Path) -> None:
    gguf = make_gguf(tmp_path / "gguf" / "q4" / "model-q4.gguf", tensor_bytes=3 << 20)
    hub.add(Repository.from_folder(tmp_path / "gguf", id="org/gguf"))
    assert loader.run(MODEL_ID="org/gguf", MODEL_FILENAME="q4/model-q4.gguf") == 0, loader.output
    assert (loader.root / "q4" / "model-q4.gguf").read_bytes() == gguf.read_bytes()
    assert [path.name for path in loader.root.iterdir()] == ["q4"]


def test_modelscope(loader: Loader, repository: Repository, model_folder: Path, tmp_path: Path) -> None:
    commit = repository.get(repository.head)
    files = tuple(ManifestFile(path, blob.size, f"sha256:{blob.sha256}") for path, blob in commit.files.items())
    manifest = Manifest(manifest_of(repository, OriginKind.MODELSCOPE).origin, commit.id, files)
    environ = {"MODEL_HUB_NAME": "ModelScope", "MODELSCOPE_ENDPOINT": loader.environ["HF_ENDPOINT"]}
    assert loader.run(**environ, MODELSWARM_MANIFEST_DIR=mount(manifest, tmp_path / "m")) == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)


def test_an_empty_file_is_a_file(loader: Loader, hub: Hub) -> None:
    hub.add(Repository("org/empty")).move(
        "main", hub.repositories["org/empty"].commit({"a/__init__.py": b"", "b": b"1"})
    )
    assert loader.run(MODEL_ID="org/empty") == 0, loader.output
    assert (loader.root / "models--org--empty" / "a" / "__init__.py").read_bytes() == b""


def test_progress_is_told_while_it_goes_on(loader: Loader, mounted: Manifest, hub: Hub) -> None:
    hub.fail("*.safetensors", Slow(bytes_per_second=8 << 20), on=Kind.CDN)
    assert loader.run("--progress-seconds", "0.05") == 0
    lines = [line for line in loader.output.splitlines() if " ETA " in line]
    assert lines
    assert all(line.startswith("model-loader: ") and f"/{len(mounted.files)} files" in line for line in lines)
    assert loader.output.splitlines()[-1].startswith(f"model-loader: {len(mounted.files)} files, 6.0 MiB in ")


class TestPlacesThatAreNotOurs:
    def test_a_symbolic_link_out_of_the_root_is_refused(
        self, loader: Loader, mounted: Manifest, tmp_path: Path, hub: Hub
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        loader.root.mkdir()
        loader.directory.symlink_to(outside)
        assert loader.run() == 2
        assert loader.summary["reason"] == "UnsafePath"
        assert list(outside.iterdir()) == []
        assert hub.counters.total().requests == 0

    def test_so_is_one_in_place_of_a_file(self, loader: Loader, mounted: Manifest, tmp_path: Path) -> None:
        loader.directory.mkdir(parents=True)
        (loader.directory / SHARD).symlink_to(tmp_path / "outside")
        assert loader.run() == 2
        assert f"{SHARD}: a symbolic link leads out" in str(loader.summary["message"])
        assert not (tmp_path / "outside").exists()

    def test_a_model_file_cannot_pass_for_a_part(self, loader: Loader, hub: Hub) -> None:
        hub.add(Repository("org/evil")).move("main", hub.repositories["org/evil"].commit({".modelswarm/a": b"x"}))
        assert loader.run(MODEL_ID="org/evil", MODEL_FILENAME=".modelswarm/a") == 2
        assert loader.summary["reason"] == "UnsafePath"

    def test_a_directory_in_place_of_a_file_is_an_error_of_the_volume(self, loader: Loader, mounted: Manifest) -> None:
        (loader.directory / SHARD).mkdir(parents=True)
        assert loader.run() == 3
        assert loader.summary["reason"] == "StorageError"


def test_the_disk_is_looked_at_before_the_first_byte(
    loader: Loader, mounted: Manifest, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelswarm.loader.session.free_space", lambda _: 1 << 20)
    assert loader.run() == 3
    assert loader.summary["reason"] == "InsufficientCapacity"
    assert f"needs 6.0 MiB more, 1.0 MiB are free ({mounted.bytes} and {1 << 20} bytes)" in str(
        loader.summary["message"]
    )
    assert hub.counters.total().requests == 0
    assert tree(loader.root) == {}


def test_what_is_there_needs_no_space(loader: Loader, mounted: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loader.run() == 0
    monkeypatch.setattr("modelswarm.loader.session.free_space", lambda _: 0)
    assert loader.run() == 0


def test_a_termination_log_that_cannot_be_written_fails_nothing(loader: Loader, mounted: Manifest) -> None:
    assert loader.run(MODELSWARM_TERMINATION_LOG="/proc/nowhere/log") == 0
    assert "no termination message: /proc/nowhere/log" in loader.output


def test_an_origin_that_is_not_there_is_worth_another_start(loader: Loader, mounted: Manifest) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert loader.run(HF_ENDPOINT=f"http://127.0.0.1:{port}") == 1
    assert loader.summary["reason"] == "SourceUnavailable"
    assert "cannot connect to 127.0.0.1" in str(loader.summary["message"])
