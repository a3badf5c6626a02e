"""What is told of a node, decided from standings: NodeCache, labels, OME's names, Events."""

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from modelswarm.agent import omestatus
from modelswarm.agent.report import format_bytes, is_urgent, labels_of, news, ours, status_of
from modelswarm.agent.standing import Capacity, Standing, merged, of_noted, of_wanted
from modelswarm.agent.wanted import Claim, Noted, Wanted
from modelswarm.api.nodecache import MOST_MODELS, AgentStatus, ModelState, NodeCacheStatus
from modelswarm.api.openmodel import HubName
from modelswarm.content.source import HubSource

AGENT = AgentStatus(metainfo_url="http://10.0.0.1:8081", torrent_address="10.0.0.1:6881", version="1")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
TASK = Claim("P2PTask", "ns", "t", "u")
OME = Claim("ClusterBaseModel", "", "llama", "u")


def standing(number: int = 1, state: ModelState = ModelState.FETCHING, **fields: Any) -> Standing:
    return Standing(f"sha256:{number:064x}", "org/model", state, "c" * 40, **fields)


def status(*standings: Standing, capacity: Capacity | None = None, **labels: str) -> NodeCacheStatus:
    return status_of(standings, capacity or Capacity(), AGENT, labels)


def digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# NodeCache


def test_the_status_shows_counts_and_space() -> None:
    found = status(
        standing(1, ModelState.READY), standing(2), capacity=Capacity(total=3 << 30, used=1 << 30, free=2 << 30)
    )
    assert found.display.to_json() == {"models": "1/2", "size": "1.0Gi", "free": "2.0Gi"}
    assert (found.capacity_bytes, found.used_bytes, found.free_bytes) == (3 << 30, 1 << 30, 2 << 30)


def test_the_nodes_labels_are_shown_without_those_that_agents_write() -> None:
    """Or every model that becomes complete would be a change of the labels too."""
    labels = {"gpu": "a100", "content.modelswarm.io/0123": "Ready", "models.ome.io/clusterbasemodel.m": "Ready"}
    assert status_of([], Capacity(), AGENT, labels).labels == {"gpu": "a100"}
    assert ours(labels) == {name: "Ready" for name in labels if name != "gpu"}


def test_texts_are_cut_to_what_the_api_server_takes() -> None:
    long = Standing("sha256:" + "0" * 64, "n" * 999, ModelState.FAILED, "r" * 999, reason="R" * 999, message="m" * 999)
    [entry] = status(long).models
    assert [len(text or "") for text in (entry.name, entry.revision, entry.reason, entry.message)] == [
        256,
        128,
        64,
        256,
    ]


def test_of_too_many_models_those_that_somebody_wants_are_named() -> None:
    idle = [standing(number, ModelState.READY, ready_time=NOW) for number in range(MOST_MODELS + 5)]
    wanted = standing(MOST_MODELS + 50, claims=(TASK,))
    named = {entry.content for entry in status(*idle, wanted).models}
    assert len(named) == MOST_MODELS
    assert wanted.key in named


def test_a_source_is_shown_only_while_something_is_fetched() -> None:
    fetching = standing(fetching_from="Peers")
    assert status(fetching).models[0].fetching_from == "Peers"
    assert status(replace(fetching, state=ModelState.READY)).models[0].fetching_from is None


BEFORE = status(standing(1, done_bytes=5), gpu="a100")


@pytest.mark.parametrize(
    ("after", "urgent"),
    [
        pytest.param(BEFORE, False, id="nothing"),
        pytest.param(status(standing(1, done_bytes=6, bytes_per_second=1), gpu="a100"), False, id="numbers"),
        pytest.param(status(standing(1, ModelState.READY), gpu="a100"), True, id="a state"),
        pytest.param(status(standing(1, reason="X"), gpu="a100"), True, id="a reason"),
        pytest.param(status(standing(1), standing(2), gpu="a100"), True, id="another model"),
        pytest.param(status(gpu="a100"), True, id="a model less"),
        pytest.param(status(standing(1, done_bytes=5), gpu="t4"), True, id="the Node's labels"),
        pytest.param(BEFORE.model_copy(update={"closed_by": "maintenance"}), True, id="the Node is cordoned"),
    ],
)
def test_what_cannot_wait(after: NodeCacheStatus, urgent: bool) -> None:
    assert is_urgent(BEFORE, after) is urgent


