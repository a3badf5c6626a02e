"""Loaders at the turnstile: so many read the origin at once, and nothing that happens to it stops anybody."""

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from dev.hub import Hub, HubThread, Kind, Repository, Slow
from dev.process import free_port
from modelswarm.content.manifest import decode
from modelswarm.loader.turn import PATIENCE, Turn
from modelswarm.turnstile_server import TurnstileServer
from tests.unit.loader.conftest import Loader, manifest_of, mount

LEASE = 15.0
"""Long enough for a loader on a busy machine to renew in time."""
SHARD = "model-00001-of-00002.safetensors"

# --- one loader's part of it, in a time of its own ------------------------------------------------------------------

Answer = Callable[[httpx.Request], httpx.Response]


@dataclass
class Bench:
    """A ``Turn`` whose requests are answered by ``answer``."""

    answer: Answer
    moved: int = 0
    lines: list[str] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    asked: list[tuple[str, bool, float]] = field(default_factory=list)
    """Method, whether it says that it reads, and when."""

    def turn(self) -> Turn:
        def respond(request: httpx.Request) -> httpx.Response:
            holding = bool(json.loads(request.content)["holding"]) if request.content else False
            self.asked.append((request.method, holding, asyncio.get_running_loop().time()))
            return self.answer(request)

        http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
        return Turn("http://turnstile", lambda: self.moved, self.lines.append, self.why.append, http=http)

    def renewals(self) -> list[float]:
        return [at for _, holding, at in self.asked if holding]


def granted(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"granted": True, "lease": 30.0})


def wait(position: int, seconds: float = 2.0) -> httpx.Response:
    return httpx.Response(200, json={"granted": False, "lease": 30.0, "position": position, "askAgain": seconds})


def refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.looptime
async def test_it_waits_for_its_turn_and_says_so() -> None:
    positions = iter([3, 3, 2, 1])
    bench = Bench(lambda request: wait(position, 6) if (position := next(positions, 0)) else granted(request))
    turn = bench.turn()
    async with turn:
        assert turn.waited == pytest.approx(24)
    await turn.leave()
    told = [f"waiting for its turn at the origin, position {position}" for position in (3, 2, 1)]
    assert bench.lines == told
    assert bench.why == []
    assert bench.asked[-1][0] == "DELETE"


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(refuse, "ConnectError", id="nobody there"),
        pytest.param(lambda _: httpx.Response(503), "status 503", id="a standby only"),
        pytest.param(lambda _: httpx.Response(200, text="<html>"), "makes no sense", id="somebody else"),
        pytest.param(lambda _: httpx.Response(200, json={"granted": "yes"}), "makes no sense", id="another protocol"),
        pytest.param(lambda _: httpx.Response(200, json={"granted": True, "lease": 0}), "no sense", id="no lease"),
        pytest.param(lambda _: httpx.Response(302, headers={"Location": "/"}), "status 302", id="a redirect"),
    ],
)
async def test_without_an_answer_the_origin_is_read_all_the_same(answer: Answer, words: str) -> None:
    bench = Bench(answer)
    turn = bench.turn()
    began = asyncio.get_running_loop().time()
    async with turn:
        assert PATIENCE <= asyncio.get_running_loop().time() - began <= PATIENCE + 2
    async with turn:
        assert asyncio.get_running_loop().time() - began <= PATIENCE + 2, "it does not wait again"
    await turn.leave()
    (why,) = bench.why
    assert why.startswith("no answer for 30 s (")
    assert words in why


@pytest.mark.looptime
async def test_a_standby_now_and_then_is_no_reason_to_go_on_without() -> None:
    count = 0

    def sometimes(request: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        return wait(1) if count % 5 == 0 and count < 100 else granted(request) if count >= 100 else httpx.Response(503)

    bench = Bench(sometimes)
    turn = bench.turn()
    async with turn:
        assert turn.waited > 2 * PATIENCE
    await turn.leave()
    assert bench.why == []


@pytest.mark.looptime
async def test_it_renews_while_bytes_come_and_not_when_they_do_not() -> None:
    bench = Bench(granted)
    turn = bench.turn()
    async with turn:
        for _ in range(100):
            await asyncio.sleep(1)
            bench.moved += 1
        assert 9 <= len(bench.renewals()) <= 10
        await asyncio.sleep(300)
        stopped = len(bench.renewals())
        assert stopped < 17, "for a minute without a byte"
        bench.moved += 1
        await asyncio.sleep(30)
        assert len(bench.renewals()) > stopped, "it reads again, and says so"
    await turn.leave()


@pytest.mark.looptime
async def test_one_permit_serves_all_its_connections_and_is_given_back_when_unused() -> None:
    bench = Bench(granted)
    turn = bench.turn()

    async def read() -> None:
        async with turn:
            await asyncio.sleep(5)

    await asyncio.gather(*(read() for _ in range(8)))
    assert [method for method, _, _ in bench.asked] == ["POST"]
    await asyncio.sleep(60)
    assert [method for method, _, _ in bench.asked] == ["POST", "DELETE"]
    await read()
    assert [method for method, _, _ in bench.asked] == ["POST", "DELETE", "POST"], "it asks again when it needs one"
    await turn.leave()
    assert [method for method, _, _ in bench.asked] == ["POST", "DELETE", "POST", "DELETE"]


@pytest.mark.looptime
async def test_cancelled_in_the_queue_it_leaves_it() -> None:
    bench = Bench(lambda _: wait(5))
    turn = bench.turn()

    async def read() -> None:
        async with turn:
            raise AssertionError

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 7)
    await turn.leave()
    assert bench.asked[-1][0] == "DELETE"


