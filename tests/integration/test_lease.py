"""Leader election of separate clients on a real API server."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime

import pytest

from dev.controlplane import ControlPlane
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.lease import LeaderElection

DURATION, RENEW, RETRY = 8.0, 6.0, 1.0


@pytest.fixture(scope="module")
def api_server() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as cluster:
        yield cluster


class Candidates:
    """Each with a connection of its own, as in processes of their own."""

    def __init__(self, cluster: ControlPlane, lease: str) -> None:
        self._cluster = cluster
        self._lease = lease
        self._tasks: dict[LeaderElection, asyncio.Task[None]] = {}

    async def start(self, identity: str) -> LeaderElection:
        configuration = await load_configuration(self._cluster.kubeconfig)
        ready = asyncio.get_running_loop().create_future()

        async def live() -> None:
            async with open_client(configuration) as api_client:
                election = LeaderElection(
                    KubeClient(api_client),
                    namespace="default",
                    name=self._lease,
                    identity=identity,
                    duration=DURATION,
                    renew=RENEW,
                    retry=RETRY,
                )
                ready.set_result(election)
                await election.run()
                await asyncio.Event().wait()  # the process has its connection until it ends

        task = asyncio.create_task(live())
        election: LeaderElection = await ready
        self._tasks[election] = task
        return election

    async def kill(self, election: LeaderElection) -> None:
        """As SIGKILL would: nothing is given back."""
        task = self._tasks.pop(election)
        task.cancel()
        await asyncio.wait([task])

    async def kill_all(self) -> None:
        for election in list(self._tasks):
            await self.kill(election)

    async def lease(self) -> dict[str, object]:
        async with open_client(await load_configuration(self._cluster.kubeconfig)) as api_client:
            found = (await KubeClient(api_client).get(LEASE, self._lease, "default"))["spec"]
        assert isinstance(found, dict)
        return dict(found)


@pytest.fixture
async def candidates(api_server: ControlPlane, request: pytest.FixtureRequest) -> AsyncIterator[Candidates]:
    name = request.node.name.replace("_", "-")[:60].strip("-")
    found = Candidates(api_server, name)
    yield found
    await found.kill_all()


async def leader_of(*elections: LeaderElection, within: float) -> LeaderElection:
    waiting = {asyncio.create_task(election.wait_leadership()): election for election in elections}
    done, pending = await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    assert len(done) == 1, f"{len(done)} leaders after {within} s"
    return waiting[done.pop()]


async def test_of_several_that_start_at_once_exactly_one_leads(candidates: Candidates) -> None:
    elections = await asyncio.gather(*(candidates.start(f"pod-{number}") for number in range(4)))
    leader = await leader_of(*elections, within=30)
    for _ in range(8):
        await asyncio.sleep(RETRY)
        assert [election for election in elections if election.is_leader] == [leader]
    lease = await candidates.lease()
    assert lease["holderIdentity"] == leader.identity
    assert lease["leaseTransitions"] == 0


async def test_a_killed_leader_is_replaced_once_its_lease_has_run_out(candidates: Candidates) -> None:
    first = await candidates.start("pod-1")
    await leader_of(first, within=30)
    second = await candidates.start("pod-2")
    await asyncio.sleep(DURATION / 2)
    assert not second.is_leader
    await candidates.kill(first)
    renewed = (await candidates.lease())["renewTime"]
    await leader_of(second, within=DURATION * 5)
    lease = await candidates.lease()
    assert lease["leaseTransitions"] == 1
    # By the clock of this machine, on which both are.
    unled = datetime.fromisoformat(str(lease["acquireTime"])) - datetime.fromisoformat(str(renewed))
    assert unled.total_seconds() >= DURATION


async def test_a_released_lease_passes_on_at_once(candidates: Candidates) -> None:
    first = await candidates.start("pod-1")
    await leader_of(first, within=30)
    second = await candidates.start("pod-2")
    await asyncio.sleep(1)
    await first.release()
    assert not first.is_leader
    await leader_of(second, within=DURATION / 2)


async def test_a_restarted_holder_goes_on_at_once(candidates: Candidates) -> None:
    first = await candidates.start("pod-1")
    await leader_of(first, within=30)
    await candidates.kill(first)
    again = await candidates.start("pod-1")
    await leader_of(again, within=DURATION / 2)


async def test_a_leader_that_cannot_reach_the_server_stops_leading(
    candidates: Candidates, api_server: ControlPlane
) -> None:
    first = await candidates.start("pod-1")
    await leader_of(first, within=30)
    await asyncio.to_thread(api_server.stop_apiserver)
    try:
        await asyncio.wait_for(first.lost.wait(), 4 * (RENEW + RETRY + 2))
    finally:
        await asyncio.to_thread(api_server.start_apiserver)
    second = await candidates.start("pod-2")
    await leader_of(second, within=4 * (DURATION + 8))
    assert not first.is_leader