def test_the_first_report_cannot_wait() -> None:
    assert is_urgent(None, BEFORE)


# Labels of the Node


def test_labels() -> None:
    standings = [
        standing(1 << 192, ModelState.READY, claims=(TASK, OME)),
        standing(2 << 192, ModelState.FETCHING, claims=(Claim("BaseModel", "team", "qwen", "u"),)),
        Standing("model:" + "f" * 64, "s3://x", ModelState.FAILED, claims=(Claim("BaseModel", "team", "s3", "u"),)),
    ]
    assert labels_of(standings, 100) == {
        f"content.modelswarm.io/{1:016x}": "Ready",
        "models.ome.io/clusterbasemodel.llama": "Ready",
        "models.ome.io/team.basemodel.qwen": "Updating",
        "models.ome.io/team.basemodel.s3": "Failed",
    }


def test_no_more_labels_than_allowed_wanted_ones_first_then_the_latest() -> None:
    standings = [
        standing(number << 192, ModelState.READY, ready_time=datetime(2026, 1, number, tzinfo=UTC))
        for number in range(1, 10)
    ]
    standings[0] = replace(standings[0], claims=(TASK,))
    names = {name.rpartition("/")[2] for name in labels_of(standings, 3)}
    assert names == {f"{number:016x}" for number in (1, 9, 8)}
    assert labels_of(standings, 0) == {}


# OME's names


def ome(namespace: str, name: str) -> Claim:
    return Claim("BaseModel" if namespace else "ClusterBaseModel", namespace, name, "u")


@pytest.mark.parametrize(
    ("namespace", "name", "label"),
    [
        pytest.param("", "llama", "clusterbasemodel.llama", id="a ClusterBaseModel"),
        pytest.param("", "m" * 32, "clusterbasemodel." + "m" * 32, id="a ClusterBaseModel of 32 characters"),
        pytest.param(
            "",
            "x" * 5 + "m" * 28,
            f"clusterbasemodel.{digits('x' * 5 + 'm' * 28)}-" + "m" * 23,
            id="a ClusterBaseModel of 33 characters: digits and its end",
        ),
        pytest.param("team", "qwen", "team.basemodel.qwen", id="a BaseModel"),
        pytest.param("n" * 8, "m" * 30, "n" * 8 + ".basemodel." + "m" * 30, id="38 characters together"),
        pytest.param(
            "n" * 20,
            "m" * 18,
            "n" * 20 + ".basemodel." + "m" * 18,
            id="38 characters together with a long namespace",
        ),
        pytest.param(
            "n" * 8,
            "m" * 31,
            "n" * 8 + f".basemodel.{digits('m' * 31)}-" + "m" * 21,
            id="39 characters: a short namespace stays",
        ),
        pytest.param(
            "n" * 20,
            "m" * 30,
            f"{digits('n' * 20)}.basemodel." + "m" * 30,
            id="a long namespace becomes eight digits, and the name fits then",
        ),
        pytest.param(
            "n" * 20,
            "m" * 60,
            f"{digits('n' * 20)}.basemodel.{digits('m' * 60)}-" + "m" * 21,
            id="both are cut",
        ),
    ],
)
def test_omes_label(namespace: str, name: str, label: str) -> None:
    found = omestatus.label_of(ome(namespace, name))
    assert found == f"models.ome.io/{label}"
    assert len(label) <= 49


