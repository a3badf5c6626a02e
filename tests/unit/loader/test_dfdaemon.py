"""The leg of the node's Dragonfly daemon: what it asks for, and that nothing it does can spoil a load."""

import asyncio
import json
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dev.hub import Hub, HubThread, Kind, Repository, make_model
from modelswarm.backends.dragonfly.plan import plan_model
from modelswarm.backends.dragonfly.taskid import url_task_id
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.manifest import Manifest, ManifestFile
from modelswarm.loader.detours import LIMIT, MOST_CHARACTERS, Detours
from modelswarm.loader.dfdaemon import SMALL, Dfdaemon, negligible
from modelswarm.loader.dfget import Dfget, complaint
from modelswarm.loader.settings import DfdaemonSettings
from modelswarm.loader.summary import MOST_BYTES, Summary
from modelswarm.loader.tree import BESIDE, Tree
from tests.unit.loader.conftest import MODEL, PATIENT, Loader, manifest_of, mount, tree

SHARDS = 4
SHARD_BYTES = SMALL + (1 << 20)
SHARD = "model-00001-of-00004.safetensors"


@dataclass
class FakeDfget:
    """The program, its plan, the calls that it has got, and the daemon's socket."""

    folder: Path
    content: Path
    socket: Path
    how: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        script = Path(__file__).with_name("dfget.py")
        self.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{script}" "{self.folder}" "$@"\n')
        self.program.chmod(0o755)
        self.does()

    @property
    def program(self) -> Path:
        return self.folder / "dfget"

    def does(self, how: str = "right", **by_name: str) -> None:
        """What becomes of files: all of them, or single ones by the number of the shard (``shard2="wrong"``)."""
        self.how = {"*": how}
        for name, each in by_name.items():
            self.how[f"model-{int(name.removeprefix('shard')):05}-of-{SHARDS:05}.safetensors"] = each
        plan = {"how": self.how, "content": str(self.content)}
        (self.folder / "plan.json").write_text(json.dumps(plan))

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("call-*"))]

    @property
    def urls(self) -> list[str]:
        return [call["argv"][-1] for call in self.calls]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and files that together are next to nothing beside them."""
    folder = make_model(tmp_path_factory.mktemp("model"), shards=SHARDS, shard_bytes=SHARD_BYTES)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def module_repository(model_folder: Path) -> Repository:
    return Repository.from_folder(model_folder, id=MODEL, lfs_threshold=1 << 20)


@pytest.fixture
def repository(module_repository: Repository) -> Repository:
    return module_repository


@pytest.fixture
def hub(repository: Repository) -> Iterator[Hub]:
    with HubThread(Hub(repository)) as running:
        yield running.hub


@pytest.fixture
def dfget(tmp_path: Path, model_folder: Path) -> Iterator[FakeDfget]:
    # Not in tmp_path: the address of a socket has room for 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="dfdaemon"))
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(folder / "dfdaemon.sock"))
        daemon.listen()
        yield FakeDfget(tmp_path / "dfget", model_folder, folder / "dfdaemon.sock")
    shutil.rmtree(folder)


@pytest.fixture
def manifest(repository: Repository) -> Manifest:
    return manifest_of(repository)


@pytest.fixture(autouse=True)
def configured(loader: Loader, dfget: FakeDfget, manifest: Manifest, tmp_path: Path) -> None:
    loader.environ |= {
        "MODELSWARM_DFDAEMON_SOCKET": str(dfget.socket),
        "MODELSWARM_DFGET": str(dfget.program),
        "MODELSWARM_DFDAEMON_STALL_SECONDS": "20",
        "MODELSWARM_MANIFEST_DIR": mount(manifest, tmp_path / "manifest"),
    }


@pytest.fixture
def done(loader: Loader, model_folder: Path) -> Callable[..., None]:
    """Loads; everything must be there and right, and nothing else must be left, whatever the daemon did."""

    def done(*options: str, **environ: str) -> None:
        assert loader.run(*options, **environ) == 0, loader.output
        assert tree(loader.directory) == tree(model_folder)
        assert sorted(path.name for path in loader.root.iterdir()) == [loader.directory.name]

    return done


Done = Callable[..., None]


def skipped(loader: Loader) -> str:
    found = loader.summary.get("skipped", {})
    assert isinstance(found, dict)
    return str(found.get("dfdaemon", ""))


def wanted(manifest: Manifest) -> list[ManifestFile]:
    """What the daemon is asked for."""
    left_out = negligible(manifest.files)
    return [file for file in manifest.files if file.path not in left_out]


def large(manifest: Manifest) -> int:
    return sum(file.size for file in wanted(manifest))


def shard(manifest: Manifest) -> ManifestFile:
    return next(file for file in manifest.files if file.path == SHARD)


# --- what is asked for ----------------------------------------------------------------------------------------------


def test_files_come_from_the_daemon_and_those_that_do_not_matter_from_the_origin(
    loader: Loader, dfget: FakeDfget, hub: Hub, manifest: Manifest, done: Done
) -> None:
    done()
    assert loader.sources() == {"dfdaemon": large(manifest), "origin": manifest.bytes - large(manifest)}
    assert "skipped" not in loader.summary
    assert len(dfget.calls) == SHARDS
    assert hub.counters.total(Kind.CDN).content == 0


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param({}, id="none"),
        pytest.param({"tag": "models"}, id="a tag"),
        pytest.param({"tag": "--digest", "application": "of a strange form"}, id="both"),
    ],
)
def test_it_asks_for_exactly_what_was_preheated(
    loader: Loader, dfget: FakeDfget, hub: Hub, manifest: Manifest, done: Done, identity: dict[str, str]
) -> None:
    done(**{f"MODELSWARM_DRAGONFLY_{name.upper()}": value for name, value in identity.items()})
    plan = plan_model("id", manifest, Endpoints(huggingface=hub.url), **identity)
    ids = {entry.url: entry.task_id for entry in plan.entries if entry.size > SMALL}
    assert sorted(dfget.urls) == sorted(ids)
    for call in dfget.calls:
        given = dict(part.removeprefix("--").split("=", 1) for part in call["argv"][:-1] if "=" in part)
        asked = {name: given[name] for name in ("tag", "application") if name in given}
        assert asked == identity
        assert url_task_id(call["argv"][-1], **asked) == ids[call["argv"][-1]]
        assert "--transfer-from-dfdaemon" in call["argv"]
        assert given["endpoint"] == str(dfget.socket)


def test_the_environment_is_not_handed_on(loader: Loader, dfget: FakeDfget, done: Done) -> None:
    done(SOME_SECRET="planted", DFGET_TAG="other", DFGET_DISABLE_BACK_TO_SOURCE="true")
    shell = {"PWD", "SHLVL", "_", "LC_CTYPE", "OLDPWD"}
    assert set(dfget.calls[0]["environ"]) - shell <= {"PATH", "HOME", "TMPDIR", "DFGET_SCHEDULING_POLICY"}


def test_with_a_token_it_is_not_used(
    loader: Loader, hub: Hub, dfget: FakeDfget, manifest: Manifest, done: Done
) -> None:
    hub.allow("hf_planted", MODEL)
    done(HF_TOKEN="hf_planted")
    assert dfget.calls == []
    assert loader.sources() == {"origin": manifest.bytes}
    assert skipped(loader) == "not used: there is a token, and Dragonfly asks nobody for one"
    assert "hf_planted" not in loader.output + loader.termination_log.read_text()


def test_public_content_comes_from_the_daemon_although_there_is_a_token(
    loader: Loader, hub: Hub, dfget: FakeDfget, manifest: Manifest, done: Done
) -> None:
    hub.allow("hf_planted", MODEL)
    done(HF_TOKEN="hf_planted", MODELSWARM_CONTENT_PUBLIC="true")
    assert loader.sources() == {"dfdaemon": large(manifest), "origin": manifest.bytes - large(manifest)}
    assert "skipped" not in loader.summary
    assert "hf_planted" not in json.dumps(dfget.calls)
    assert "hf_planted" not in loader.output + loader.termination_log.read_text()


def test_without_the_library_a_token_goes_to_the_origin_only(
    loader: Loader, hub: Hub, dfget: FakeDfget, manifest: Manifest, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.allow("hf_planted", MODEL)
    monkeypatch.setitem(sys.modules, "dragonfly_api", None)
    monkeypatch.delitem(sys.modules, "modelswarm.loader.dfstream", raising=False)
    monkeypatch.setitem(sys.modules, "dragonfly_api.common_pb2", None)
    done(HF_TOKEN="hf_planted", MODELSWARM_DRAGONFLY_ALLOW_GATED="true")
    assert dfget.calls == []
    assert loader.sources() == {"origin": manifest.bytes}
    assert skipped(loader).startswith("not used: GrpcMissing (the image has no grpcio")


@pytest.mark.parametrize("name", ["MODELSWARM_CONTENT_PUBLIC", "MODELSWARM_DRAGONFLY_ALLOW_GATED"])
def test_a_switch_that_is_neither_is_named(loader: Loader, name: str) -> None:
    assert loader.run(**{name: "1"}) == 2
    assert name in str(loader.summary["message"])


def test_a_token_of_another_hub_does_not_matter(loader: Loader, dfget: FakeDfget, done: Done) -> None:
    done(MODELSCOPE_API_TOKEN="of-another")
    assert len(dfget.calls) == SHARDS


def test_without_a_socket_in_the_settings_there_is_no_such_leg(
    loader: Loader, dfget: FakeDfget, manifest: Manifest, done: Done
) -> None:
    done(MODELSWARM_DFDAEMON_SOCKET="")
    assert dfget.calls == []
    assert loader.sources() == {"origin": manifest.bytes}
    assert "skipped" not in loader.summary


def test_check_asks_nobody(loader: Loader, dfget: FakeDfget) -> None:
    assert loader.run("--check") == 1
    assert dfget.calls == []


@pytest.mark.parametrize("name", ["STALL_SECONDS", "SLOWEST_MIB"])
def test_a_setting_that_is_no_number_is_named(loader: Loader, name: str) -> None:
    variable = f"MODELSWARM_DFDAEMON_{name}"
    assert loader.run(**{variable: "soon"}) == 2
    assert variable in str(loader.summary["message"])


@pytest.mark.parametrize(
    ("file", "served"),
    [
        (ManifestFile("a", SMALL + 1, f"sha256:{'0' * 64}"), True),
        (ManifestFile("a", SMALL + 1, f"git-sha1:{'0' * 40}"), True),
        (ManifestFile("a", 1, f"sha256:{'0' * 64}"), True),
        (ManifestFile("a", 0, f"sha256:{'0' * 64}"), False),
        (ManifestFile("left out", 1, f"sha256:{'0' * 64}"), False),
        (ManifestFile("a", SMALL + 1, None, f'"{"0" * 32}"'), False),
    ],
)
def test_it_serves_what_can_be_verified_and_is_not_left_out(file: ManifestFile, served: bool) -> None:
    settings = DfdaemonSettings(Path("socket"))
    assert Dfdaemon(settings, str, Dfget(settings), {"left out"}).serves(file) is served


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        pytest.param([], [], id="no files"),
        pytest.param([700, 5000, 50_000_000], [700], id="the smallest, while they are a ten-thousandth"),
        pytest.param([700, 300, 50_000_000], [300, 700], id="all that fit"),
        pytest.param([3000] * 1000, [], id="many small ones are the model"),
        pytest.param([5 << 20, 1 << 40], [], id="never one that is large"),
        pytest.param([0, 10], [0], id="an empty file costs nothing"),
    ],
)
def test_what_is_negligible(sizes: list[int], found: list[int]) -> None:
    files = [ManifestFile(f"{number:04}-{size}", size, None) for number, size in enumerate(sizes)]
    paths = negligible(files)
    assert sorted(file.size for file in files if file.path in paths) == found


# --- what can go wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "reason", "words"),
    [
        ("not found", "DfgetFailed", "dfget ended with code 1: Downloading Failed!, Bad Status Code: 404"),
        ("refused", "DfgetFailed", "Bad Code: The caller does not have permission, blocked"),
        ("killed", "DfgetFailed", "dfget was killed by signal 9"),
        ("nothing", "WrongSize", "wrote 0 bytes"),
        ("short", "WrongSize", " bytes instead of "),
        ("long", "WrongSize", " bytes instead of "),
        ("wrong", "DigestMismatch", "model-0000"),
        ("holes", "DigestMismatch", "model-0000"),
    ],
)
def test_whatever_it_delivers_the_files_are_right(
    loader: Loader, dfget: FakeDfget, manifest: Manifest, done: Done, how: str, reason: str, words: str
) -> None:
    dfget.does(how)
    done("--parallel", "1")
    assert loader.sources()["origin"] == manifest.bytes
    assert len(dfget.calls) == LIMIT
    assert f"{reason} x{LIMIT}" in skipped(loader)
    assert words in skipped(loader)
    assert skipped(loader).endswith("; not asked any more after 3 failures in a row")
    assert loader.output.count("dfdaemon failed 3 times in a row") == 1
    told = loader.output + loader.termination_log.read_text()
    assert "planted" not in told
    if how in ("wrong", "holes"):
        assert loader.sources()["dfdaemon"] == LIMIT * shard(manifest).size, "discarded bytes are counted, too"
    else:
        assert "dfdaemon" not in loader.sources()


def test_a_chatty_program_does_not_wait_for_a_listener(loader: Loader, dfget: FakeDfget, done: Done) -> None:
    dfget.does("chatty")
    done()
    assert "skipped" not in loader.summary


def test_one_bad_file_does_not_keep_the_others_from_the_daemon(
    loader: Loader, dfget: FakeDfget, manifest: Manifest, done: Done
) -> None:
    dfget.does(shard2="wrong")
    done()
    assert len(dfget.calls) == SHARDS
    assert loader.sources()["dfdaemon"] == large(manifest)
    assert loader.sources()["origin"] == manifest.bytes - large(manifest) + shard(manifest).size
    assert skipped(loader) == "DigestMismatch x1 (model-00002-of-00004.safetensors)"


def test_failures_count_only_in_a_row(loader: Loader, dfget: FakeDfget, manifest: Manifest, done: Done) -> None:
    dfget.does("not found", shard3="right")
    done("--parallel", "1")
    assert len(dfget.calls) == SHARDS
    assert "not asked any more" not in skipped(loader)


def no_socket(dfget: FakeDfget) -> None:
    dfget.socket.unlink()


def dead_socket(dfget: FakeDfget) -> None:
    dfget.socket.unlink()
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(dfget.socket))


def not_a_socket(dfget: FakeDfget) -> None:
    dfget.socket.unlink()
    dfget.socket.touch()


def no_program(dfget: FakeDfget) -> None:
    dfget.program.unlink()


def not_a_program(dfget: FakeDfget) -> None:
    dfget.program.chmod(0o644)


def another_program(dfget: FakeDfget) -> None:
    dfget.program.write_text("not a program")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (no_socket, "SocketMissing x3 (there is no socket "),
        (not_a_socket, "SocketMissing x3"),
        (dead_socket, "DfgetFailed x3 (dfget ended with code 1: Connect Dfdaemon Failed!, can not connect "),
        (no_program, "cannot be run: No such file or directory"),
        (not_a_program, "cannot be run: Permission denied"),
        (another_program, "cannot be run: Exec format error"),
    ],
)
def test_what_is_missing_on_the_node_is_said_and_the_origin_is_read(
    loader: Loader,
    dfget: FakeDfget,
    manifest: Manifest,
    done: Done,
    trouble: Callable[[FakeDfget], None],
    words: str,
) -> None:
    trouble(dfget)
    done("--parallel", "1")
    assert loader.sources() == {"origin": manifest.bytes}
    assert words in skipped(loader)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_running(pid)


@pytest.mark.parametrize("how", ["silent", "hang"])
def test_a_daemon_that_hangs_is_left_and_its_processes_are_killed(
    loader: Loader, dfget: FakeDfget, manifest: Manifest, done: Done, how: str
) -> None:
    dfget.does(how)
    began = time.monotonic()
    done(MODELSWARM_DFDAEMON_STALL_SECONDS="2")
    assert time.monotonic() - began < 60
    assert "Stalled x4 (dfget wrote nothing for 2 s)" in skipped(loader)
    assert loader.sources()["origin"] == manifest.bytes
    assert all(gone(call["pid"]) for call in dfget.calls)
    if how == "silent":
        assert gone(int((dfget.folder / "child").read_text()))


def test_one_that_is_too_slow_is_left(loader: Loader, dfget: FakeDfget, manifest: Manifest, done: Done) -> None:
    dfget.does("crawl")
    done(MODELSWARM_DFDAEMON_STALL_SECONDS="8", MODELSWARM_DFDAEMON_SLOWEST_MIB="100")
    assert "TooSlow x4 (dfget was not done after 8 s)" in skipped(loader)
    assert loader.sources()["origin"] == manifest.bytes
    assert all(gone(call["pid"]) for call in dfget.calls)


def test_the_limit_grows_with_the_file() -> None:
    settings = DfdaemonSettings(Path("socket"), stall=60, slowest=10 << 20)
    assert settings.limit(0) == 60
    assert settings.limit(1 << 30) == 60 + 102.4
    assert "--timeout=163s" in Dfget(settings).command("http://hub/a", 1 << 30, Path("out"))


def test_asked_to_stop_it_stops_at_once_with_everything_it_has_started(loader: Loader, dfget: FakeDfget) -> None:
    dfget.does("hang")
    process = loader.start(prepare=PATIENT, MODELSWARM_DFDAEMON_STALL_SECONDS="100")
    deadline = time.monotonic() + 60
    while len(dfget.calls) < SHARDS:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10, "a dfget that hangs is not waited for"
    assert process.returncode == 143, output
    assert "Traceback" not in output
    assert all(gone(call["pid"]) for call in dfget.calls)


def test_what_a_killed_run_left_is_removed_before_the_space_is_counted(tmp_path: Path) -> None:
    made = Tree(tmp_path, tmp_path / "model", "key")
    made.parts.mkdir(parents=True)
    (made.parts / f"name.part{BESIDE}").write_bytes(b"half")
    (made.parts / "name.part").write_bytes(b"half")
    assert made.open()
    made.close()
    assert [path.name for path in made.parts.iterdir()] == ["name.part"]


def test_a_part_from_the_origin_is_continued_there(
    loader: Loader, dfget: FakeDfget, manifest: Manifest, done: Done
) -> None:
    file = shard(manifest)
    stem = Tree(loader.root, loader.directory, f"huggingface:{MODEL}").stem(file)
    stem.parent.mkdir(parents=True)
    content = (dfget.content / SHARD).read_bytes()
    half = file.size // 2
    stem.with_name(stem.name + ".part").write_bytes(content)
    stem.with_name(stem.name + ".json").write_text(json.dumps([[0, half, half], [half, file.size, half]]))
    done()
    assert len(dfget.calls) == SHARDS - 1
    assert loader.sources()["resumed"] == half


def test_cancelled_in_the_middle_it_leaves_no_process_and_no_file(dfget: FakeDfget, tmp_path: Path) -> None:
    class NoSink:
        path = tmp_path / "file.part"

        async def begin(self, *, whole: bool = False) -> None:
            raise AssertionError

        async def write(self, data: bytes | memoryview) -> None:
            raise AssertionError

        def growing(self, path: Path) -> None:
            pass

        async def filled(self) -> None:
            raise AssertionError

    async def run() -> None:
        settings = DfdaemonSettings(dfget.socket, program=str(dfget.program))
        leg = Dfdaemon(settings, lambda path: f"http://hub/resolve/c/{path}", Dfget(settings))
        file = ManifestFile(SHARD, SHARD_BYTES, f"sha256:{'0' * 64}")
        task = asyncio.create_task(leg.fetch(file, NoSink(), 0, SHARD_BYTES))
        while not NoSink.path.with_name("file.part" + BESIDE).exists():  # noqa: ASYNC110  (another process makes it)
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    dfget.does("hang")
    asyncio.run(run())
    assert not is_running(dfget.calls[0]["pid"])
    assert list(tmp_path.glob(f"*{BESIDE}")) == []


# --- what is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "code", "told"),
    [
        (b"", 1, "dfget ended with code 1"),
        (b"error: unexpected argument '--secret=x'", 2, "dfget ended with code 2"),
        (b"Message: of https://u:p@cdn.example:8443/a?Signature=s , and more", 1, "of cdn.example:8443 , and more"),
        (b"Message: (hf://org/name@main)", 1, "(org)"),
        (b"Message: first\nHeader:\nMessage: planted", 1, "code 1: first"),
        (b"Message: " + b"x" * 1000, 1, "xxx..."),
        (b"\xff\xfe\n", -15, "dfget was killed by signal 15"),
    ],
)
def test_complaints(output: bytes, code: int, told: str) -> None:
    found = complaint(output, code)
    assert found.endswith(told) or told in found
    assert len(found) < 250
    assert "Signature" not in found
    assert "planted" not in found


def test_the_reasons_fit_into_the_summary() -> None:
    detours = Detours()
    for number in range(50):
        detours.failed("dfdaemon", f"Reason{number % 7}", '"\n\x1b' * 1000)
    detours.unused("peers", "x" * 1000)
    texts = detours.texts()
    assert all(len(text) <= MOST_CHARACTERS for text in texts.values())
    text = Summary("Failed", "é" * 1000, "StorageError", '"' * 10_000, skipped=texts).to_json()
    assert len(text.encode()) <= MOST_BYTES
    assert json.loads(text)["skipped"] == texts


def test_three_failures_in_a_row_are_one_too_many_once() -> None:
    detours = Detours()
    assert [detours.failed("a", "R", "m") for _ in range(2)] == [False, False]
    detours.served("a")
    assert [detours.failed("a", "R", "m") for _ in range(4)] == [False, False, True, False]
    detours.served("a")
    assert detours.is_off("a"), "a file that was on its way does not bring it back"
    assert not detours.is_off("b")
    assert detours.texts() == {"a": "R x6 (m); not asked any more after 3 failures in a row"}
