"""What a hub can do wrong, and what the loader makes of it."""

import hashlib
from pathlib import Path

import pytest

from dev.hub import (
    Fault,
    Hang,
    Hub,
    IgnoreRange,
    Kind,
    RangeAsOk,
    RateLimit,
    Refuse,
    Repository,
    ServerError,
    Truncate,
    WrongBytes,
)
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from tests.unit.loader.conftest import MODEL, Loader, manifest_of, mount, tree

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture(autouse=True)
def mounted(loader: Loader, repository: Repository, tmp_path: Path) -> Manifest:
    manifest = manifest_of(repository)
    loader.environ["MODELSWARM_MANIFEST_DIR"] = mount(manifest, tmp_path / "manifest")
    return manifest


@pytest.mark.parametrize(
    ("fault", "on", "times"),
    [
        pytest.param(Truncate(300_000), Kind.CDN, 8, id="answers that end early"),
        pytest.param(Truncate(10), Kind.RESOLVE, 3, id="small answers that end early"),
        pytest.param(ServerError(503), Kind.CDN, 3, id="503 from the CDN"),
        pytest.param(ServerError(500), Kind.RESOLVE, 3, id="500 from the hub"),
        pytest.param(ServerError(404), Kind.CDN, 1, id="404 from the CDN"),
        pytest.param(Refuse(), Kind.CDN, 3, id="connections reset"),
        pytest.param(Hang(), Kind.CDN, 1, id="no answer at all"),
        pytest.param(Hang(after=400_000), Kind.CDN, 1, id="an answer that stops coming"),
        pytest.param(IgnoreRange(), Kind.CDN, None, id="ranges ignored"),
        pytest.param(RangeAsOk(), Kind.CDN, None, id="ranges under status 200"),
        pytest.param(WrongBytes(2_000_000), Kind.CDN, 1, id="one wrong byte, once"),
        pytest.param(RateLimit(0), Kind.RESOLVE, 20, id="requests limited, often"),
    ],
)
def test_the_load_survives(
    loader: Loader, hub: Hub, model_folder: Path, fault: Fault, on: Kind, times: int | None
) -> None:
    rule = hub.fail("*", fault, on=on, times=times)
    assert loader.run("--stall-seconds", "0.3") == 0, loader.output
    assert rule.hits
    assert tree(loader.directory) == tree(model_folder)
    assert loader.summary["unverified"] == 0


def test_a_truncated_answer_is_continued_where_it_ended(loader: Loader, hub: Hub, mounted: Manifest) -> None:
    hub.fail("*.safetensors", Truncate(900_000), on=Kind.CDN, times=2)
    assert loader.run() == 0
    assert loader.sources() == {"origin": mounted.bytes}


def test_ranges_ignored_after_a_truncation_start_the_file_again(loader: Loader, hub: Hub, model_folder: Path) -> None:
    hub.fail(SHARD, Truncate(1_500_000), on=Kind.CDN, times=1)
    hub.fail(SHARD, IgnoreRange(), on=Kind.CDN)
    assert loader.run() == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)


@pytest.mark.parametrize("path", [SHARD, "config.json"])
def test_bytes_that_stay_wrong_never_become_a_file(loader: Loader, hub: Hub, path: str) -> None:
    hub.fail(path, WrongBytes(100))
    assert loader.run() == 1
    assert loader.summary["reason"] == "DigestMismatch"
    assert f"{path}: " in str(loader.summary["message"])
    assert not (loader.directory / path).exists()
    hub.reset()
    assert loader.run() == 0


def test_a_source_that_never_recovers_ends_the_load(loader: Loader, hub: Hub) -> None:
    rule = hub.fail(SHARD, ServerError(502), on=Kind.CDN)
    assert loader.run() == 1
    assert loader.summary["reason"] == "SourceUnavailable"
    assert "answers with status 502" in str(loader.summary["message"])
    assert rule.hits == 4


@pytest.mark.parametrize("header", ["retry-after", "ratelimit"])
def test_one_429_makes_every_file_wait(loader: Loader, hub: Hub, header: str) -> None:
    rule = hub.fail("*", RateLimit(1, header=header), on=Kind.RESOLVE, times=1)  # type: ignore[arg-type]
    assert loader.run(MODELSWARM_LOAD_PARALLEL="1") == 0
    assert rule.hits == 1
    assert "127.0.0.1 asks for patience; continuing in 1 s" in loader.output
    assert float(str(loader.summary["seconds"])) >= 1.0


