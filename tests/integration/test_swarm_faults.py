"""Origins that fail, peers that lie, an API server that is away, and clocks that differ."""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dev.agents import AGENT_NAMESPACE
from dev.hub import Hub, HubThread, Kind, RateLimit, Repository, ServerError, Slow, Truncate, WrongBytes
from tests.integration.support import eventually, throughout
from tests.integration.support.fleet import MIB, SEGMENT, SOAK, Swarm, Swarms, model_files, soak, still
from tests.integration.support.hostile import Hostile, climbing, dripping, endless, garbage, nothing, refusing
from tests.integration.support.ome import OME_CRDS, base_model

SECRET = "a secret of the agents of these tests"


@pytest.fixture(scope="module")
def three(swarms: Swarms) -> Iterator[Swarm]:
    swarms.cluster.apply(OME_CRDS)
    with swarms(3) as swarm:
        yield swarm


@pytest.fixture
def swarm(three: Swarm) -> Iterator[Swarm]:
    yield three
    three.clean()


# The origin


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "reason", "change"),
    [
        pytest.param(404, "SourceNotFound", {}, id="404, and after a minute it is there"),
        pytest.param(401, "AccessDenied", {"pin": True}, id="401, and somebody changes the task"),
    ],
)
def test_what_the_origin_refuses_is_said_and_tried_again(
    swarm: Swarm, status: int, reason: str, change: dict[str, bool]
) -> None:
    model = swarm.publish()
    swarm.hub.fail(f"{model.id}/model-1.safetensors", ServerError(status))
    task = swarm.distribute(model)

    def look() -> set[str]:
        found = {failure["reason"] for failure in swarm.status(task).get("failures", [])}
        assert found == {reason}, swarm.status(task)
        return found

    eventually(look, 60)
    content = swarm.digest(task)
    assert not any(swarm.is_complete(node, content) for node in swarm.nodes)
    swarm.hub.faults.clear()
    swarm.distribute(model, **change)
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)


def test_asked_to_wait_the_whole_cluster_waits_once(swarm: Swarm) -> None:
    model = swarm.publish(shards=4)
    swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=2 * MIB), on=Kind.CDN)
    rule = swarm.hub.fail(f"{model.id}/model-*", RateLimit(retry_after=20), on=Kind.RESOLVE, skip=4, times=1)
    task = swarm.distribute(model)
    eventually(lambda: rule.hits, 60, 0.01)
    # What was under way may end; a node that has not heard of it yet may begin something.
    still(lambda: rule.seen, 2.5, within=12)
    assert swarm.sent(model) < swarm.size(model)
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    assert rule.hits == 1
    assert swarm.sent(model) == swarm.size(model)


def test_answers_that_end_early_are_gone_on_with(swarm: Swarm) -> None:
    model = swarm.publish()
    rule = swarm.hub.fail(f"{model.id}/*", Truncate(after=700_000), on=Kind.CDN, times=8)
    task = swarm.distribute(model)
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    assert rule.hits == 8
    # What was on the way when a connection ended may be sent again.
    assert swarm.sent(model) <= swarm.size(model) + 8 * (256 << 10)


def test_wrong_bytes_from_the_origin_once_are_read_again(swarm: Swarm) -> None:
    model = swarm.publish()
    rule = swarm.hub.fail(f"{model.id}/model-0.safetensors", WrongBytes(offset=3 * MIB), on=Kind.CDN, times=2)
    task = swarm.distribute(model)
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    assert rule.hits
    assert swarm.sent(model) <= swarm.size(model) + 12 * MIB


def test_the_hub_is_away_for_a_while(swarm: Swarm, swarms: Swarms) -> None:
    model = swarm.publish()
    swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=MIB), on=Kind.CDN)
    task = swarm.distribute(model)
    eventually(lambda: swarm.sent(model) > 0.3 * swarm.size(model), 60)
    swarms.hub.stop()
    time.sleep(20 if SOAK else 8)  # the outage itself
    swarms.hub.start()
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) <= 1.2 * swarm.size(model)


@pytest.fixture
def restless(swarm: Swarm) -> Iterator[Repository]:
    """A branch that moves between two commits all the time."""
    repository = swarm.publish()
    # Of bytes that no node has from another test.
    commits = [repository.head, repository.commit(model_files(f"{repository.id} moved"))]
    stop = threading.Event()

    def move() -> None:
        while not stop.wait(0.02):
            commits.reverse()
            repository.move("main", commits[0])

    thread = threading.Thread(target=move)
    thread.start()
    yield repository
    stop.set()
    thread.join()


def test_a_branch_that_moves_all_the_time_gives_one_commit(swarm: Swarm, restless: Repository) -> None:
    task = swarm.distribute(restless)
    now = swarm.succeeded(task)
    swarm.is_right(restless, now["resolved"]["digest"], swarm.nodes, now["resolved"]["revision"])


