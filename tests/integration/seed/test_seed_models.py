"""What becomes of BaseModels on the nodes: paths, removal, branches that move, schemes that nobody fetches."""

import json
from pathlib import Path
from typing import Any

import pytest

from dev.agents import Agent, AgentFleet
from dev.hub import Kind, Slow, make_model
from tests.integration.seed.conftest import (
    MODEL_DIR,
    Seed,
    digests,
    files_in,
    has_files,
    metainfo,
    model_hash,
    size,
)
from tests.integration.support import eventually
from tests.integration.support.ome import base_model

LABEL = "models.ome.io/clusterbasemodel.{}"
NOTHING: dict[str, Any] = {"metadata": {"labels": {}, "annotations": {}}}
NAMESPACED = "models.ome.io/{}.basemodel.{}"


@pytest.fixture
def agents(fleet: AgentFleet) -> list[Agent]:
    return list(fleet.agents.values())


def gone(seed: Seed, agents: list[Agent], label: str, key: str, directory: str, seconds: float = 20.0) -> None:
    """Until label, entry and files of a model have left every node."""

    def look() -> bool:
        for agent in agents:
            assert label not in seed.api.get("Node", agent.node)["metadata"].get("labels", {})
            assert key not in seed.entries(agent.node)
            assert not (agent.store / directory).exists()
        return True

    eventually(look, seconds, 0.1)


def is_seeded(agent: Agent, wanted: str) -> bool:
    return {"hash": wanted, "seeding": True} in metainfo(agent, "/models").json()


def test_a_deleted_model_leaves_the_nodes_and_comes_back_when_it_is_made_again(seed: Seed, agents: list[Agent]) -> None:
    repository, label = seed.repository(), LABEL.format("m")
    wanted = model_hash(repository)
    uri, path = f"hf://{repository.id}", f"{MODEL_DIR}/org/m"
    seed.create("m", uri, path=path)
    seed.ready(label, *agents)
    eventually(lambda: all(is_seeded(agent, wanted) for agent in agents), 30, 0.2)
    seed.api.delete("ClusterBaseModel", "m")
    gone(seed, agents, label, "clusterbasemodel.m", "org/m")
    for agent in agents:
        assert metainfo(agent, f"/metainfo/{wanted}").status_code == 404
        assert metainfo(agent, "/models").json() == []
        assert repository.id not in [each["name"] for each in seed.models(agent.node)]
        blobs = [path for path in (agent.store / "blobs").rglob("*") if path.is_file()]
        assert not {path.name for path in blobs} & {f"sha256-{each}" for each in digests(repository).values()}
    seed.hub.counters.reset()
    seed.create("m", uri, path=path)
    seed.ready(label, *agents)
    # The NodeCache follows the label within a second or two.
    eventually(lambda: all(seed.model(agent.node, repository.id).get("state") == "Ready" for agent in agents), 10, 0.1)
    for agent in agents:
        assert files_in(agent.store / "org" / "m") == digests(repository)
        entry = seed.model(agent.node, repository.id)
        # Counted from the beginning; a block that came twice is counted twice.
        assert size(repository) <= entry["originBytes"] + entry["peerBytes"] <= 1.1 * size(repository)
    assert seed.sent() == size(repository)


@pytest.mark.parametrize("pause", [pytest.param(True, id="later"), pytest.param(False, id="at once")])
def test_made_again_it_is_of_the_branch_as_it_is_then(seed: Seed, agents: list[Agent], pause: bool) -> None:
    """Not of the commit that was pinned for a model that is gone; whose Lease goes with it."""
    repository, label = seed.repository(), LABEL.format("m")
    uri, path = f"hf://{repository.id}", f"{MODEL_DIR}/m"
    seed.create("m", uri, path=path)
    seed.ready(label, *agents)
    eventually(lambda: "ome.io/status" in (seed.lease(repository) or NOTHING)["metadata"]["labels"], 20, 0.1)
    repository.move("main", repository.commit({"config.json": b'{"later": true}'}, base="main"))
    now = digests(repository)
    seed.api.delete("ClusterBaseModel", "m")
    if pause:
        gone(seed, agents, label, "clusterbasemodel.m", "m")
        eventually(lambda: seed.lease(repository) is None, 10, 0.1)
    seed.create("m", uri, path=path)
    eventually(lambda: all(has_files(agent.store / "m", now) for agent in agents), 60, 0.2)
    seed.ready(label, *agents)
    lease = eventually(lambda: seed.lease(repository), 10)
    assert lease["metadata"]["annotations"]["modelswarm.io/commit"] == repository.head
    assert lease["metadata"]["annotations"]["modelswarm.io/models"] == _uid(seed, "m")


