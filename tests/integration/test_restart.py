"""The operator ends at any moment, and its successor goes on from there: nothing twice, nothing lost, no pin moved."""

import itertools
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dev.audit import AuditEvent
from dev.controlplane import ControlPlane
from dev.hub import HubThread, Kind, Repository
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess, install
from dev.registry import Registry
from modelswarm.api.labels import TASK
from modelswarm.content.endpoints import Endpoints
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.settings import OperatorSettings
from tests.integration.killing import Died, Fate, KillingKube, life, normal
from tests.integration.support import Api, ApiFailed, Manifest, eventually, open_model, playground

OURS = "app.kubernetes.io/managed-by=modelswarm"
CHILDREN = ("P2PTask", "Deployment", "Service", "HorizontalPodAutoscaler", "ConfigMap")
REPOSITORY = "org/moving"
MODEL, PLAYGROUND, HOME = "moving", "moving", "default"

Snapshot = dict[tuple[str, str, str], Any]


# Between any two writes


@dataclass
class Stage:
    """A control plane without controllers (nothing moves that we do not move), a hub and a registry."""

    api: Api
    kube: KubeClient
    repository: Repository
    commits: tuple[str, str]
    endpoints: Endpoints
    trust: ssl.SSLContext
    settings: OperatorSettings = field(default_factory=OperatorSettings)
    known: set[str] = field(default_factory=set)
    """Manifests from before the user's change."""

    def objects(self) -> Iterator[Manifest]:
        """All that users and operators have made."""
        for kind in ("OpenModel", "Playground", *CHILDREN):
            for obj in self.api.all(kind, labels=OURS if kind in CHILDREN else ""):
                yield {"kind": kind, **obj}

    def snapshot(self) -> Snapshot:
        """What there is, comparable between runs. Whatever has an owner has a living one."""
        objects = list(self.objects())
        alive = {obj["metadata"]["uid"] for obj in objects}
        for obj in objects:
            owners = [reference["uid"] for reference in obj["metadata"].get("ownerReferences", [])]
            assert bool(owners) == (obj["kind"] in CHILDREN), f"{obj['kind']} {obj['metadata']['name']}: {owners}"
            assert alive.issuperset(owners), f"an orphan: {obj['kind']} {obj['metadata']['name']}"
        for obj in objects:
            for condition in obj.get("status", {}).get("conditions", []):
                # As in llmaz, it says Pending until the workload was seen unavailable once, and the other ever after.
                if condition["reason"] in ("Pending", "PlaygroundInProgress") and condition["type"] == "Progressing":
                    condition["reason"] = condition["message"] = "Pending or PlaygroundInProgress"
        return {_identity(obj): normal(obj) for obj in objects}

    def wipe(self) -> None:
        for obj in self.objects():
            self.api.delete(obj["kind"], obj["metadata"]["name"], obj["metadata"].get("namespace"))
        self.move_branches(0)

    def move_branches(self, index: int) -> None:
        for branch in ("main", "v2"):
            self.repository.move(branch, self.commits[index])

    def kubelet(self) -> bool:
        """Every Deployment becomes available, as if nodes ran its pods."""
        done = False
        for obj in self.api.all("Deployment", labels=OURS):
            metadata, replicas = obj["metadata"], obj["spec"]["replicas"]
            counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
            status = {"observedGeneration": metadata["generation"], **dict.fromkeys(counts, replicas)}
            if obj.get("status") != status:
                change = {"status": status}
                self.api.patch("Deployment", metadata["name"], metadata["namespace"], change, subresource="status")
                done = True
        return done

    def garbage_collector(self) -> bool:
        """What only has owners that are gone goes too."""
        objects = list(self.objects())
        alive = {obj["metadata"]["uid"] for obj in objects}
        orphans = [
            obj
            for obj in objects
            if (owners := obj["metadata"].get("ownerReferences")) and alive.isdisjoint(owner["uid"] for owner in owners)
        ]
        for obj in orphans:
            self.api.delete(obj["kind"], obj["metadata"]["name"], obj["metadata"]["namespace"])
        return bool(orphans)

    def others(self) -> bool:
        return self.kubelet() | self.garbage_collector()

    async def live(self, kube: KillingKube | None = None) -> KillingKube:
        """One process from its start until nothing is left to do or it dies."""
        kube = kube or KillingKube(self.kube)
        async with life(kube, self.endpoints, self.settings, self.trust) as process:
            try:
                await process.converge(self.others)
            except Died:
                assert kube.dead
        return kube

    def manifests(self) -> set[str]:
        """Which of the hub's answers have been written down."""
        return {obj["metadata"]["name"] for obj in self.api.all("ConfigMap", NAMESPACE, labels=f"{OURS},{TASK}")}