def test_a_base_model_of_a_branch_that_moves_all_the_time_is_of_one_commit(swarm: Swarm, restless: Repository) -> None:
    name = f"base-{swarm.name}"
    swarm.api.apply(base_model(name, f"hf://{restless.id}", nodeSelector={"fleet": swarm.name}))
    try:
        complete = eventually(lambda: _complete_models(swarm, restless), 60)
        assert len(complete) == 1
        content = complete.pop()
        commit = swarm.lease(restless)["metadata"]["annotations"]["modelswarm.io/commit"]
        swarm.is_right(restless, content, swarm.nodes, commit)
        assert swarm.sent(restless) == swarm.size(restless, commit)
    finally:
        swarm.api.delete("ClusterBaseModel", name)
    # What a BaseModel brought goes with it.
    eventually(lambda: not any(swarm.directory(node, content).exists() for node in swarm.nodes), 30)


def _complete_models(swarm: Swarm, repository: Repository) -> set[str]:
    """The contents, once every node says that it has the model."""
    found: set[str] = set()
    for node in swarm.nodes:
        models = (swarm.api.find("NodeCache", node) or {}).get("status", {}).get("models", [])
        ready = [each for each in models if each["name"] == repository.id and each["state"] == "Ready"]
        assert ready, models
        found |= {str(each["content"]) for each in ready}
    return found


# The API server and clocks


def test_without_the_api_server_a_download_goes_on_and_ends(swarms: Swarms) -> None:
    with swarms(3, MODELSWARM_AGENT_LEASE_SECONDS="120") as swarm:
        model = swarm.publish()
        swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=80 << 10), on=Kind.CDN)
        task = swarm.distribute(model)
        content = swarm.digest(task)
        # Every node knows the list of files and who coordinates.
        eventually(lambda: all(swarm.entry(node, content).get("state") == "Fetching" for node in swarm.nodes), 30)
        eventually(lambda: swarm.sent(model) > 0.3 * swarm.size(model), 60)
        with swarm.without_api_server():
            swarm.all_complete(swarm.nodes, content)
        swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
        assert swarm.sent(model) == swarm.size(model)


@soak
def test_an_api_server_that_is_away_for_longer_than_the_lease_only_delays(swarm: Swarm) -> None:
    model = swarm.publish()
    swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=MIB // 2), on=Kind.CDN)
    task = swarm.distribute(model)
    eventually(lambda: swarm.sent(model) > 0.2 * swarm.size(model), 60)
    with swarm.without_api_server():
        time.sleep(6)  # longer than the lease
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) <= 1.2 * swarm.size(model)
    assert swarm.hub.counters.twice_at_once() == []


def test_a_holder_whose_clock_is_wrong_is_respected_while_it_renews_and_no_longer(swarm: Swarm) -> None:
    model = swarm.publish()
    name = _lease_name(model, model.head)
    ghost = threading.Event()

    def renew() -> None:
        """An hour behind, and it is written every second all the same."""
        while not ghost.wait(0.7):
            past = datetime.now(UTC) - timedelta(hours=1)
            swarm.api.apply(_lease(name, "ghost", past, seconds=15))

    swarm.api.apply(_lease(name, "ghost", datetime.now(UTC) - timedelta(hours=1), seconds=15))
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        task = swarm.distribute(model)
        swarm.digest(task)
        throughout(lambda: swarm.sent(model) == 0, 20.0)
    finally:
        ghost.set()
        thread.join()
    swarm.is_right(model, swarm.succeeded(task)["resolved"]["digest"], swarm.nodes)
    assert swarm.sent(model) == swarm.size(model)


@soak
def test_a_holder_that_wrote_a_time_far_ahead_is_not_waited_for(swarm: Swarm) -> None:
    model = swarm.publish()
    name = _lease_name(model, model.head)
    swarm.api.apply(_lease(name, "ghost", datetime.now(UTC) + timedelta(hours=5), seconds=3))
    swarm.is_right(model, swarm.succeeded(swarm.distribute(model))["resolved"]["digest"], swarm.nodes)


def _lease_name(model: Repository, revision: str) -> str:
    return "ome-model-" + hashlib.sha256(f"{model.id}@{revision}".encode()).hexdigest()[:16]


def _lease(name: str, holder: str, moment: datetime, *, seconds: int) -> dict[str, object]:
    stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    annotations = {"modelswarm.io/coordinator": "http://127.0.0.9:8081", "modelswarm.io/epoch": "1"}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": AGENT_NAMESPACE,
            "labels": {"ome.io/type": "model-download"},
            "annotations": {**annotations, "modelswarm.io/segment-bytes": str(SEGMENT)},
        },
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": seconds,
            "acquireTime": stamp,
            "renewTime": stamp,
            "leaseTransitions": 0,
        },
    }


# Peers