def test_a_second_model_of_the_branch_keeps_its_commit_when_the_first_one_goes(
    seed: Seed, fleet: AgentFleet, agents: list[Agent]
) -> None:
    repository = seed.repository()
    first = digests(repository)
    seed.create("one", f"hf://{repository.id}", path=f"{MODEL_DIR}/one", nodeSelector={"zone": "a"})
    n1, n2, n3 = agents
    seed.ready(LABEL.format("one"), n1, n2)
    eventually(lambda: "ome.io/status" in (seed.lease(repository) or NOTHING)["metadata"]["labels"], 20, 0.1)
    repository.move("main", repository.commit({"config.json": b'{"later": true}'}, base="main"))
    seed.create("two", f"hf://{repository.id}", path=f"{MODEL_DIR}/two", nodeSelector={"zone": "a"})
    seed.ready(LABEL.format("two"), n1, n2)
    named = ",".join(sorted([_uid(seed, "one"), _uid(seed, "two")]))
    eventually(
        lambda: (seed.lease(repository) or NOTHING)["metadata"]["annotations"]["modelswarm.io/models"] == named, 20, 0.2
    )
    seed.api.delete("ClusterBaseModel", "one")
    gone(seed, agents, LABEL.format("one"), "clusterbasemodel.one", "one")
    seed.cluster.kubectl("label", "node", n3.node, "zone=a")
    try:
        seed.ready(LABEL.format("two"), *agents)
        for agent in agents:
            assert files_in(agent.store / "two") == first
    finally:
        seed.cluster.kubectl("label", "node", n3.node, "zone-")


def test_what_a_models_files_say_of_it_is_told_to_ome(seed: Seed, agents: list[Agent], tmp_path: Path) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 8192}
    made = make_model(tmp_path / "made", shards=3, shard_bytes=4_000_000, seed=41)
    files = {path.name: path.read_bytes() for path in made.iterdir() if path.suffix == ".safetensors"}
    repository = seed.repository(**files, **{"config.json": json.dumps(config).encode()})
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    hidden = base_model("hidden", f"hf://{repository.id}", path=f"{MODEL_DIR}/hidden")
    hidden["metadata"]["annotations"] = {"ome.oracle.com/skip-config-parsing": "true"}
    seed.api.create(hidden)
    for name in ("m", "hidden"):
        seed.ready(LABEL.format(name), *agents)
    for agent in agents:
        found = seed.entries(agent.node)
        assert found["clusterbasemodel.m"]["config"] == {
            "modelType": "llama",
            "modelArchitecture": "LlamaForCausalLM",
            "modelFramework": {"name": "transformers"},
            "modelFormat": {"name": "safetensors", "version": "1.0.0"},
            "modelParameterSize": "6M",
            "modelCapabilities": ["TEXT_TO_TEXT"],
            "maxTokens": 8192,
        }
        assert "config" not in found["clusterbasemodel.hidden"]


def _uid(seed: Seed, name: str) -> str:
    return str(seed.api.get("ClusterBaseModel", name)["metadata"]["uid"])


def test_deleted_while_it_is_fetched_nothing_moves_any_more(seed: Seed, agents: list[Agent]) -> None:
    repository = seed.repository()
    for kind in (Kind.CDN, Kind.RESOLVE):
        seed.hub.fail("*", Slow(bytes_per_second=80 << 10), on=kind)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m")
    eventually(lambda: seed.sent() > size(repository) * 0.1, 30)
    seed.api.delete("ClusterBaseModel", "m")
    eventually(lambda: seed.hub.counters.active == 0, 10)
    gone(seed, agents, LABEL.format("m"), "clusterbasemodel.m", "m")
    for agent in agents:
        eventually(lambda agent=agent: not list((agent.store / "partial").iterdir()), 10)
    assert seed.sent() < size(repository)