def _identity(obj: Manifest) -> tuple[str, str, str]:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


@dataclass(frozen=True)
class Scenario:
    """``before`` is brought to rest undisturbed; from ``user`` on death may strike, and with it comes ``blow``."""

    user: Callable[[Stage], None]
    before: Callable[[Stage], None] = lambda stage: None
    blow: Callable[[Stage], None] = lambda stage: None
    healed: Callable[[Stage], None] | None = None
    """What puts right what the blow did, once the successor has come to rest."""


def _apply_pair(stage: Stage) -> None:
    stage.api.apply(open_model(MODEL, REPOSITORY))
    _apply(stage, playground(PLAYGROUND, MODEL))


def _apply_v2(stage: Stage) -> None:
    source = {"modelHub": {"modelID": REPOSITORY, "revision": "v2"}}
    stage.api.apply(open_model(MODEL, source))
    _apply(stage, playground(PLAYGROUND, MODEL, backendName="vllm", version="main"))


def _apply(stage: Stage, obj: Manifest) -> None:
    stage.api.apply({**obj, "metadata": {**obj["metadata"], "namespace": HOME}})


def _move_branches(stage: Stage) -> None:
    stage.move_branches(1)


def _delete_model(stage: Stage) -> None:
    stage.api.delete("OpenModel", MODEL)


def _heal_model(stage: Stage) -> None:
    """Nothing of the deleted model is left, and the Playground says so; then the model comes back."""
    assert not stage.api.all("P2PTask", NAMESPACE)
    assert not stage.api.all("ConfigMap", NAMESPACE, labels=OURS)
    conditions = stage.api.get("Playground", PLAYGROUND, HOME)["status"]["conditions"]
    assert any("Waiting for model creation" in condition["message"] for condition in conditions), conditions
    stage.api.apply(open_model(MODEL, REPOSITORY))


def _lose_manifest(stage: Stage) -> None:
    for config_map in stage.api.all("ConfigMap", NAMESPACE, labels=f"{OURS},{TASK}"):
        stage.api.delete("ConfigMap", config_map["metadata"]["name"], NAMESPACE)
    _move_branches(stage)


CREATE = Scenario(user=_apply_pair, blow=_move_branches)
UPDATE = Scenario(before=_apply_pair, user=_apply_v2, blow=_move_branches)
DELETE = Scenario(user=_apply_pair, blow=_delete_model, healed=_heal_model)
REPIN = Scenario(before=_apply_pair, user=_lose_manifest)


@pytest.fixture(scope="module")
def bare_cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False, audit_log=True) as running:
        install(running)
        yield running


@pytest.fixture
async def stage(bare_cluster: ControlPlane, hub_server: HubThread, registry: Registry) -> AsyncIterator[Stage]:
    repository = hub_server.hub.add(Repository(REPOSITORY))
    first, second = (repository.commit({"config.json": b"{}", "model.bin": data}) for data in (b"1", b"2"))
    configuration = await load_configuration(bare_cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT))
    endpoints = Endpoints(huggingface=hub_server.url, registries={"docker.io": registry.url})
    client = open_client(configuration)
    with Api(bare_cluster) as api:
        eventually(lambda: _is_served(api, "OpenModel", "Playground", "P2PTask"))
        made = Stage(api, KubeClient(client), repository, (first, second), endpoints, ssl.create_default_context())
        yield made
        made.wipe()
    await client.close()


def _is_served(api: Api, *kinds: str) -> bool:
    """An established CRD is not served before its storage is ready, a moment later."""
    try:
        return all(api.all(kind) is not None for kind in kinds)
    except ApiFailed:
        return False