def test_hostile_peers_cost_little_time_and_change_nothing(swarm: Swarm) -> None:
    """For those who fetch it first, and for those who come late and look for seeders."""
    kinds = (garbage, endless, nothing, dripping, refusing, climbing)
    with contextlib.ExitStack() as stack:
        peers = [
            stack.enter_context(Hostile(swarm.address(number), kind)) for number, kind in enumerate(kinds, start=1)
        ]
        model = swarm.publish()
        task = swarm.distribute(model, placement={"copies": 1})
        content = swarm.succeeded(task, 1)["resolved"]["digest"]
        swarm.distribute(model)
        swarm.succeeded(task, 3, seconds=60)
        swarm.is_right(model, content, swarm.nodes)
        assert swarm.sent(model) == swarm.size(model)
        assert all(peer.asked for peer in peers)
    for node in swarm.nodes:
        assert not list(swarm.agent(node).store.rglob("*escape*"))


def test_a_node_whose_origin_lies_does_not_mislead_the_others(swarms: Swarms) -> None:
    """It publishes wrong bytes with hashes that fit them, and serves them: only the hub's digest tells."""
    with swarms(2) as swarm, contextlib.ExitStack() as stack:
        model = swarm.publish()
        liar_hub = stack.enter_context(HubThread(Hub(model)))
        for number in range(3):
            liar_hub.hub.fail(f"{model.id}/model-{number}.safetensors", WrongBytes(offset=MIB * (2 * number + 1)))
        [liar] = swarm.add("liar", HF_ENDPOINT=liar_hub.url)
        honest = [node for node in swarm.nodes if node != liar]
        # So slow that something is left for the liar, however late it comes.
        swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=200 << 10), on=Kind.CDN)
        task = swarm.distribute(model)
        content = swarm.digest(task)
        swarm.all_complete(honest, content)
        swarm.is_right(model, content, honest)
        if swarm.is_complete(liar, content):
            swarm.is_right(model, content, [liar])
        assert liar_hub.hub.counters.total(Kind.CDN).content, "the liar has read nothing"


def test_a_seed_whose_files_were_damaged_on_its_disk_misleads_nobody(swarm: Swarm) -> None:
    """It goes on to serve what it believes to have; the pieces' hashes tell."""
    damaged, good, late = swarm.nodes
    model = swarm.publish()
    for node in (damaged, good):
        swarm.label(node, kind="first")
    task = swarm.distribute(model, placement={"nodeSelector": {"fleet": swarm.name, "kind": "first"}})
    content = swarm.succeeded(task, 2)["resolved"]["digest"]
    for path in swarm.directory(damaged, content).glob("model-*.safetensors"):
        _damage(path)
    swarm.hub.counters.reset()
    swarm.distribute(model, placement={"nodeSelector": {"fleet": swarm.name}})
    swarm.all_complete([late], content)
    swarm.is_right(model, content, [good, late])
    for node in (damaged, good):
        swarm.label(node, kind=None)


def _damage(path: Path) -> None:
    """As a disk does it: nobody is told."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        for offset in range(0, before.st_size, MIB // 2):
            file.seek(offset)
            file.write(b"damaged")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.chmod(before.st_mode)


def test_who_has_another_secret_gets_nothing(swarms: Swarms, tmp_path: Path) -> None:
    """And encryption is required of everybody."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text(SECRET)
    theirs.write_text(f"another {SECRET}")
    variable = "MODELSWARM_AGENT_PEER_SECRET_FILE"
    with swarms(3, P2P_ENCRYPTION_REQUIRED="true", **{variable: str(ours)}) as swarm:
        members = swarm.nodes
        [stranger] = swarm.add("stranger", **{variable: str(theirs)})
        for node in members:
            swarm.label(node, side="ours")
        model = swarm.publish()
        # So slow that nobody has all of it before the others have begun.
        swarm.hub.fail(f"{model.id}/*", Slow(bytes_per_second=300 << 10), on=Kind.CDN)
        task = swarm.distribute(model, placement={"nodeSelector": {"fleet": swarm.name, "side": "ours"}})
        content = swarm.succeeded(task, 3)["resolved"]["digest"]
        swarm.hub.faults.clear()
        swarm.is_right(model, content, members)
        assert swarm.sent(model) == swarm.size(model)
        # Their counters follow within some seconds.
        eventually(lambda: all(_peer_bytes(swarm, node) for node in members), 10)
        # What no peer gives it, it has to read from the origin.
        swarm.distribute(model, placement={"nodeSelector": {"fleet": swarm.name}})
        swarm.succeeded(task, 4)
        assert _peer_bytes(swarm, stranger) == 0
        assert swarm.sent(model) == 2 * swarm.size(model)


def _peer_bytes(swarm: Swarm, node: str) -> float:
    lines = swarm.agent(node).metrics().splitlines()
    found = [line for line in lines if line.startswith("ome_p2p_bytes_downloaded_total")]
    assert found, lines
    return sum(float(line.split()[-1]) for line in found)
