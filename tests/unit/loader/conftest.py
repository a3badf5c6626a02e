"""A hub with one model, and a loader to run against it in this process or in one of its own."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dev.hub import Hub, HubThread, Repository, make_model
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind, encode
from modelswarm.loader import main

MODEL = "org/model"
SHARD_BYTES = 3 << 20
"""Over the span size of the tests, so that every shard is fetched in ranges."""

PATIENT = "command._GRACE_SECONDS = 50"
"""For ``Loader.start``: a busy machine does not cut an orderly end short."""


@dataclass
class Loader:
    """Runs ``modelswarm load`` with a hub, into a directory of its own."""

    hub: Hub
    root: Path
    environ: dict[str, str]
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    options: list[str] = field(default_factory=list)
    output: str = ""

    @property
    def directory(self) -> Path:
        return self.root / "models--org--model"

    def run(self, *options: str, **environ: str) -> int:
        """Load in this process; returns the exit code."""
        with self.monkeypatch.context() as patch:
            for name, value in (self.environ | environ).items():
                patch.setenv(name, value)
            code = main([*self.argv, *options])
        self.output = self.capsys.readouterr().out
        return code

    def start(self, *options: str, prepare: str = "", **environ: str) -> "subprocess.Popen[str]":
        """Load in a process of its own, to be signalled; its output is a pipe.

        ``prepare``: lines of Python that it runs first; ``command`` is the loader's module of that name.
        """
        lines = ["import sys", "from modelswarm.loader import command", prepare, "sys.exit(command.run(sys.argv[1:]))"]
        program = ["-c", "\n".join(lines)] if prepare else ["-m", "modelswarm.loader"]
        return subprocess.Popen(
            [sys.executable, *program, *self.argv, *options],
            env={**os.environ, **self.environ, **environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def argv(self) -> list[str]:
        fast = ["--span-mib", "1", "--attempts", "4", "--retry-seconds", "0.02"]
        return ["--root", str(self.root), *fast, *self.options]

    @property
    def summary(self) -> Mapping[str, object]:
        document = json.loads(self.termination_log.read_text())
        assert isinstance(document, dict)
        return document

    @property
    def termination_log(self) -> Path:
        return Path(self.environ["MODELSWARM_TERMINATION_LOG"])

    def sources(self) -> Mapping[str, int]:
        found = self.summary["bytesBySource"]
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), shards=2, shard_bytes=SHARD_BYTES)


@pytest.fixture
def repository(model_folder: Path) -> Repository:
    return Repository.from_folder(model_folder, id=MODEL, lfs_threshold=1 << 20)


@pytest.fixture
def hub(repository: Repository) -> Iterator[Hub]:
    with HubThread(Hub(repository)) as running:
        yield running.hub


@pytest.fixture
def loader(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Loader:
    environ = {
        "MODEL_SOURCE_TYPE": "modelhub",
        "MODEL_ID": MODEL,
        "HF_ENDPOINT": hub.url,
        "MODELSWARM_TERMINATION_LOG": str(tmp_path / "termination-log"),
    }
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return Loader(hub, tmp_path / "models", environ, capsys, monkeypatch)


def manifest_of(repository: Repository, kind: OriginKind = OriginKind.HUGGINGFACE) -> Manifest:
    """What the operator would write for the repository's head."""
    commit = repository.get(repository.head)
    files = tuple(
        ManifestFile(path, blob.size, f"sha256:{blob.sha256}" if blob.is_lfs else f"git-sha1:{blob.oid}")
        for path, blob in commit.files.items()
    )
    return Manifest(Origin(kind, repository.id), commit.id, files)


def mount(manifest: Manifest, folder: Path) -> str:
    """The shards as a pod's volume shows them."""
    folder.mkdir(exist_ok=True)
    for index, shard in enumerate(encode(manifest, shard_bytes=400)):
        (folder / f"manifest-{index}.json.gz").write_bytes(shard)
    return str(folder)


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, with its digest."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