async def _play(stage: Stage, scenario: Scenario, kube: KillingKube) -> Snapshot:
    """The scenario from an empty cluster to its end; restarted once if ``kube`` dies."""
    stage.wipe()
    scenario.before(stage)
    await stage.live()
    stage.known = stage.manifests()
    scenario.user(stage)
    await stage.live(kube)
    if kube.dead:
        await stage.live()
    if kube.struck and scenario.healed is not None:
        while stage.others():
            pass
        scenario.healed(stage)
        await stage.live()
    return stage.snapshot()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "fate"),
    # To the API server, dying after write k is dying before write k + 1; one long scenario has both all the same.
    [
        pytest.param(CREATE, Fate.BEFORE, id="an OpenModel and a Playground are new: dies before the write"),
        pytest.param(CREATE, Fate.AFTER, id="an OpenModel and a Playground are new: dies after the write"),
        pytest.param(CREATE, Fate.LOST_ANSWER, id="an OpenModel and a Playground are new: the answer is lost"),
        pytest.param(UPDATE, Fate.BEFORE, id="a serving Playground goes from v1 to v2: dies before the write"),
        pytest.param(UPDATE, Fate.LOST_ANSWER, id="a serving Playground goes from v1 to v2: the answer is lost"),
        pytest.param(DELETE, Fate.BEFORE, id="the OpenModel is deleted when it dies"),
        pytest.param(REPIN, Fate.BEFORE, id="a manifest was deleted by hand: dies before the write"),
        pytest.param(REPIN, Fate.AFTER, id="a manifest was deleted by hand: dies after the write"),
        pytest.param(REPIN, Fate.LOST_ANSWER, id="a manifest was deleted by hand: the answer is lost"),
        pytest.param(REPIN, Fate.REFUSED, id="a manifest was deleted by hand: the write is lost"),
    ],
)
async def test_operator_killed_between_any_two_writes(stage: Stage, scenario: Scenario, fate: Fate) -> None:
    references = [await _reference(stage, scenario, index) for index in (0, 1)]
    for at in itertools.count():
        pinned: list[bool] = []

        def blow(pinned: list[bool] = pinned) -> None:
            pinned.append(stage.manifests() != stage.known)
            scenario.blow(stage)

        kube = KillingKube(stage.kube, at=at, fate=fate, strikes=blow)
        final = await _play(stage, scenario, kube)
        if not kube.struck:
            break
        if scenario.blow is not _move_branches or pinned[0]:
            allowed = references[:1]
        else:  # whoever survives a lost answer may have heard from the hub already
            allowed = references[1:] if kube.dead else references
        differences = [_differences(final, reference) for reference in allowed]
        assert [] in differences, "\n".join([f"{fate}, write {at}: {kube.writes[at]}", *min(differences, key=len)])
    assert at > (0 if scenario is REPIN else 10), f"only {at} writes were ever made"


async def _reference(stage: Stage, scenario: Scenario, index: int) -> Snapshot:
    """The end of an undisturbed run, with the branches at one of the two commits; a restart there writes nothing."""

    def user(stage: Stage) -> None:
        stage.move_branches(index)
        scenario.user(stage)

    final = await _play(stage, Scenario(before=scenario.before, user=user), KillingKube(stage.kube))
    successor = await stage.live()
    assert successor.writes == []
    return final


# The process itself


@pytest.fixture
def start(
    bare_cluster: ControlPlane, hub_server: HubThread, registry: Registry, tmp_path: Path
) -> Iterator[Callable[[], OperatorProcess]]:
    """Starts another operator, on ports of its own, and waits until it leads."""
    kubeconfig = bare_cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
    started: list[OperatorProcess] = []

    def one_more() -> OperatorProcess:
        process = OperatorProcess(
            kubeconfig,
            tmp_path / "operator.log",
            # Without the Lease, because a killed holder's must run out first, every time.
            arguments=["--log-format=text", "--leader-elect=false", f"--registries=docker.io={registry.url}"],
            environment={"HF_ENDPOINT": hub_server.url},
        )
        started.append(process)
        process.start()
        process.wait_leading()
        return process

    yield one_more
    for process in started:
        process.kill()


