"""A node's daemon that does not do what it should: the loader reads the origin, and says what came from where and why.

``tests/unit/loader/test_dfdaemon.py`` goes through what dfget can do; here it is the real one, and the real daemon.
"""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.dragonfly.daemon import Daemon
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Kind, Slow, WrongBytes
from dev.hub.repository import Blob
from tests.dragonfly.support import Bench, Load, load
from tests.dragonfly.support.loaders import loader_command, loader_environment
from tests.integration.support.waiting import eventually

SHARDS = 3
SHARD_BYTES = 5 << 20
"""More than what dfdaemon, and so the loader, calls small."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model, and what is needed to load it at a node."""

    bench: Bench
    id: str

    @property
    def files(self) -> dict[str, Blob]:
        repository = self.bench.hub.repositories[self.id]
        return dict(repository.get(repository.head).files)

    @property
    def size(self) -> int:
        return sum(blob.size for blob in self.files.values())

    def url(self, path: str) -> str:
        return f"{self.bench.hub.url}/{self.id}/resolve/{self.bench.hub.repositories[self.id].head}/{path}"

    def load(self, daemon: Daemon, folder: Path, **environment: str) -> Load:
        """Every file is right in any case."""
        head = self.bench.hub.repositories[self.id].head
        loaded = load(daemon, self.bench.hub, self.id, head, folder, environment=environment)
        assert loaded.digests() == {path: blob.sha256 for path, blob in self.files.items()}
        return loaded


@pytest.fixture
def model(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Model]:
    name = f"loader-{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"
    yield Model(bench, bench.model(name, files=SHARDS, size=SHARD_BYTES))
    bench.hub.reset()


@contextmanager
def socket_gone(daemon: Daemon) -> Iterator[None]:
    away = daemon.socket.with_suffix(".away")
    daemon.socket.rename(away)
    yield
    away.rename(daemon.socket)


@contextmanager
def dead(daemon: Daemon) -> Iterator[None]:
    """Killed: its socket is still there, and nobody listens."""
    daemon.stop()
    assert daemon.socket.exists()
    yield
    daemon.start()


@contextmanager
def hung(daemon: Daemon) -> Iterator[None]:
    """Its socket takes connections, and nobody answers."""
    assert daemon.child.pid is not None
    os.kill(daemon.child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.child.pid, signal.SIGCONT)


@contextmanager
def without_dfget(daemon: Daemon) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("trouble", "environment", "reasons"),
    [
        pytest.param(socket_gone, {}, ("SocketMissing",), id="socket gone"),
        pytest.param(dead, {}, ("DfgetFailed",), id="daemon dead"),
        pytest.param(hung, {"MODELSWARM_DFDAEMON_STALL_SECONDS": "2"}, ("Stalled", "DfgetFailed"), id="daemon hangs"),
        pytest.param(
            without_dfget, {"MODELSWARM_DFGET": "/nonexistent/dfget"}, ("ProgramMissing",), id="no dfget in the image"
        ),
    ],
)
def test_without_a_working_daemon_the_origin_is_read(
    dragonfly: DragonflyStack,
    model: Model,
    tmp_path: Path,
    trouble: Callable[[Daemon], AbstractContextManager[None]],
    environment: dict[str, str],
    reasons: tuple[str, ...],
) -> None:
    daemon = dragonfly.daemons[0]
    with trouble(daemon):
        loaded = model.load(daemon, tmp_path / "node", **environment)
    assert loaded.sources == {"origin": model.size}, loaded.summary
    assert any(reason in loaded.why_not_dragonfly for reason in reasons), loaded.summary


def test_a_daemon_that_comes_back_is_used_again(dragonfly: DragonflyStack, model: Model, tmp_path: Path) -> None:
    daemon = dragonfly.daemons[0]
    with dead(daemon):
        model.load(daemon, tmp_path / "before")
    loaded = model.load(daemon, tmp_path / "after")
    assert loaded.sources.get("dfdaemon") == SHARDS * SHARD_BYTES, loaded.summary
    assert loaded.why_not_dragonfly == ""


def test_wrong_bytes_in_dragonfly_s_cache_never_count(dragonfly: DragonflyStack, model: Model, tmp_path: Path) -> None:
    """The seed and the nodes have a file with one wrong byte, as after an origin that was wrong for a moment."""
    spoiled = "model-01.safetensors"
    model.bench.hub.fail(f"{model.id}/{spoiled}", WrongBytes(offset=4 << 20), on=Kind.CDN)
    for node in (0, 1):
        poisoned = dragonfly.dfget(node, model.url(spoiled), tmp_path / f"poisoned-{node}")
        assert poisoned.succeeded, poisoned.output
        digest = hashlib.sha256((tmp_path / f"poisoned-{node}").read_bytes()).hexdigest()
        assert digest != model.files[spoiled].sha256
    model.bench.hub.faults.clear()

    for node in (0, 1):
        loaded = model.load(dragonfly.daemons[node], tmp_path / f"node-{node}")
        assert "DigestMismatch" in loaded.why_not_dragonfly
        assert spoiled in loaded.why_not_dragonfly
        # What was thrown away is counted where it came from.
        assert loaded.sources == {"dfdaemon": SHARDS * SHARD_BYTES, "origin": SHARD_BYTES}, loaded.summary
        assert f"{spoiled}: wrong bytes from dfdaemon" in loaded.output


def test_a_daemon_killed_in_the_middle_of_a_file_is_left_for_the_origin(
    dragonfly: DragonflyStack, model: Model, tmp_path: Path
) -> None:
    """The origin is slow until the daemon is dead, so that there is a middle."""
    daemon, hub = dragonfly.daemons[1], model.bench.hub
    hub.fail(f"{model.id}/*", Slow(bytes_per_second=1 << 20), on=Kind.CDN)
    folder = tmp_path / "node"
    folder.mkdir()
    environment = loader_environment(daemon, hub, model.id, hub.repositories[model.id].head, folder)
    process = subprocess.Popen(
        loader_command(folder), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        eventually(lambda: hub.counters.total(Kind.CDN, f"{model.id}/*").content >= 1 << 20, 60)
        daemon.stop()
        hub.faults.clear()
        output, _ = process.communicate(timeout=100)
    finally:
        process.kill()
        daemon.start()
    assert process.returncode == 0, output
    message = (folder / "message").read_text()
    loaded = Load(folder, output, json.loads(message))
    assert loaded.digests() == {path: blob.sha256 for path, blob in model.files.items()}
    assert "DfgetFailed" in loaded.why_not_dragonfly
    assert loaded.sources["origin"] > 0