@pytest.mark.looptime
async def test_a_turnstile_that_comes_back_is_told_who_reads() -> None:
    bench = Bench(refuse)
    turn = bench.turn()
    async with turn:
        bench.answer = granted
        bench.asked.clear()
        for _ in range(40):
            await asyncio.sleep(1)
            bench.moved += 1
    assert bench.renewals()
    await turn.leave()


# --- real loaders, a real turnstile ---------------------------------------------------------------------------------


class Gatekeeper:
    """A ``TurnstileServer`` in a thread, on one port through all restarts."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server: TurnstileServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self, *, leads: bool = True) -> None:
        self.server = TurnstileServer(self._limit, lease=LEASE)
        if leads:
            self.server.lead()
        asyncio.run_coroutine_threadsafe(self.server.start(self._port, "127.0.0.1"), self._loop).result()

    def stop(self) -> None:
        if self.server is not None:
            asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result()
            self.server = None

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def counts(self) -> tuple[int, int]:
        return self.server.counts() if self.server is not None else (0, 0)


@pytest.fixture
def hub(repository: Repository) -> Iterator[Hub]:
    """Slow enough that loaders meet: three seconds for a file."""
    with HubThread(Hub(repository, connection_rate=1 << 20)) as running:
        yield running.hub


@pytest.fixture
def gatekeeper() -> Iterator[Gatekeeper]:
    keeper = Gatekeeper(2)
    keeper.start()
    yield keeper
    keeper.close()


@dataclass
class Fleet:
    """Loaders of one file each, whose dfdaemon is not there; every one reads in a single connection."""

    loader: Loader
    folder: Path
    url: str
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, count: int, **environ: str) -> None:
        for _ in range(count):
            here = self.folder / f"{len(self.processes)}"
            self.loader.root = here / "models"
            variables = {
                "MODEL_FILENAME": SHARD,
                "MODELSWARM_DFDAEMON_SOCKET": str(self.folder / "no.sock"),
                "MODELSWARM_ORIGIN_TURNSTILE": self.url,
                "MODELSWARM_TERMINATION_LOG": str(here / "message"),
            }
            here.mkdir()
            self.processes.append(self.loader.start("--parallel", "1", "--span-mib", "64", **(variables | environ)))

    def end(self) -> list[str]:
        """Their outputs, when all have ended well."""
        outputs = [process.communicate(timeout=60)[0] for process in self.processes]
        assert [process.returncode for process in self.processes] == [0] * len(outputs), outputs
        return outputs

    def summaries(self) -> list[dict[str, object]]:
        return [
            json.loads((self.folder / f"{number}" / "message").read_text()) for number in range(len(self.processes))
        ]


@pytest.fixture
def fleet(loader: Loader, tmp_path: Path, gatekeeper: Gatekeeper, repository: Repository) -> Iterator[Fleet]:
    folder = tmp_path / "fleet"
    folder.mkdir()
    # With it nobody asks for a listing: what the hub answers at once is what it is read for.
    manifest = manifest_of(repository)
    manifest = replace(manifest, files=tuple(file for file in manifest.files if file.path == SHARD))
    loader.environ["MODELSWARM_MANIFEST_DIR"] = mount(manifest, tmp_path / "manifest")
    fleet = Fleet(loader, folder, gatekeeper.url)
    yield fleet
    for process in fleet.processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hold(hub: Hub) -> None:
    """Whoever reads is still at it when the last one has come, however slowly that starts."""
    hub.fail("*", Slow(first_byte_delay=10), on=Kind.CDN)


def test_of_five_loaders_two_read_at_once(fleet: Fleet, hub: Hub, gatekeeper: Gatekeeper) -> None:
    hold(hub)
    fleet.start(5)
    eventually(lambda: gatekeeper.counts() == (2, 3))
    hub.faults.clear()
    outputs = fleet.end()
    assert hub.counters.peak <= 2
    assert sum("waiting for its turn at the origin, position " in output for output in outputs) >= 3
    summaries = fleet.summaries()
    assert sum("waitedSeconds" in summary for summary in summaries) >= 3
    assert all("turnstile" not in str(summary.get("skipped")) for summary in summaries)


def test_loaders_whose_agents_have_all_failed_take_turns_too(
    fleet: Fleet, hub: Hub, gatekeeper: Gatekeeper, tmp_path: Path
) -> None:
    shards = Path(fleet.loader.environ["MODELSWARM_MANIFEST_DIR"]).glob("manifest*")
    digest = decode([shard.read_bytes() for shard in shards]).digest
    directory = tmp_path / "node" / digest.removeprefix("sha256:")
    directory.mkdir(parents=True)
    failed = {"state": "Failed", "doneBytes": 0, "bytes": 1, "message": "no space is left"}
    (directory / ".progress.json").write_text(json.dumps(failed))
    hold(hub)
    fleet.start(4, MODELSWARM_DFDAEMON_SOCKET="", MODELSWARM_NODE_MODEL=str(directory))
    eventually(lambda: gatekeeper.counts() == (2, 2))
    hub.faults.clear()
    fleet.end()
    assert hub.counters.peak <= 2
    summaries = fleet.summaries()
    assert sum("waitedSeconds" in summary for summary in summaries) >= 2
    assert all("NodeUnavailable" in str(summary["skipped"]) for summary in summaries)


def test_without_an_engine_nobody_asks(fleet: Fleet, hub: Hub, gatekeeper: Gatekeeper) -> None:
    hold(hub)
    fleet.start(4, MODELSWARM_DFDAEMON_SOCKET="", MODELSWARM_ORIGIN_TURNSTILE="")
    eventually(lambda: hub.counters.peak > 2)
    hub.faults.clear()
    assert gatekeeper.counts() == (0, 0)
    fleet.end()
    assert all("waitedSeconds" not in summary for summary in fleet.summaries())


def test_the_place_of_one_that_was_killed_is_free_after_a_while(fleet: Fleet, hub: Hub, gatekeeper: Gatekeeper) -> None:
    hub.fail("*", Slow(bytes_per_second=16 << 10), on=Kind.CDN)  # both are still at it when the third comes
    fleet.start(2)
    eventually(lambda: gatekeeper.counts()[0] == 2)
    fleet.start(1)
    eventually(lambda: gatekeeper.counts()[1] == 1)
    hub.faults.clear()
    for process in fleet.processes[:2]:
        process.kill()
        process.communicate()
    output, _ = fleet.processes[2].communicate(timeout=60)
    assert fleet.processes[2].returncode == 0, output


def test_a_restart_of_the_turnstile_lets_nobody_new_through_while_the_others_read(
    fleet: Fleet, hub: Hub, gatekeeper: Gatekeeper
) -> None:
    fleet.start(5)
    eventually(lambda: gatekeeper.counts()[0] == 2 and gatekeeper.counts()[1] >= 1)
    gatekeeper.stop()
    gatekeeper.start()
    fleet.end()
    assert hub.counters.peak <= 2
    assert all("turnstile" not in str(summary.get("skipped")) for summary in fleet.summaries())


def test_a_standby_has_no_permits(gatekeeper: Gatekeeper) -> None:
    gatekeeper.stop()
    gatekeeper.start(leads=False)
    with httpx.Client(trust_env=False) as client:
        response = client.post(f"{gatekeeper.url}/permits/0123456789abcdef", json={"holding": False})
        assert (response.status_code, response.headers["Connection"]) == (503, "close")
        assert client.delete(f"{gatekeeper.url}/permits/0123456789abcdef").status_code == 503


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("/permits/short", b"{}", 404, id="a name too short to be anybody's"),
        pytest.param("/permits/0123456789abcdef", b"no JSON", 422, id="no JSON"),
        pytest.param("/permits/0123456789abcdef", b'{"waited": -1}', 422, id="a negative wait"),
        pytest.param("/permits/0123456789abcdef", b'{"waited": "NaN"}', 422, id="no number"),
        pytest.param("/permits/0123456789abcdef", b" " * 5000, 413, id="too long"),
    ],
)
def test_what_makes_no_sense_is_refused(gatekeeper: Gatekeeper, path: str, body: bytes, status: int) -> None:
    with httpx.Client(trust_env=False) as client:
        assert client.post(f"{gatekeeper.url}{path}", content=body).status_code == status
    assert gatekeeper.counts() == (0, 0)