class TestAccess:
    @pytest.mark.parametrize(
        ("token", "words"),
        [
            pytest.param(
                "", "wants a token (status 401); put one into the Secret modelhub-secret (key HF_TOKEN)", id="no"
            ),
            pytest.param(
                "hf_unknown", "refuses the token (status 401); check the Secret modelhub-secret", id="a wrong"
            ),
            pytest.param("hf_stranger", "is gated; ask 127.0.0.1 for access for the owner", id="a stranger's"),
        ],
    )
    @pytest.mark.parametrize("manifest", [True, False])
    def test_a_gated_model_with_token(
        self, loader: Loader, hub: Hub, repository: Repository, token: str, words: str, manifest: bool
    ) -> None:
        repository.gated = "auto"
        hub.allow("hf_stranger", "org/else")
        if not manifest:
            del loader.environ["MODELSWARM_MANIFEST_DIR"]
        assert loader.run(HF_TOKEN=token) == 2
        assert loader.summary["reason"] == "AccessDenied"
        if manifest:
            assert words in str(loader.summary["message"])
        assert "modelhub-secret" in str(loader.summary["message"])
        assert "hf_" not in loader.output.replace("models--", "")

    def test_the_token_goes_to_the_hub_and_nowhere_else(
        self, loader: Loader, hub: Hub, repository: Repository, model_folder: Path
    ) -> None:
        repository.gated = "auto"
        hub.allow("hf_secret", MODEL)
        hub.fail("*.safetensors", ServerError(503), on=Kind.CDN, times=2)
        hub.fail("*.safetensors", Truncate(200_000), on=Kind.CDN, times=2)
        assert loader.run(HUGGING_FACE_HUB_TOKEN="hf_secret") == 0, loader.output
        assert tree(loader.directory) == tree(model_folder)
        assert hub.leaked_tokens == []
        assert "hf_secret" not in loader.output
        assert "hf_secret" not in loader.termination_log.read_text()

    @pytest.mark.parametrize(
        ("environ", "reason"),
        [
            pytest.param({"MODEL_ID": "org/missing", "HF_TOKEN": "hf_known"}, "SourceNotFound", id="no such model"),
            pytest.param({"REVISION": "no-such-branch"}, "RevisionNotFound", id="no such branch"),
            pytest.param({"MODEL_ALLOW_PATTERNS": "*.onnx"}, "NothingMatches", id="no file that matches"),
        ],
    )
    def test_only_a_person_can_help(self, loader: Loader, hub: Hub, environ: dict[str, str], reason: str) -> None:
        hub.allow("hf_known")
        del loader.environ["MODELSWARM_MANIFEST_DIR"]
        assert loader.run(**environ) == 2, loader.output
        assert loader.summary["reason"] == reason

    def test_an_expired_link_is_asked_for_again(self, loader: Loader, hub: Hub, model_folder: Path) -> None:
        hub.fail("*.safetensors", ServerError(403), on=Kind.CDN, skip=2, times=1)
        assert loader.run() == 0, loader.output
        assert hub.counters.total(Kind.RESOLVE, "*.safetensors").requests == 3
        assert tree(loader.directory) == tree(model_folder)


class TestAFileThatIsNotTheOnePinned:
    def manifest(self, repository: Repository, **changed: object) -> Manifest:
        commit = repository.get(repository.head)
        blob = commit.files[SHARD]
        fields = {"path": SHARD, "size": blob.size, "digest": f"sha256:{blob.sha256}"} | changed
        return Manifest(Origin(OriginKind.HUGGINGFACE, MODEL), commit.id, (ManifestFile(**fields),))  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "changed",
        [
            pytest.param({"size": 1000}, id="is longer"),
            pytest.param({"size": 1 << 30}, id="is shorter"),
            pytest.param({"digest": f"sha256:{hashlib.sha256(b'').hexdigest()}"}, id="has another digest"),
        ],
    )
    def test_costs_no_byte_when_it(
        self, loader: Loader, hub: Hub, repository: Repository, tmp_path: Path, changed: dict[str, object]
    ) -> None:
        manifest_dir = mount(self.manifest(repository, **changed), tmp_path / "other")
        assert loader.run(MODELSWARM_MANIFEST_DIR=manifest_dir) == 1
        assert loader.summary["reason"] == "SourceChanged"
        assert hub.counters.total().content == 0

    def test_gone_files_are_named(self, loader: Loader, repository: Repository, tmp_path: Path) -> None:
        manifest_dir = mount(self.manifest(repository, path="gone.bin"), tmp_path / "other")
        assert loader.run(MODELSWARM_MANIFEST_DIR=manifest_dir) == 2
        assert loader.summary["message"] == "gone.bin: 127.0.0.1 does not have this file"
