"""Asking seed peers themselves: how often, what silence means, and what goes over the wire."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from dragonfly_api.common_pb2 import Host
from dragonfly_api.dfdaemon_pb2 import StatLocalTaskRequest, StatLocalTaskResponse
from dragonfly_api.scheduler_pb2 import ListHostsRequest, ListHostsResponse
from grpc import StatusCode, aio, method_handlers_generic_handler, unary_unary_rpc_method_handler

from modelswarm.backends.dragonfly.seeds import BURST, FIRST_REST, LIST_SECONDS, LONGEST_REST, RATE, Seeds
from modelswarm.backends.dragonfly.wire import GrpcWire, Unanswered

TASK = "a" * 64


@dataclass
class FakeWire:
    """``peers``: address → whether it has the task, or None if it does not answer."""

    peers: Mapping[str, bool | None] = field(default_factory=dict)
    scheduler_answers: bool = True
    lists: int = 0
    questions: int = 0

    async def seeds(self, scheduler: str) -> Sequence[str]:
        self.lists += 1
        if not self.scheduler_answers:
            raise Unanswered("planted")
        return tuple(self.peers)

    async def holds(self, seed: str, task_id: str) -> bool:
        self.questions += 1
        answer = self.peers[seed]
        if answer is None:
            raise Unanswered("planted")
        return answer


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("peers", "expected", "goes_on"),
    [
        pytest.param({"a": True}, True, True, id="the only one has it"),
        pytest.param({"a": False, "b": True}, True, True, id="one of two has it"),
        pytest.param({"a": False, "b": False}, False, True, id="nobody has it"),
        pytest.param({}, None, True, id="none is named, which is not for long"),
        pytest.param({"a": None, "b": True}, True, True, id="one has it, another is silent"),
        pytest.param({"a": None, "b": False}, None, True, id="the silent one may have it"),
        pytest.param({"a": None, "b": None}, None, False, id="all are silent, and left alone for a while"),
    ],
)
async def test_one_that_has_it_is_enough(
    peers: Mapping[str, bool | None], expected: bool | None, goes_on: bool
) -> None:
    seeds = Seeds({1: "scheduler"}, FakeWire(peers))
    assert await seeds.holds(1, TASK) is expected
    assert (seeds.rest(1) == 0) is goes_on


@pytest.mark.looptime
async def test_a_cluster_without_an_address_is_never_asked() -> None:
    wire = FakeWire({"a": True})
    seeds = Seeds({1: "scheduler"}, wire)
    assert seeds.rest(2) is None
    assert await seeds.holds(2, TASK) is None
    assert wire.lists == 0


@pytest.mark.looptime
async def test_a_silent_scheduler_is_left_alone_and_then_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    wire = FakeWire({"a": True}, scheduler_answers=False)
    seeds = Seeds({1: "scheduler"}, wire)
    for _ in range(5):
        assert await seeds.holds(1, TASK) is None
    assert wire.lists == 1
    rests = []
    for _ in range(8):
        rest = seeds.rest(1)
        assert rest is not None
        rests.append(rest)
        await asyncio.sleep(rest)
        assert await seeds.holds(1, TASK) is None
    assert rests == [2, 4, 8, 16, 30, 30, 30, 30]
    assert (wire.lists, len(caplog.records)) == (9, 1), "said once, not each time"
    wire.scheduler_answers = True
    await asyncio.sleep(LONGEST_REST)
    assert await seeds.holds(1, TASK) is True
    wire.scheduler_answers = False
    await asyncio.sleep(LIST_SECONDS)
    assert await seeds.holds(1, TASK) is None
    assert seeds.rest(1) == FIRST_REST, "what was before the answer is forgotten"


@pytest.mark.looptime
async def test_the_seed_peers_are_listed_now_and_then() -> None:
    wire = FakeWire({"a": False})
    seeds = Seeds({1: "scheduler"}, wire)
    for _ in range(10):
        await seeds.holds(1, TASK)
    assert (wire.lists, wire.questions) == (1, 10)
    wire.peers = {"a": False, "b": True}
    assert not await seeds.holds(1, TASK)
    await asyncio.sleep(LIST_SECONDS + 1)
    assert await seeds.holds(1, TASK)


@pytest.mark.looptime
async def test_a_list_without_seed_peers_is_not_kept() -> None:
    wire = FakeWire()
    seeds = Seeds({1: "scheduler"}, wire)
    assert await seeds.holds(1, TASK) is None
    wire.peers = {"a": True}
    assert await seeds.holds(1, TASK) is True


@pytest.mark.looptime
async def test_however_many_tasks_ask_a_cluster_gets_ten_questions_a_second() -> None:
    wire = FakeWire({"a": False})
    seeds = Seeds({1: "scheduler"}, wire)
    for _ in range(60):
        for _ in range(100):
            await seeds.holds(1, TASK)
        await asyncio.sleep(1)
    assert wire.questions <= BURST + 60 * RATE
    assert wire.questions >= 59 * RATE


class Dragonfly:
    """A scheduler and a seed peer in one real gRPC server."""

    def __init__(self) -> None:
        self.finished: dict[str, bool] = {}
        self.error: StatusCode | None = None
        self.seen: list[str] = []
        self.port = 0

    async def hosts(self, request: bytes, context: "aio.ServicerContext[bytes, bytes]") -> bytes:
        assert ListHostsRequest.FromString(request).type == 1
        if self.error is not None:
            await context.abort(self.error)
        seed = Host(id="seed", type=1, ip="127.0.0.1", port=self.port)
        return ListHostsResponse(hosts=[seed, Host(id="node", type=0, ip="127.0.0.9", port=1)]).SerializeToString()

    async def stat(self, request: bytes, context: "aio.ServicerContext[bytes, bytes]") -> bytes:
        task_id = StatLocalTaskRequest.FromString(request).task_id
        self.seen.append(task_id)
        if task_id not in self.finished:
            await context.abort(StatusCode.NOT_FOUND)
        answer = StatLocalTaskResponse(task_id=task_id)
        if self.finished[task_id]:
            answer.finished_at.GetCurrentTime()
        return answer.SerializeToString()


@pytest.fixture
async def dragonfly() -> AsyncIterator[Dragonfly]:
    running, server = Dragonfly(), aio.server()
    for service, method, handler in (
        ("scheduler.v2.Scheduler", "ListHosts", running.hosts),
        ("dfdaemon.v2.DfdaemonUpload", "StatLocalTask", running.stat),
    ):
        handlers = {method: unary_unary_rpc_method_handler(handler)}
        server.add_generic_rpc_handlers((method_handlers_generic_handler(service, handlers),))
    running.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield running
    await server.stop(None)


@pytest.fixture
async def wire() -> AsyncIterator[GrpcWire]:
    opened = GrpcWire()
    yield opened
    await opened.close()


async def test_the_two_questions_over_the_wire(dragonfly: Dragonfly, wire: GrpcWire) -> None:
    address = f"127.0.0.1:{dragonfly.port}"
    assert await wire.seeds(address) == (address,)
    dragonfly.finished = {"whole": True, "half": False}
    assert [await wire.holds(address, name) for name in ("whole", "half", "none")] == [True, False, False]
    assert dragonfly.seen == ["whole", "half", "none"]


async def test_an_error_is_no_answer(dragonfly: Dragonfly, wire: GrpcWire) -> None:
    dragonfly.error = StatusCode.UNIMPLEMENTED
    with pytest.raises(Unanswered, match="UNIMPLEMENTED"):
        await wire.seeds(f"127.0.0.1:{dragonfly.port}")


async def test_nobody_there_is_no_answer(wire: GrpcWire) -> None:
    with pytest.raises(Unanswered, match="UNAVAILABLE"):
        await wire.holds("127.0.0.1:1", TASK)


def test_grpc_is_not_loaded_before_somebody_asks() -> None:
    code = (
        "import sys, json; import modelswarm.engines; from modelswarm.backends.dragonfly.seeds import Seeds;"
        "from modelswarm.backends.dragonfly.wire import GrpcWire; Seeds({}, GrpcWire());"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in ('grpc', 'dragonfly_api')]))"
    )
    path = {"PYTHONPATH": ":".join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path)
    assert json.loads(found.stdout) == []