@pytest.mark.slow
def test_operator_process_killed_at_any_moment_makes_everything_once(
    bare_cluster: ControlPlane, hub_server: HubThread, start: Callable[[], OperatorProcess]
) -> None:
    hub = hub_server.hub
    moments = random.Random(361)
    pairs = [f"pair-{number:02}" for number in range(10)]
    for name in pairs:
        repository = hub.add(Repository(f"org/{name}"))
        repository.move("main", repository.commit({"config.json": b"{}", "model.bin": name.encode()}))
    hub.counters.reset()
    since, deaths = _now(), list[str]()
    with Api(bare_cluster) as api:
        for name in pairs:
            process = start()
            api.apply(open_model(name, f"org/{name}"))
            obj = playground(name, name)
            api.apply({**obj, "metadata": {**obj["metadata"], "namespace": HOME}})
            # Not a wait for anything: the moment of death is what is tried out.
            time.sleep(moments.uniform(0.0, 0.3))
            process.kill()
            deaths.append(_now())
        process = start()
        eventually(lambda: all(api.find("Deployment", name, HOME) for name in pairs), 30)
        eventually(lambda: len(_ready_tasks(api)) == 3 * len(pairs), 30)
        tasks = {(task["metadata"].get("namespace"), task["metadata"]["name"]) for task in api.all("P2PTask")}
    events = [event for event in bare_cluster.audit_events() if event.received > since]
    for number, name in enumerate(pairs):
        written = _made([event for event in events if _is_manifest_of(name, event)]).received
        attempts = 1 + sum(moment < written for moment in deaths[number:])
        asked = hub.counters.total(Kind.API, f"*{name}*").requests
        assert 0 < asked <= attempts * REQUESTS_OF_A_RESOLUTION, (name, asked, attempts)
    created = Counter(
        (event.resource, event.namespace, event.name)
        for event in events
        if event.code == 201 and event.resource in ("p2ptasks", "deployments", "services", "configmaps")
    )
    assert max(created.values()) == 1, created.most_common(3)
    assert len(tasks) == 3 * len(pairs)
    assert {key[1:] for key in created if key[0] == "p2ptasks"} <= tasks, "and nothing was made that is gone again"
    # Whoever starts now finds everything done: the hub is not asked again.
    hub.counters.reset()
    process.kill()
    process = start()
    eventually(lambda: _reconciled(process) >= 5 * len(pairs), 20)
    assert hub.counters.total().requests == 0


def _now() -> str:
    """Comparable with the times in the audit log."""
    return datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


REQUESTS_OF_A_RESOLUTION = 2
"""What there is at the revision, and the tree of its files."""


def _is_manifest_of(name: str, event: AuditEvent) -> bool:
    wanted = event.resource == "configmaps" and event.namespace == NAMESPACE
    return wanted and event.name.startswith(f"model-{name}-")


def _made(events: list[AuditEvent]) -> AuditEvent:
    """The request that made an object. Where its sender died before the answer, the log says 500 or 504 although the
    object is there."""
    answered = [event for event in events if event.code == 201]
    return (answered or [event for event in events if event.verb in ("create", "patch") and event.code >= 500])[-1]


def _ready_tasks(api: Api) -> list[Manifest]:
    return [task for task in api.all("P2PTask") if task.get("status", {}).get("phase") == "Succeeded"]


def _reconciled(process: OperatorProcess) -> int:
    """How many reconciles have ended."""
    lines = (line for line in process.metrics().splitlines() if line.startswith("modelswarm_reconcile_total{"))
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def _differences(have: Any, wanted: Any, where: tuple[object, ...] = ()) -> list[str]:
    """One line per place where the two differ."""
    if have == wanted:
        return []
    if isinstance(have, dict) and isinstance(wanted, dict):
        keys = sorted({*have, *wanted}, key=str)
        return [line for key in keys for line in _differences(have.get(key), wanted.get(key), (*where, key))]
    if isinstance(have, list) and isinstance(wanted, list) and len(have) == len(wanted):
        pairs = enumerate(zip(have, wanted, strict=True))
        return [line for index, pair in pairs for line in _differences(*pair, (*where, index))]
    return [f"{where}: {have} instead of {wanted}"]