def test_omes_key_has_more_room() -> None:
    assert omestatus.key_of(ome("n" * 60, "m" * 180)) == "n" * 60 + ".basemodel." + "m" * 180
    long = omestatus.key_of(ome("n" * 63, "m" * 250))
    assert long == f"{digits('n' * 63)}.basemodel.{digits('m' * 250)}-" + "m" * (253 - 8 - 11 - 9)
    assert len(long) == 253
    cluster = omestatus.key_of(ome("", "m" * 240))
    assert cluster == f"clusterbasemodel.{digits('m' * 240)}-" + "m" * (236 - 9)


@pytest.mark.parametrize("state", list(ModelState))
def test_every_state_has_a_word_of_omes(state: ModelState) -> None:
    word = omestatus.state_of(standing(state=state))
    assert word == {ModelState.READY: "Ready", ModelState.FAILED: "Failed"}.get(state, "Updating")


def test_an_entry_of_the_config_map() -> None:
    fetching = standing(claims=(OME, TASK), bytes=10, done_bytes=4, bytes_per_second=2)
    [(key, text)] = omestatus.entries([fetching], NOW).items()
    assert key == "clusterbasemodel.llama"
    assert json.loads(text) == {
        "name": "llama",
        "status": "Updating",
        "progress": {
            "phase": "Downloading",
            "totalBytes": 10,
            "completedBytes": 4,
            "speedBytesPerSec": 2,
            "lastUpdated": "2026-01-02T00:00:00Z",
        },
    }
    [text] = omestatus.entries([replace(fetching, state=ModelState.READY)], NOW).values()
    assert json.loads(text) == {"name": "llama", "status": "Ready"}


# Standings


def test_two_that_turn_out_to_be_one_content_are_one_entry() -> None:
    base = standing(1, ModelState.FETCHING, claims=(OME,))
    task = standing(1, ModelState.READY, claims=(TASK, OME))
    for order in ([base, task], [task, base]):
        [found] = merged(order)
        assert found.state is ModelState.READY
        assert set(found.claims) == {OME, TASK}
        assert len(found.claims) == 2


def test_what_was_not_begun_and_what_never_will_be() -> None:
    source = HubSource(HubName.HUGGINGFACE, "org/model")
    wanted = Wanted("sha256:a", "sha256:a", "h", "org/model", "c", source, (TASK,), bytes=7)
    assert of_wanted(wanted) == Standing("sha256:a", "org/model", ModelState.ABSENT, "c", (TASK,), bytes=7)
    noted = Noted("model:b", "s3://x", OME, ModelState.FAILED, "UnsupportedStorage", "no")
    assert of_noted(noted) == Standing(
        "model:b", "s3://x", ModelState.FAILED, claims=(OME,), reason="UnsupportedStorage", message="no"
    )


# Events


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        pytest.param(None, ModelState.ABSENT, None, id="wanted"),
        pytest.param(None, ModelState.FETCHING, "ModelFetching", id="begun"),
        pytest.param(ModelState.WAITING, ModelState.FETCHING, "ModelFetching", id="begun after waiting"),
        pytest.param(ModelState.FETCHING, ModelState.FETCHING, None, id="goes on"),
        pytest.param(ModelState.FETCHING, ModelState.VERIFYING, None, id="verifying"),
        pytest.param(ModelState.VERIFYING, ModelState.FETCHING, None, id="more to fetch after verifying"),
        pytest.param(ModelState.VERIFYING, ModelState.READY, "ModelReady", id="complete"),
        pytest.param(ModelState.FETCHING, ModelState.FAILED, "DiskFull", id="failed: the reason"),
        pytest.param(ModelState.READY, ModelState.EVICTED, "ModelEvicted", id="evicted"),
    ],
)
def test_news(before: ModelState | None, after: ModelState, reason: str | None) -> None:
    now = standing(state=after, reason="DiskFull" if after is ModelState.FAILED else None, message="why")
    found = news({now.key: before} if before else {}, [now])
    assert [each.reason for each in found] == ([reason] if reason else [])
    assert all(each.type == ("Warning" if reason == "DiskFull" else "Normal") for each in found)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0Ki"), (999_385_088, "953.1Mi"), (1 << 40, "1.0Ti"), (5 << 50, "5120.0Ti")],
)
def test_format_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text