def test_two_models_of_one_repository_have_their_own_paths(seed: Seed, agents: list[Agent]) -> None:
    repository = seed.repository()
    uri = f"hf://{repository.id}"
    seed.create("one", uri, path=f"{MODEL_DIR}/a/one")
    seed.create("two", uri, "default", path=f"{MODEL_DIR}/b/two")
    one, two = LABEL.format("one"), NAMESPACED.format("default", "two")
    seed.ready(one, *agents)
    seed.ready(two, *agents)
    for agent in agents:
        assert files_in(agent.store / "a" / "one") == digests(repository)
        assert files_in(agent.store / "b" / "two") == digests(repository)
        # The same bytes on disk: they travel once, and take their space once.
        shard = next(path for path in digests(repository) if path.endswith(".safetensors"))
        inodes = {(agent.store / place / shard).stat().st_ino for place in ("a/one", "b/two")}
        assert len(inodes) == 1
    assert seed.sent() == size(repository)
    # A third one later finds everything there.
    seed.create("three", uri, "default", path=f"{MODEL_DIR}/c")
    seed.ready(NAMESPACED.format("default", "three"), *agents)
    assert all(files_in(agent.store / "c") == digests(repository) for agent in agents)
    seed.api.delete("ClusterBaseModel", "one")
    gone(seed, agents, one, "clusterbasemodel.one", "a/one")
    # Whoever has just completed it looks for the others' metainfo first.
    eventually(lambda: all(is_seeded(agent, model_hash(repository)) for agent in agents), 30, 0.2)
    for agent in agents:
        assert files_in(agent.store / "b" / "two") == digests(repository)
        assert seed.entries(agent.node)["default.basemodel.two"]["status"] == "Ready"
    assert seed.sent() == size(repository)


def test_two_models_on_one_path_lose_nothing_with_the_first(seed: Seed, agents: list[Agent]) -> None:
    repository = seed.repository()
    for name in ("one", "two"):
        seed.create(name, f"hf://{repository.id}", path=f"{MODEL_DIR}/same")
        seed.ready(LABEL.format(name), *agents)
    seed.api.delete("ClusterBaseModel", "one")
    eventually(lambda: all("clusterbasemodel.one" not in seed.entries(agent.node) for agent in agents), 20, 0.1)
    for agent in agents:
        assert files_in(agent.store / "same") == digests(repository)
    seed.api.delete("ClusterBaseModel", "two")
    gone(seed, agents, LABEL.format("two"), "clusterbasemodel.two", "same")


def test_a_branch_that_moves_leaves_what_was_pinned(seed: Seed, fleet: AgentFleet, agents: list[Agent]) -> None:
    repository = seed.repository()
    first = digests(repository)
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/m", nodeSelector={"zone": "a"})
    n1, n2, n3 = agents
    seed.ready(LABEL.format("m"), n1, n2)
    repository.move("main", repository.commit({"config.json": b'{"later": true}'}, base="main"))
    # A node that comes to want it later gets the same as the others.
    seed.cluster.kubectl("label", "node", n3.node, "zone=a")
    seed.ready(LABEL.format("m"), n1, n2, n3)
    assert digests(repository) != first
    for agent in agents:
        assert files_in(agent.store / "m") == first
    # Whoever has coordinated stays for the others until late comers have a torrent; the mark comes after that.
    eventually(lambda: "ome.io/status" in (seed.lease(repository) or NOTHING)["metadata"]["labels"], 20, 0.1)
    pinned = (seed.lease(repository) or NOTHING)["metadata"]["annotations"]
    assert pinned.keys() >= {"modelswarm.io/commit", "modelswarm.io/manifest"}
    # The label goes: so does the model.
    seed.cluster.kubectl("label", "node", n3.node, "zone-")
    gone(seed, [n3], LABEL.format("m"), "clusterbasemodel.m", "m")
    assert files_in(n1.store / "m") == first


@pytest.mark.parametrize(
    "scheme", ["s3://bucket/model", "oci://n/a/b/c/o/d", "gs://bucket/x", "az://x/y", "github://a/b"]
)
def test_a_scheme_that_nobody_fetches_says_so(seed: Seed, agents: list[Agent], scheme: str) -> None:
    name = scheme.partition(":")[0]
    seed.create(name, scheme, path=f"{MODEL_DIR}/x")

    def look() -> bool:
        for agent in agents:
            found = seed.model(agent.node, scheme)
            assert (found.get("state"), found.get("reason")) == ("Failed", "UnsupportedStorage")
            assert f"{name}:// is not handled by this agent" in found["message"]
            assert seed.word(agent.node, f"clusterbasemodel.{name}") == "Failed"
        return True

    eventually(look, 20, 0.1)


