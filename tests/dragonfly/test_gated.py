"""A gated model on the real Dragonfly: preheated with a token, and handed to loaders that have one, by gRPC.

Also what that means: whoever knows the URL gets it from then on.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dev.dragonfly.manager import covered_urls, failures
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub, HubThread, Repository, make_model
from dev.installation import ROOT
from tests.dragonfly.support import preheat

MODEL = "org/gated"
TOKEN = "hf_PlantedTokenThatNobodyMayPrint"
SHARD_BYTES = 9 << 20
MANY = 40
LOAD_SECONDS = 120.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A gated model with large files, and more small ones than can be called negligible."""
    folder = make_model(tmp_path_factory.mktemp("gated"), shards=3, shard_bytes=SHARD_BYTES)
    for number in range(MANY):
        content = hashlib.shake_256(f"{number}".encode()).digest(40_000 + 7_000 * number)
        (folder / f"part-{number:02}.bin").write_bytes(content)
    with HubThread(Hub(Repository.from_folder(folder, id=MODEL, gated="manual"))) as running:
        running.hub.allow(TOKEN, MODEL)
        yield running.hub


@pytest.fixture(scope="module")
def preheated(dragonfly: DragonflyStack, hub: Hub) -> int:
    """The model is on the seed; returns how many bytes of it the origin has sent for that."""
    hub.counters.reset()
    job = preheat(dragonfly, urls(hub), headers={"Authorization": f"Bearer {TOKEN}"})
    assert (job["state"], failures(job)) == ("SUCCESS", [])
    assert covered_urls(job) == set(urls(hub))
    return hub.counters.total().content


def urls(hub: Hub) -> list[str]:
    head = hub.repositories[MODEL].head
    return [f"{hub.url}/{MODEL}/resolve/{head}/{path}" for path in files(hub)]


def files(hub: Hub) -> dict[str, str]:
    """Digest by path."""
    return {path: blob.sha256 for path, blob in hub.repositories[MODEL].get("main").files.items()}


class Load:
    """``modelswarm load`` as the pod on a daemon's node would run it, watched while it runs."""

    def __init__(self, dragonfly: DragonflyStack, daemon: int, hub: Hub, folder: Path, **environ: str) -> None:
        folder.mkdir()
        self.folder = folder
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "operator"),
            "NO_PROXY": "127.0.0.1",
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "MODEL_SOURCE_TYPE": "modelhub",
            "MODEL_ID": MODEL,
            "MODELSWARM_DFDAEMON_SOCKET": str(dragonfly.daemons[daemon].socket),
            "MODELSWARM_DFGET": dragonfly.daemons[daemon].command("unused", folder / "unused")[0],
            "MODELSWARM_TERMINATION_LOG": str(folder / "message"),
            **environ,
        }
        self.commands: set[str] = set()
        """Command lines of everything that ran on the machine meanwhile."""
        self.output = folder / "output"
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "modelswarm", "load", "--root", str(folder / "models")],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            deadline = time.monotonic() + LOAD_SECONDS
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    self.commands |= commands()
                    time.sleep(0.005)
            finally:
                process.kill()
                process.wait()
        assert process.returncode == 0, self.output.read_text()

    @property
    def summary(self) -> Mapping[str, object]:
        document = json.loads((self.folder / "message").read_text())
        assert isinstance(document, dict)
        return document

    @property
    def sources(self) -> Mapping[str, int]:
        found = self.summary["bytesBySource"]
        assert isinstance(found, dict)
        return found

    def digests(self) -> dict[str, str]:
        root = next((self.folder / "models").glob("models--*"))
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in root.rglob("*")
            if path.is_file()
        }


def commands() -> set[str]:
    """What ``ps`` would show."""
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_two_loaders_get_a_gated_model_that_left_the_origin_once(
    dragonfly: DragonflyStack, hub: Hub, preheated: int, tmp_path: Path
) -> None:
    size = sum(blob.size for blob in hub.repositories[MODEL].get("main").files.values())
    assert size <= preheated <= 1.02 * size
    hub.counters.reset()
    for node in (0, 1):
        known = dragonfly.daemons[node].tasks()
        load = Load(dragonfly, node, hub, tmp_path / f"node-{node}", MODELSWARM_DRAGONFLY_ALLOW_GATED="true")
        assert load.digests() == files(hub)
        assert load.sources["dfdaemon"] >= 0.999 * size, load.summary
        assert "skipped" not in load.summary
        # The ids are those of the preheat, although the headers are not part of the question.
        assert dragonfly.daemons[node].tasks() - known <= dragonfly.seeds[0].tasks()
        assert any("modelswarm" in command for command in load.commands)
        assert not any(TOKEN in command for command in load.commands)
        assert TOKEN not in load.output.read_text() + (load.folder / "message").read_text()
    # Small files are among them: without its scheduler every daemon would have read those from the origin.
    assert hub.counters.total().content <= 0.001 * size
    assert hub.leaked_tokens == [], "the token went to the hub only, not where it redirects to"


def test_not_allowed_a_loader_with_a_token_reads_the_origin(
    dragonfly: DragonflyStack, hub: Hub, preheated: int, tmp_path: Path
) -> None:
    load = Load(dragonfly, 0, hub, tmp_path / "node")
    assert load.digests() == files(hub)
    assert "dfdaemon" not in load.sources
    assert "there is a token" in str(load.summary["skipped"])


def test_a_daemon_that_hangs_is_left_for_the_origin(
    dragonfly: DragonflyStack, hub: Hub, preheated: int, tmp_path: Path
) -> None:
    daemon = dragonfly.daemons[1].child
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGSTOP)  # its socket still takes connections, and nobody answers
    try:
        environ = {"MODELSWARM_DRAGONFLY_ALLOW_GATED": "true", "MODELSWARM_DFDAEMON_STALL_SECONDS": "2"}
        load = Load(dragonfly, 1, hub, tmp_path / "node", **environ)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert load.digests() == files(hub)
    assert "Stalled" in str(load.summary["skipped"])
    assert "dfdaemon" not in load.sources


def test_whoever_knows_the_url_gets_it_from_then_on(
    dragonfly: DragonflyStack, hub: Hub, preheated: int, tmp_path: Path
) -> None:
    """Why it has to be allowed: a daemon that has the file asks for no token."""
    path, digest = next(
        (path, digest) for path, digest in files(hub).items() if path.endswith("1-of-00003.safetensors")
    )
    url = f"{hub.url}/{MODEL}/resolve/{hub.repositories[MODEL].head}/{path}"
    Load(dragonfly, 0, hub, tmp_path / "node", MODELSWARM_DRAGONFLY_ALLOW_GATED="true")
    assert dragonfly.dfget(0, url, tmp_path / "out").succeeded
    assert hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest() == digest
