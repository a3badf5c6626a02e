"""Which contents a node should hold: by placement, by pods, by OME's models; and what is only reported."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelswarm.agent.basemodel import OmeModel, model_hash
from modelswarm.agent.wanted import (
    Claim,
    ManifestRef,
    Needs,
    Noted,
    ScoutReason,
    SecretRef,
    Sight,
    Wanted,
    decide,
    inside,
    local_paths,
)
from modelswarm.api.nodecache import ModelState
from modelswarm.api.p2ptask import P2PTask

ROOT = Path("/mnt/models")
COMMIT = "7ae557604adf67be50417f59c2c2f167def9a775"
CONTENT = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32


def task(
    name: str = "t",
    *,
    namespace: str = "ns",
    created: int = 1,
    spec: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **metadata: Any,
) -> P2PTask:
    """Pinned, engine BitTorrent, placed on node-1, unless said otherwise."""
    return P2PTask.model_validate(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{name}",
                "creationTimestamp": datetime(2026, 1, 1, 0, 0, created, tzinfo=UTC),
                **metadata,
            },
            "spec": {"model": {"source": {"modelHub": {"modelID": "org/model"}}}, **(spec or {})},
            "status": {
                "engine": "BitTorrent",
                "resolved": {
                    "revision": COMMIT,
                    "digest": CONTENT,
                    "digestSource": "Hub",
                    "files": 3,
                    "bytes": 1000,
                },
                "manifest": {"name": f"{name}-manifest", "shards": 2},
                "nodes": ["node-1"],
                **(status or {}),
            },
        }
    )


def ome(uri: str, *, name: str = "m", namespace: str = "", deleted: bool = False, **storage: Any) -> OmeModel:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": f"uid-{name}"}
    if deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return OmeModel.model_validate({"metadata": metadata, "spec": {"storage": {"storageUri": uri, **storage}}})


def sight(**seen: Any) -> Sight:
    return Sight(**{"node": "node-1", "labels": {"gpu": "a100"}, "root": ROOT, "namespace": "ome", **seen})


def wanted(*tasks: P2PTask, **seen: Any) -> dict[str, Wanted]:
    return dict(decide(sight(tasks=tasks, **seen)).wanted)


def noted(model: OmeModel, **seen: Any) -> Noted:
    needs = decide(sight(models=[model], **seen))
    assert not needs.wanted
    [found] = needs.noted
    return found


# Tasks


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(task(), True, id="the operator chose this node"),
        pytest.param(task(status={"nodes": ["node-2"]}), False, id="the operator chose others"),
        pytest.param(task(status={"nodes": []}), False, id="the operator has not chosen yet"),
        pytest.param(
            task(spec={"placement": {"copies": "All"}}, status={"nodes": []}), True, id="all nodes: this one too"
        ),
        pytest.param(
            task(spec={"placement": {"copies": "All", "nodeSelector": {"gpu": "a100"}}}, status={"nodes": []}),
            True,
            id="all nodes that match: this one does",
        ),
        pytest.param(
            task(spec={"placement": {"copies": "All", "nodeSelector": {"gpu": "t4"}}}, status={"nodes": []}),
            False,
            id="all nodes that match: this one does not",
        ),
        pytest.param(task(status={"engine": "Dragonfly"}), False, id="another engine"),
        pytest.param(task(status={"engine": None}), False, id="no engine yet"),
        pytest.param(task(status={"resolved": None}), False, id="not pinned yet"),
        pytest.param(task(deletionTimestamp="2026-01-01T00:00:00Z"), False, id="being deleted"),
        pytest.param(task(spec={"model": None, "image": {"reference": "busybox"}}), False, id="an image"),
        pytest.param(task(spec={"model": {"source": {"uri": "ollama://x"}}}), False, id="nothing to fetch"),
        pytest.param(task(spec={"suspend": True}), True, id="suspended: still wanted, and marked"),
    ],
)
def test_which_tasks_bring_a_content_here(given: P2PTask, expected: bool) -> None:
    assert bool(wanted(given)) is expected


def test_what_a_task_says_of_its_content() -> None:
    given = task(spec={"pin": True, "credentialsSecretRef": {"name": "modelhub-secret"}})
    [found] = wanted(given).values()
    assert (found.key, found.content, found.revision, found.bytes) == (CONTENT, CONTENT, COMMIT, 1000)
    assert found.name == "org/model"
    assert found.model_hash == model_hash(f"org/model@{COMMIT}")
    assert (found.pin, found.suspended, found.paths) == (True, False, ())
    assert found.claims == (
        Claim(
            "P2PTask",
            "ns",
            "t",
            "uid-t",
            pin=True,
            secret=SecretRef("ns", "modelhub-secret"),
            manifest=ManifestRef("ns", "t-manifest", 2),
        ),
    )


HUB = {"modelID": "org/model"}


@pytest.mark.parametrize(
    ("source", "revision", "text"),
    [
        pytest.param({"modelHub": HUB}, COMMIT, f"org/model@{COMMIT}", id="a repository: its commit"),
        pytest.param(
            {"modelHub": {**HUB, "allowPatterns": ["*.json"]}},
            COMMIT,
            f"org/model@{COMMIT}#{'ab' * 32}",
            id="some files of it: their digest too",
        ),
        pytest.param(
            {"modelHub": {**HUB, "filename": "a.gguf"}},
            COMMIT,
            f"org/model@{COMMIT}#{'ab' * 32}",
            id="one file of it: its digest too",
        ),
        pytest.param(
            {"modelHub": {**HUB, "name": "ModelScope"}},
            COMMIT,
            f"ModelScope/org/model@{COMMIT}",
            id="another hub: another model",
        ),
    ],
)
def test_model_hash(source: dict[str, Any], revision: str, text: str) -> None:
    [found] = wanted(task(spec={"model": {"source": source}})).values()
    assert found.model_hash == model_hash(text)


def test_the_model_hash_of_an_object_store_is_its_content() -> None:
    resolved = {"digest": CONTENT, "digestSource": "Store", "files": 1, "bytes": 1}
    [found] = wanted(
        task(spec={"model": {"source": {"uri": "s3://bucket/models/x"}}}, status={"resolved": resolved})
    ).values()
    assert (found.model_hash, found.name, found.revision) == ("ab" * 32, "s3://bucket/models/x", None)


def test_several_tasks_for_one_content_are_one_content() -> None:
    [found] = wanted(
        task("late", created=9, spec={"pin": True}), task("early", created=2, spec={"suspend": True})
    ).values()
    assert [claim.name for claim in found.claims] == ["early", "late"]
    assert (found.pin, found.suspended) == (True, False)


def test_it_is_suspended_when_all_of_its_tasks_are() -> None:
    [found] = wanted(task("a", spec={"suspend": True}), task("b", spec={"suspend": True})).values()
    assert found.suspended


def test_all_nodes_agree_on_the_hash_of_a_content_that_two_models_share() -> None:
    fork = {"model": {"source": {"modelHub": {"modelID": "fork/model"}}}}
    original = task("original", created=1, status={"nodes": ["node-2"]})
    [here] = wanted(original, task("fork", created=2, spec=fork)).values()
    assert [claim.name for claim in here.claims] == ["fork"]
    assert here.model_hash == model_hash(f"org/model@{COMMIT}")


# Pods


def test_a_pod_brings_its_content_here_wherever_the_copies_are() -> None:
    elsewhere = task(status={"nodes": ["node-2"]}, spec={"placement": {"nodeSelector": {"gpu": "t4"}}})
    pods = {"ns/p1": frozenset({CONTENT}), "ns/p2": frozenset({CONTENT, OTHER})}
    needs = decide(sight(tasks=[elsewhere], pods=pods))
    assert needs.wanted[CONTENT].pods == {"ns/p1", "ns/p2"}
    assert needs.in_use == {CONTENT, OTHER}


def test_a_content_that_no_task_knows_is_in_use_and_cannot_be_fetched() -> None:
    needs = decide(sight(pods={"ns/p": frozenset({OTHER})}))
    assert needs == Needs(in_use=frozenset({OTHER}))


# OME's models


@pytest.mark.parametrize(
    ("uri", "repository", "branch"),
    [
        pytest.param("hf://org/model", "org/model", "main", id="the default branch"),
        pytest.param("hf://org/model@v1.0", "org/model", "v1.0", id="a tag"),
        pytest.param("hf://org/model@", "org/model", "main", id="an empty branch"),
        pytest.param("hf://gpt2", "gpt2", "main", id="a repository of old without an organisation"),
    ],
)
def test_hugging_face_storage(uri: str, repository: str, branch: str) -> None:
    needs = decide(sight(models=[ome(uri)]))
    [found] = needs.wanted.values()
    name = model_hash(f"{repository}@{branch}")
    assert (found.key, found.content, found.model_hash) == (f"model:{name}", None, name)
    assert (found.name, found.revision, found.source.model_id) == (repository, branch, repository)  # type: ignore[union-attr]
    assert needs.noted == ()


def test_the_hash_is_the_seeds() -> None:
    [found] = decide(sight(models=[ome("hf://Qwen/Qwen2.5-0.5B-Instruct")])).wanted.values()
    assert found.model_hash == "feb38b94176ce581c18b93490f78fa42538e3180299c32c3ddc5d1e5b1d94d97"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param(ome("hf://a/b"), SecretRef("ome", "hf-token", "token"), id="of a ClusterBaseModel: the agent's"),
        pytest.param(ome("hf://a/b", namespace="team"), SecretRef("team", "hf-token", "token"), id="of a BaseModel"),
        pytest.param(
            ome("hf://a/b", parameters={"secretKey": "HF"}), SecretRef("ome", "hf-token", "HF"), id="another key"
        ),
    ],
)
def test_where_the_token_is(model: OmeModel, expected: SecretRef) -> None:
    storage = {**model.to_json()["spec"]["storage"], "key": "hf-token"}  # type: ignore[index,call-overload,dict-item]
    model = OmeModel.model_validate({**model.to_json(), "spec": {"storage": storage}})
    [found] = decide(sight(models=[model])).wanted.values()
    assert found.claims[0].secret == expected


def test_two_models_of_one_repository_with_different_paths_are_one_content() -> None:
    models = [
        ome("hf://a/b", name="one", path="/mnt/models/one"),
        ome("hf://a/b@main", name="two", namespace="team", path="/mnt/models/team/two/"),
    ]
    [found] = decide(sight(models=models)).wanted.values()
    assert found.paths == (Path("/mnt/models/one"), Path("/mnt/models/team/two"))
    assert [(claim.kind, claim.name) for claim in found.claims] == [("ClusterBaseModel", "one"), ("BaseModel", "two")]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param(ome("hf://a/b"), True, id="no restriction"),
        pytest.param(ome("hf://a/b", nodeSelector={"gpu": "a100"}), True, id="the selector matches"),
        pytest.param(ome("hf://a/b", nodeSelector={"gpu": "t4"}), False, id="the selector does not match"),
        pytest.param(ome("hf://a/b", deleted=True), False, id="being deleted"),
        pytest.param(
            ome(
                "hf://a/b",
                nodeSelector={"gpu": "a100"},
                nodeAffinity={"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}},
            ),
            False,
            id="the affinity does not match",
        ),
        pytest.param(OmeModel.model_validate({"metadata": {"name": "m"}, "spec": {}}), False, id="no storage"),
        pytest.param(ome("pvc://claim/path"), False, id="a volume claim, which is OME's controller's affair"),
    ],
)
def test_which_models_belong_here(model: OmeModel, expected: bool) -> None:
    needs = decide(sight(models=[model]))
    assert bool(needs.wanted) is expected
    assert not needs.noted


@pytest.mark.parametrize(
    ("model", "reason", "words"),
    [
        pytest.param(ome("s3://bucket/x"), ScoutReason.UNSUPPORTED_STORAGE, "s3:// is not handled", id="s3"),
        pytest.param(ome("oci://n/a/b/c/o/d"), ScoutReason.UNSUPPORTED_STORAGE, "oci:// is not handled", id="oci"),
        pytest.param(ome("az://x/y"), ScoutReason.UNSUPPORTED_STORAGE, "az:// is not handled", id="az"),
        pytest.param(ome("github://o/r@t"), ScoutReason.UNSUPPORTED_STORAGE, "github://", id="github"),
        pytest.param(ome("org/model"), ScoutReason.INVALID_REFERENCE, "SCHEME://ADDRESS", id="no scheme"),
        pytest.param(ome("hf://"), ScoutReason.INVALID_REFERENCE, "SCHEME://ADDRESS", id="no address"),
        pytest.param(ome("hf://a/../b"), ScoutReason.INVALID_REFERENCE, "not a model id", id="no model id"),
        pytest.param(ome("hf://a/b@x..y"), ScoutReason.INVALID_REFERENCE, "revision", id="no branch"),
        pytest.param(
            ome("hf://a/b", parameters={"token": "hf_secret"}),
            ScoutReason.PLAIN_TEXT_TOKEN,
            "storage.key",
            id="a token in the object",
        ),
        pytest.param(
            ome("hf://a/b", path="/etc/x"), ScoutReason.PATH_OUTSIDE_ROOT, "/etc/x is not below /mnt/models", id="path"
        ),
        pytest.param(ome("local:///mnt/models/x"), ScoutReason.NO_SUCH_PATH, "/mnt/models/x does not", id="local"),
    ],
)
def test_what_cannot_be_fetched_says_so(model: OmeModel, reason: ScoutReason, words: str) -> None:
    found = noted(model)
    assert (found.state, found.reason) == (ModelState.FAILED, reason)
    assert words in found.message
    assert "hf_secret" not in found.message


def test_a_vendors_model_is_ready() -> None:
    assert noted(ome("vendor://openai/gpt")).state is ModelState.READY


def test_a_local_model_is_ready_when_it_is_there() -> None:
    models = [ome("local:///data/x"), ome("local://ignored", path="/data/y"), ome("hf://a/b"), ome("nonsense")]
    assert local_paths(models) == {"/data/x", "/data/y"}
    assert noted(models[0], local_paths=frozenset({"/data/x"})).state is ModelState.READY


def test_a_cluster_scoped_and_a_namespaced_model_are_different_claims() -> None:
    [found] = decide(sight(models=[ome("hf://a/b"), ome("hf://a/b", namespace="team")])).wanted.values()
    assert {claim.kind for claim in found.claims} == {"BaseModel", "ClusterBaseModel"}


def test_who_wants_a_model_is_known_of_the_whole_cluster() -> None:
    here = ome("hf://a/b", name="here")
    elsewhere = ome("hf://a/b@main", name="elsewhere", nodeSelector={"gpu": "t4"})
    only_there = ome("hf://c/d", name="only-there", nodeSelector={"gpu": "t4"})
    going = ome("hf://a/b", name="going", deleted=True)
    far = task(status={"nodes": ["node-2"]})
    needs = decide(sight(tasks=[far], models=[here, elsewhere, only_there, going, ome("s3://x", name="other")]))
    assert needs.owners == {
        model_hash("a/b@main"): {"uid-here", "uid-elsewhere"},
        model_hash("c/d@main"): {"uid-only-there"},
        model_hash(f"org/model@{COMMIT}"): {"uid-t"},
    }
    [found] = needs.wanted.values()
    assert found.models == {"uid-here", "uid-elsewhere"}


def test_a_task_pins_nothing() -> None:
    [found] = wanted(task()).values()
    assert found.models == frozenset()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param("a", "b", True, id="another one"),
        pytest.param("a", "ab", False, id="one more"),
        pytest.param("ab", "b", False, id="one less"),
        pytest.param("", "a", False, id="a task's content has none"),
    ],
)
def test_a_branch_is_wanted_anew_when_none_of_those_is_left_who_wanted_it(
    before: str, after: str, expected: bool
) -> None:
    [found] = wanted(task()).values()
    assert replace(found, models=frozenset(after)).is_anew(replace(found, models=frozenset(before))) is expected


def test_what_the_files_of_a_model_say_may_be_hidden() -> None:
    model = ome("hf://a/b")
    model.metadata.annotations["ome.oracle.com/skip-config-parsing"] = "True"
    [hidden] = decide(sight(models=[model])).wanted.values()
    assert [claim.described for claim in hidden.claims] == [False]
    [open_] = decide(sight(models=[ome("hf://a/b")])).wanted.values()
    assert [claim.described for claim in open_.claims] == [True]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/mnt/models/a", "/mnt/models/a", id="below"),
        pytest.param("/mnt/models//a/./b/", "/mnt/models/a/b", id="untidy"),
        pytest.param("/mnt/models", None, id="the root itself"),
        pytest.param("/mnt/models/", None, id="the root itself, with a slash"),
        pytest.param("/mnt/models-2/a", None, id="a sibling"),
        pytest.param("/mnt/models/../etc", None, id="up and out"),
        pytest.param("/mnt/models/a/../b", None, id="up, though it stays inside"),
        pytest.param("models/a", None, id="relative"),
        pytest.param("//mnt/models/a", None, id="two slashes in front"),
        pytest.param("/mnt/models/a\0b", None, id="a NUL"),
    ],
)
def test_inside(path: str, expected: str | None) -> None:
    assert inside(ROOT, path) == (Path(expected) if expected else None)
