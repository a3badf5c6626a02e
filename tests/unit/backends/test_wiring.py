"""From the operator's settings to the engines."""

import httpx
import pytest

from modelswarm.backends.bittorrent import nodes as bittorrent
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.resolve import Resolver
from modelswarm.engines import NodePlatforms, engines, read_token
from modelswarm.errors import EngineError, Forbidden, SettingsError
from modelswarm.kube.kinds import Kind
from modelswarm.kube.port import Listing
from modelswarm.kube.store import Store
from modelswarm.settings import OperatorSettings
from tests.unit.controllers.fake_kube import FakeKube, world

MANAGER = "http://dragonfly-manager:8080"


def test_without_a_manager_there_is_no_dragonfly() -> None:
    assert OperatorSettings.load([], {}).dragonfly() is None
    assert OperatorSettings.load([], {"MODELSWARM_DRAGONFLY_MANAGER_URL": ""}).dragonfly() is None


def test_settings_come_from_the_environment() -> None:
    settings = OperatorSettings.load(
        ["--dragonfly-job-gib", "2"],
        {
            "MODELSWARM_DRAGONFLY_MANAGER_URL": f"{MANAGER}/",
            "MODELSWARM_DRAGONFLY_CLUSTERS": "1, 3",
            "MODELSWARM_DRAGONFLY_IMAGE_IDS": "url",
            "MODELSWARM_DRAGONFLY_IMAGE_HOSTS": "docker.io=https://mirror.internal/",
            "MODELSWARM_DRAGONFLY_ALLOW_GATED": "true",
            "MODELSWARM_DRAGONFLY_SCHEDULERS": "1=scheduler-0.dragonfly:8002, 3=10.0.0.7:8002",
            "MODELSWARM_DRAGONFLY_CHECK_SECONDS": "60",
        },
    ).dragonfly()
    assert settings is not None
    assert (settings.manager_url, settings.clusters, settings.job_bytes) == (MANAGER, (1, 3), 2 << 30)
    assert (settings.digest_ids, settings.allow_gated) == (False, True)
    assert settings.image_hosts == {"docker.io": "https://mirror.internal"}
    assert settings.schedulers == {1: "scheduler-0.dragonfly:8002", 3: "10.0.0.7:8002"}
    assert settings.check_seconds == 60


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRAGONFLY_MANAGER_URL", "manager:8080"),
        ("DRAGONFLY_MANAGER_URL", "http://user:pass@manager"),
        ("DRAGONFLY_CLUSTERS", "one"),
        ("DRAGONFLY_SEED_COUNT", "0"),
        ("DRAGONFLY_JOB_FILES", "1000"),
        ("DRAGONFLY_IMAGE_IDS", "both"),
        ("DRAGONFLY_SCHEDULERS", "one=scheduler:8002"),
        ("DRAGONFLY_SCHEDULERS", "1=http://scheduler:8002"),
        ("DRAGONFLY_SCHEDULERS", "1=scheduler"),
        ("DRAGONFLY_CHECK_SECONDS", "-1"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        OperatorSettings.load([], {f"MODELSWARM_{name}": value})


DRAGONFLY = {"dragonfly_manager_url": MANAGER}


@pytest.mark.parametrize(
    ("settings", "agents", "order"),
    [
        pytest.param({}, False, "Direct", id="nothing is configured"),
        pytest.param(DRAGONFLY, False, "Dragonfly Direct", id="a manager"),
        pytest.param({}, True, "BitTorrent Direct", id="agents"),
        pytest.param(DRAGONFLY, True, "Dragonfly BitTorrent Direct", id="both"),
        pytest.param({**DRAGONFLY, "engine": "BitTorrent"}, True, "BitTorrent Dragonfly Direct", id="a preference"),
        pytest.param({**DRAGONFLY, "engine": "Direct"}, True, "Direct Dragonfly BitTorrent", id="only if a task asks"),
    ],
)
async def test_auto_tries_engines_in_this_order(settings: dict[str, str], agents: bool, order: str) -> None:
    scene = world(FakeKube(), **settings)
    async with httpx.AsyncClient() as http:
        nodes = bittorrent.Nodes(Store()) if agents else None
        found = engines(scene, http, Endpoints(), Resolver(http, Endpoints()), nodes)
    assert " ".join(engine.name for engine in found) == order


async def test_the_token_is_read_from_its_secret_and_its_absence_explained() -> None:
    kube = FakeKube()
    scene = world(kube)
    with pytest.raises(EngineError, match="llmaz-system/dragonfly-token does not exist") as raised:
        await read_token(scene)
    assert raised.value.reason == "Unauthorized"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "dragonfly-token", "namespace": "llmaz-system"},
    }
    kube.put({**secret, "data": {"token": "cGF0Cg=="}})
    assert await read_token(scene) == "pat"
    kube.put({**secret, "data": {}})
    with pytest.raises(EngineError, match="no key 'token'"):
        await read_token(scene)


class Nodes(FakeKube):
    """Answers a LIST with nodes of these architectures, or refuses it."""

    architectures: tuple[str, ...] | None = None

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Listing:
        if self.architectures is None:
            raise Forbidden("no")
        return Listing(
            [
                {"status": {"nodeInfo": {"operatingSystem": "linux", "architecture": architecture}}}
                for architecture in self.architectures
            ]
        )


async def test_the_platforms_are_those_of_the_nodes() -> None:
    kube = Nodes()
    kube.architectures = ("amd64", "arm64", "amd64")
    assert await NodePlatforms(world(kube))() == ("linux/amd64", "linux/arm64")


async def test_nodes_that_may_not_be_listed_are_not_known() -> None:
    assert await NodePlatforms(world(Nodes()))() == ()