def test_what_needs_no_bytes_is_ready_or_not_a_nodes_business(
    seed: Seed, fleet: AgentFleet, agents: list[Agent]
) -> None:
    seed.create("vendor", "vendor://openai/gpt/x")
    seed.create("claim", "pvc://claim/path")
    (agents[0].store / "by-hand").mkdir(exist_ok=True)
    seed.create("local", f"local://{MODEL_DIR}/by-hand")
    seed.ready(LABEL.format("vendor"), *agents)

    def look() -> bool:
        assert seed.word("n1", "clusterbasemodel.local") == "Ready"
        assert "NoSuchPath" in [each.get("reason") for each in seed.models("n2")]
        return True

    eventually(look, 20, 0.1)
    assert "clusterbasemodel.claim" not in seed.entries("n1")
    seed.api.delete("ClusterBaseModel", "local")
    eventually(lambda: "clusterbasemodel.local" not in seed.entries("n1"), 20, 0.1)
    assert (agents[0].store / "by-hand").is_dir()


@pytest.mark.parametrize("path", [pytest.param(None, id="none"), pytest.param("", id="empty")])
def test_without_a_path_it_is_in_the_store(seed: Seed, agents: list[Agent], path: str | None) -> None:
    repository = seed.repository()
    storage = {} if path is None else {"path": path}
    seed.create("m", f"hf://{repository.id}", **storage)
    seed.ready(LABEL.format("m"), *agents)
    for agent in agents:
        content = seed.model(agent.node, repository.id)["content"]
        directory = agent.store / "models" / content.removeprefix("sha256:")
        assert files_in(directory) == digests(repository)


@pytest.mark.parametrize(
    ("storage", "reason"),
    [
        pytest.param({"path": "/etc/models"}, "PathOutsideRoot", id="a path outside"),
        pytest.param({"path": f"{MODEL_DIR}/../x"}, "PathOutsideRoot", id="a path that climbs"),
        pytest.param({"path": f"{MODEL_DIR}/blobs/x"}, "PathOutsideRoot", id="a path in the store's own directory"),
        pytest.param({"parameters": {"token": "hf_x"}}, "PlainTextToken", id="a token in plain text"),
        pytest.param({"key": "hf-token", "parameters": {"secretKey": "no"}}, "CredentialNotFound", id="no such Secret"),
    ],
)
def test_what_cannot_be_says_why(seed: Seed, agents: list[Agent], storage: dict[str, object], reason: str) -> None:
    repository = seed.repository()
    seed.create("m", f"hf://{repository.id}", **storage)

    def look() -> bool:
        found = {each.get("reason") for agent in agents for each in seed.models(agent.node)}
        assert reason in found, [seed.models(agent.node) for agent in agents]
        assert seed.word("n1", "clusterbasemodel.m") in ("Failed", "Updating")
        return True

    eventually(look, 20, 0.1)
    assert seed.sent() == 0


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        pytest.param("hf://nobody/nothing", "SourceNotFound", id="no such model"),
        pytest.param("hf://org/template@nowhere", "RevisionNotFound", id="no such branch"),
        pytest.param("hf://../x", "InvalidReference", id="no model's name"),
        pytest.param("what", "InvalidReference", id="no address"),
    ],
)
def test_what_is_not_there_says_so(seed: Seed, agents: list[Agent], uri: str, reason: str) -> None:
    seed.create("m", uri, path=f"{MODEL_DIR}/m")

    def look() -> bool:
        found = {each.get("reason") for agent in agents for each in seed.models(agent.node)}
        assert reason in found, [seed.models(agent.node) for agent in agents]
        return True

    eventually(look, 30, 0.1)
    eventually(lambda: seed.labels("n1").get(LABEL.format("m")) == "Failed", 20, 0.1)
    assert seed.word("n1", "clusterbasemodel.m") == "Failed"


def test_a_directory_that_is_there_already_is_taken_over(seed: Seed, agents: list[Agent]) -> None:
    """Step 3 of the seed; hashed, not believed."""
    repository = seed.repository()
    blobs = repository.get("main").files
    shards = [path for path in blobs if path.endswith(".safetensors")]
    for agent in agents:
        for path in blobs:
            target = agent.store / "by" / "hand" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            source = blobs[path].source
            assert isinstance(source, bytes)
            target.write_bytes(source if path != shards[0] else bytes(len(source)))
    seed.create("m", f"hf://{repository.id}", path=f"{MODEL_DIR}/by/hand")
    seed.ready(LABEL.format("m"), *agents)
    for agent in agents:
        assert files_in(agent.store / "by" / "hand") == digests(repository)
    assert seed.sent() == blobs[shards[0]].size
