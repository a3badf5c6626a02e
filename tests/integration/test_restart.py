"""The operator ends at any moment, and its successor goes on from there: nothing twice, nothing lost, no pin moved."""

import itertools
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dev.controlplane import ControlPlane
from dev.hub import HubThread, Repository
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, install
from dev.registry import Registry
from modelswarm.api.labels import TASK
from modelswarm.content.endpoints import Endpoints
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.settings import OperatorSettings
from tests.integration.killing import Died, Fate, KillingKube, life, normal
from tests.integration.support import Api, Manifest, open_model, playground

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

    def is_pinned(self) -> bool:
        """Whether what the hub said has been written down."""
        return bool(self.api.all("ConfigMap", NAMESPACE, labels=f"{OURS},{TASK}"))


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


def _apply_v1(stage: Stage) -> None:
    _apply_pair(stage)


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
UPDATE = Scenario(before=_apply_v1, user=_apply_v2, blow=_move_branches)
DELETE = Scenario(user=_apply_pair, blow=_delete_model, healed=_heal_model)
REPIN = Scenario(before=_apply_pair, user=_lose_manifest)


@pytest.fixture(scope="module")
def bare_cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as running:
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
        made = Stage(api, KubeClient(client), repository, (first, second), endpoints, ssl.create_default_context())
        yield made
        made.wipe()
    await client.close()


async def _play(stage: Stage, scenario: Scenario, kube: KillingKube) -> Snapshot:
    """The scenario from an empty cluster to its end; restarted once if ``kube`` dies."""
    stage.wipe()
    scenario.before(stage)
    await stage.live()
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
@pytest.mark.parametrize("fate", [pytest.param(fate, id=fate) for fate in Fate])
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(CREATE, id="an OpenModel and a Playground are new"),
        pytest.param(UPDATE, id="a serving Playground goes from v1 to v2"),
        pytest.param(DELETE, id="the OpenModel is deleted at that moment"),
        pytest.param(REPIN, id="a manifest was deleted by hand"),
    ],
)
async def test_operator_killed_between_any_two_writes(stage: Stage, scenario: Scenario, fate: Fate) -> None:
    references = [await _reference(stage, scenario, index) for index in (0, 1)]
    for at in itertools.count():
        pinned: list[bool] = []

        def blow(pinned: list[bool] = pinned) -> None:
            pinned.append(stage.is_pinned())
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
        assert [] in differences, (f"{fate}, write {at}: {kube.writes[at]}", differences)
    assert at > (1 if scenario is REPIN else 10), f"only {at} writes were ever made"


async def _reference(stage: Stage, scenario: Scenario, index: int) -> Snapshot:
    """The end of an undisturbed run, with the branches at one of the two commits; a restart there writes nothing."""

    def user(stage: Stage) -> None:
        stage.move_branches(index)
        scenario.user(stage)

    final = await _play(stage, Scenario(before=scenario.before, user=user), KillingKube(stage.kube))
    successor = await stage.live()
    assert successor.writes == []
    return final


def _differences(have: Snapshot, wanted: Snapshot) -> list[str]:
    """One line per object that is too many, missing or different."""
    lines = [f"too many: {key}" for key in have.keys() - wanted.keys()]
    lines += [f"missing: {key}" for key in wanted.keys() - have.keys()]
    common = (key for key in have.keys() & wanted.keys() if have[key] != wanted[key])
    return sorted(lines + [f"{key}: {have[key]} is not {wanted[key]}" for key in common])
