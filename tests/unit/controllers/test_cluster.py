from datetime import datetime
from typing import Any

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.controllers.cluster import (
    LLMAZ_LEASE,
    ClusterState,
    ClusterWatch,
    GlobalConfig,
    living_holder,
    parse_global_config,
)
from modelswarm.errors import Forbidden, Unavailable
from tests.unit.controllers.fake_kube import FakeKube
from tests.unit.controllers.objects import NOW, later

BEFORE = GlobalConfig("old-scheduler", "old/loader:v1")
BROKEN = "ConfigMap llmaz-global-config: key config.data is not a YAML mapping; using the last good values"
KEPT = GlobalConfig("old-scheduler", "old/loader:v1", BROKEN)


def config_map(text: str | None) -> JsonObject:
    metadata: JsonObject = {"name": "llmaz-global-config", "namespace": "llmaz-system"}
    data: JsonObject = {} if text is None else {"config.data": text}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(None, GlobalConfig(), id="no ConfigMap: the defaults"),
        pytest.param(config_map(None), GlobalConfig(), id="no key: the defaults"),
        pytest.param({"metadata": {"name": "x"}}, GlobalConfig(), id="no data: the defaults"),
        pytest.param(config_map(""), GlobalConfig(), id="empty: the defaults"),
        pytest.param(config_map("# nothing\n"), GlobalConfig(), id="a comment: the defaults"),
        pytest.param(
            config_map("scheduler-name: volcano\ninit-container-image: mirror/loader:v2\n"),
            GlobalConfig("volcano", "mirror/loader:v2"),
            id="both keys",
        ),
        pytest.param(config_map("scheduler-name: volcano"), GlobalConfig("volcano"), id="only the scheduler"),
        pytest.param(
            config_map("init-container-image: ' mirror/loader:v2 '"),
            GlobalConfig(None, "mirror/loader:v2"),
            id="blanks around it do not count",
        ),
        pytest.param(config_map("scheduler-name: ''"), GlobalConfig(), id="an empty value is none"),
        pytest.param(config_map("scheduler-name:"), GlobalConfig(), id="no value is none"),
        pytest.param(config_map("scheduler-name: 5"), GlobalConfig("5"), id="a number is a name"),
        pytest.param(config_map("other: x"), GlobalConfig(), id="unknown keys do not matter"),
        pytest.param(config_map("just text"), KEPT, id="text: the last good values"),
        pytest.param(config_map("- a list"), KEPT, id="a list: the last good values"),
        pytest.param(config_map("a: [b"), KEPT, id="no YAML: the last good values"),
        pytest.param(config_map("a: 2024-13-13"), KEPT, id="a date that is none"),
        pytest.param(config_map("!!python/object:os.system {}"), KEPT, id="no Python objects"),
    ],
)
def test_parse_global_config(given: JsonObject | None, expected: GlobalConfig) -> None:
    assert parse_global_config(given, BEFORE) == expected


def test_a_repaired_config_has_no_problem_any_more() -> None:
    broken = parse_global_config(config_map("["), BEFORE)
    assert parse_global_config(config_map("scheduler-name: volcano"), broken) == GlobalConfig("volcano")


def lease(**spec: Any) -> JsonObject:
    metadata: JsonObject = {"name": LLMAZ_LEASE, "namespace": "llmaz-system"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def held(*, by: str = "llmaz-0", at: datetime = NOW, seconds: int | None = 15) -> JsonObject:
    spec: dict[str, Any] = {"holderIdentity": by, "renewTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    if seconds is not None:
        spec["leaseDurationSeconds"] = seconds
    return lease(**spec)


@pytest.mark.parametrize(
    ("given", "holder"),
    [
        pytest.param(None, None, id="no Lease"),
        pytest.param({"metadata": {}}, None, id="no spec"),
        pytest.param(lease(), None, id="never held"),
        pytest.param(lease(holderIdentity="x"), None, id="never renewed"),
        pytest.param(held(by=""), None, id="given up"),
        pytest.param(held(at=later(-1)), "llmaz-0", id="renewed just now"),
        pytest.param(held(at=later(-15)), "llmaz-0", id="renewed just in time"),
        pytest.param(held(at=later(-15.5)), None, id="expired"),
        pytest.param(held(at=later(-50), seconds=60), "llmaz-0", id="its own duration counts"),
        pytest.param(held(at=later(-14), seconds=None), "llmaz-0", id="without a duration it is 15 s"),
        pytest.param(held(at=later(5)), "llmaz-0", id="a clock that is ahead of ours"),
    ],
)
def test_living_holder(given: JsonObject | None, holder: str | None) -> None:
    assert living_holder(given, NOW) == holder


def test_living_holder_reads_offsets() -> None:
    spec: dict[str, Any] = {"holderIdentity": "x", "renewTime": "2025-06-01T14:00:00.000000+02:00"}
    assert living_holder(lease(**spec), NOW) == "x"


def watch(kube: FakeKube) -> tuple[ClusterWatch, ClusterState]:
    state = ClusterState()
    cluster = ClusterWatch(
        kube,
        state,
        namespace="llmaz-system",
        llmaz_namespace="llmaz-system",
        changed=lambda: None,
        clock=lambda: NOW,
    )
    return cluster, state


async def test_a_look_says_whether_something_changed() -> None:
    kube = FakeKube()
    cluster, state = watch(kube)
    assert not await cluster.look()
    kube.put(config_map("scheduler-name: volcano"))
    kube.put(held())
    assert await cluster.look()
    assert (state.config.scheduler_name, state.llmaz_holder) == ("volcano", "llmaz-0")
    assert not await cluster.look()
    kube.put(held(at=later(-100)))
    assert await cluster.look()
    assert state.llmaz_holder is None


@pytest.mark.parametrize("error", [Unavailable("no answer"), Forbidden("no")], ids=["no answer", "forbidden"])
async def test_what_cannot_be_read_stays_as_it_was(error: Unavailable | Forbidden) -> None:
    kube = FakeKube()
    cluster, state = watch(kube)
    kube.put(config_map("scheduler-name: volcano"))
    kube.put(held())
    await cluster.look()
    kube.faults["get", "llmaz-global-config"] = [error]
    kube.faults["get", LLMAZ_LEASE] = [error]
    assert not await cluster.look()
    assert (state.config.scheduler_name, state.llmaz_holder) == ("volcano", "llmaz-0")


async def test_a_broken_config_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    kube = FakeKube()
    cluster, _ = watch(kube)
    kube.put(config_map("["))
    await cluster.look()
    await cluster.look()
    assert [record.getMessage() for record in caplog.records] == [BROKEN]
