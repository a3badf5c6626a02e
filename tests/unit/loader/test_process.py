"""The loader as a process: killed, stopped, started again; what it costs to start and to run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.hub import Hang, Hub, Kind, Repository, make_model
from modelswarm.content.manifest import Manifest
from tests.unit.loader.conftest import PATIENT, Loader, manifest_of, mount, tree

SHARD = "model-00001-of-00002.safetensors"
STUCK = """
import asyncio, time
from modelswarm.loader.session import Session
async def run(self):
    print("at work", flush=True)
    try:
        await asyncio.sleep(100)
    finally:
        time.sleep(100)
Session.run = run
"""


@pytest.fixture(autouse=True)
def mounted(loader: Loader, repository: Repository, tmp_path: Path) -> Manifest:
    manifest = manifest_of(repository)
    loader.environ["MODELSWARM_MANIFEST_DIR"] = mount(manifest, tmp_path / "manifest")
    return manifest


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def stop_half_way(hub: Hub) -> None:
    """Two of the three spans of each shard arrive, so that none of them is complete."""
    for shard in ("*-00001-*.safetensors", "*-00002-*.safetensors"):
        hub.fail(shard, Hang(), on=Kind.CDN, skip=2)


def recorded(root: Path) -> int:
    """Bytes that the records beside the part files speak of."""
    texts = [path.read_text() for path in root.glob(".modelswarm/*/*.json")]
    return sum(done - start for text in texts for start, _, done in json.loads(text))


def test_killed_in_the_middle_it_continues_where_it_was(
    loader: Loader, hub: Hub, mounted: Manifest, model_folder: Path
) -> None:
    stop_half_way(hub)
    process = loader.start()
    try:
        wait_for(lambda: recorded(loader.root) >= 4 << 20, process)
    finally:
        process.kill()
        process.communicate()
    assert not list(loader.directory.glob("*.safetensors"))
    there = recorded(loader.root)
    hub.reset()
    assert loader.run() == 0, loader.output
    assert tree(loader.directory) == tree(model_folder)
    # Small files have no record; their parts count as well.
    assert loader.sources()["resumed"] >= there
    assert sum(loader.sources().values()) == mounted.bytes
    assert hub.counters.total(Kind.CDN).content <= mounted.bytes - there


def test_a_part_that_was_damaged_meanwhile_is_fetched_again(loader: Loader, hub: Hub, model_folder: Path) -> None:
    stop_half_way(hub)
    process = loader.start()
    try:
        wait_for(lambda: recorded(loader.root) >= 4 << 20, process)
    finally:
        process.kill()
        process.communicate()
    for part in loader.root.glob(".modelswarm/*/*.part"):
        with part.open("r+b") as stream:
            stream.write(b"damaged")
    hub.reset()
    assert loader.run() == 0, loader.output
    assert "wrong bytes from origin" in loader.output
    assert tree(loader.directory) == tree(model_folder)


def test_asked_to_stop_it_stops_at_once_and_keeps_what_it_has(
    loader: Loader, hub: Hub, mounted: Manifest, model_folder: Path
) -> None:
    hub.fail("*.safetensors", Hang(after=300_000), on=Kind.CDN)
    process = loader.start(prepare=PATIENT)
    wait_for(lambda: hub.counters.total(Kind.CDN).content >= 4 * 300_000, process)
    # What the hub has sent may still be on its way to the disk.
    wait_for(lambda: any(path.stat().st_blocks for path in loader.root.glob(".modelswarm/*/*.part")), process)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - asked < 35, "neither the hub, which hangs, nor the end of the grace is waited for"
    assert process.returncode == 143, output
    assert "Traceback" not in output
    assert loader.summary["result"] == "Failed"
    assert loader.summary["reason"] == "Interrupted"
    hub.reset()
    assert loader.run() == 0, loader.output
    assert loader.sources()["resumed"] > 0
    assert (
        loader.sources()["resumed"] + loader.sources()["origin"] + loader.sources().get("present", 0) == mounted.bytes
    )
    assert tree(loader.directory) == tree(model_folder)


def test_what_cannot_be_called_back_does_not_hold_up_its_end(loader: Loader) -> None:
    """A write to a disk that hangs, for instance."""
    process = loader.start(prepare=STUCK)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 143


def test_two_loaders_of_one_model_take_turns(loader: Loader, hub: Hub, mounted: Manifest) -> None:
    rule = hub.fail("*.safetensors", Hang(), on=Kind.CDN)
    first = loader.start()
    wait_for(lambda: rule.hits > 0, first)
    second = loader.start()
    try:
        assert second.stdout is not None
        line = ""
        while "waiting for it" not in line:
            line = second.stdout.readline()
            assert line, "the second ended"
        hub.reset()
        first.kill()
        second.communicate(timeout=60)
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 0


def test_no_secret_on_the_command_line_or_in_what_it_prints(loader: Loader, hub: Hub) -> None:
    rule = hub.fail("*.safetensors", Hang(), on=Kind.CDN)
    process = loader.start(HF_TOKEN="hf_planted")
    wait_for(lambda: rule.hits > 0 or process.poll() is not None, process)
    command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes() if process.poll() is None else b""
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert b"hf_planted" not in command_line
    assert "hf_planted" not in output
    assert "hf_planted" not in loader.termination_log.read_text()


def test_help_imports_next_to_nothing() -> None:
    script = (
        "import sys; from modelswarm.loader import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'asyncio', 'httpx', 'obstore', 'pydantic'}))"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "exit codes: 0 done" in printed
    assert printed.splitlines()[-1] == "[]"


def test_a_load_from_a_hub_does_not_wait_for_what_it_does_not_need(loader: Loader) -> None:
    script = (
        "import sys; from modelswarm.loader import main\n"
        f"code = main({loader.argv!r})\n"
        "print(code, sorted({name.partition('.')[0] for name in sys.modules} & {'obstore', 'kopf', 'aiohttp'}))"
    )
    environ = {**os.environ, **loader.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == "0 []"


def test_memory_stays_bounded(loader: Loader, hub: Hub, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "big", shards=4, shard_bytes=24 << 20)
    repository = hub.add(Repository.from_folder(folder, id="org/big"))
    loader.environ |= {"MODEL_ID": "org/big", "MODELSWARM_MANIFEST_DIR": mount(manifest_of(repository), tmp_path / "m")}
    script = (
        "import re; from modelswarm.loader import main\n"
        f"code = main({loader.argv!r})\n"
        # Not ru_maxrss: that begins with the memory of the process that started this one.
        "print(code, int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
    )
    environ = {**os.environ, **loader.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True).stdout
    code, mebibytes = printed.splitlines()[-1].split()
    assert code == "0"
    assert int(mebibytes) < 150


def test_authorities_that_are_not_there_are_not_missed(loader: Loader) -> None:
    assert loader.run(SSL_CERT_FILE="/nowhere/ca.crt") == 0, loader.output
    assert "there is no /nowhere/ca.crt" in loader.output
