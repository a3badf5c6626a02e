"""kubectl swarm with a real API server, a real operator and real origins; agents are played, where there are some."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dev.controlplane import ControlPlane
from dev.hub import Hub
from dev.installation import NAMESPACE, OperatorProcess
from dev.registry import Registry
from tests.integration.support import Manifest, Operators, Scene, eventually
from tests.integration.support.played import RIGHTS, PlayedAgents, operator_with_agents
from tests.integration.support.plugin import Kubectl, interrupt

MODEL = "facebook/opt-125m"
FLAGS = ("--retry-seconds=2", "--stall-seconds=600", "--fallback-after-seconds=600")
SECONDS = 30.0


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, operators: Operators) -> Iterator[OperatorProcess]:
    with operator_with_agents(cluster, operators, *FLAGS) as operator:
        yield operator


@pytest.fixture
def kubectl(cluster: ControlPlane, registry: Registry, hub_server: object) -> Kubectl:
    url = str(getattr(hub_server, "url"))  # noqa: B009
    return Kubectl(cluster, {"HF_ENDPOINT": url, "MODELSWARM_REGISTRIES": f"docker.io={registry.url}"})


def pinned(scene: Scene, model: str) -> Manifest:
    """The model's task, once nodes were chosen for it."""

    def look() -> Manifest:
        task = scene.model_task(model)
        assert task.get("status", {}).get("nodes"), task.get("status")
        return task

    return eventually(look, SECONDS)


def name_of(task: Manifest) -> str:
    return str(task["metadata"]["name"])


def test_the_way_of_a_model_is_told_from_its_plan_to_its_end(
    scene: Scene, agents: PlayedAgents, kubectl: Kubectl, tmp_path: Path
) -> None:
    agents.add("n1", "n2")
    model = scene.name("m")
    file = tmp_path / "model.yaml"
    spec = {"familyName": "opt", "source": {"modelHub": {"modelID": MODEL}}}
    object_ = {"apiVersion": "llmaz.io/v1alpha1", "kind": "OpenModel", "metadata": {"name": model}, "spec": spec}
    claim = {"modelClaim": {"modelName": model}}
    play = {
        "apiVersion": "inference.llmaz.io/v1alpha1",
        "kind": "Playground",
        "metadata": {"name": "play"},
        "spec": claim,
    }
    file.write_text(yaml.safe_dump_all([object_, play]))
    for node in ("n1", "n2"):
        agents.room(node, 1 << 30)

    before = scene.all("P2PTask")
    said = kubectl.swarm("plan", "-f", str(file), "-n", scene.namespace, "-o", "json")
    assert said.code == 0, said
    contents = {each["content"]: each for each in said.json["contents"]}
    planned = contents[MODEL]
    assert {each["node"] for each in planned["nodes"]} == {"n1", "n2"}
    assert (planned["engine"], planned["originBytes"], planned["peerBytes"]) == (
        "BitTorrent",
        planned["bytes"],
        planned["bytes"],
    )
    assert {"config.json", "model.safetensors"} <= {each["path"] for each in planned["files"]}
    assert contents["vllm/vllm-openai:v0.7.3"]["engine"] == "Direct"
    assert scene.find("Playground", "play") is None, "a plan changes nothing"
    assert scene.all("P2PTask") == before

    scene.apply(object_)
    scene.apply(play)
    task = pinned(scene, model)
    resolved = task["status"]["resolved"]
    assert (resolved["digest"], resolved["bytes"]) == (planned["digest"], planned["bytes"])
    assert sorted(task["status"]["nodes"]) == ["n1", "n2"], "the plan named the same nodes"

    digest, size = resolved["digest"], resolved["bytes"]
    agents.report(
        "n1", digest, state="Fetching", fetchingFrom="Origin", bytes=size, doneBytes=size // 2, bytesPerSecond=7
    )

    def moving() -> Manifest:
        rows = kubectl.swarm("status", "-A", "-o", "json").json["tasks"]
        [row] = [each for each in rows if each["name"] == name_of(task)]
        assert (row["phase"], row["bytesPerSecond"], row["percent"]) == ("Running", 7, size // 2 * 100 // (2 * size)), (
            row
        )
        found: Manifest = row
        return found

    assert eventually(moving, SECONDS)["etaSeconds"] > 0
    why = kubectl.swarm("why", "playground/play", "-n", scene.namespace, "-o", "json")
    assert (why.code, why.json["grade"]) == (0, "wait")
    assert f"waits for model {MODEL}" in why.json["cause"]

    for node in ("n1", "n2"):
        agents.report(node, digest, state="Ready", bytes=size, originBytes=size if node == "n1" else 0)
    scene.make_ready("play")

    def served() -> bool:
        why = kubectl.swarm("why", "playground/play", "-n", scene.namespace)
        assert (why.code, "as it should be" in why.out) == (0, True), why
        return True

    eventually(served, SECONDS)
    tree = kubectl.swarm("tree", "play", "-n", scene.namespace, "-o", "yaml")
    branch = yaml.safe_load(tree.out)
    assert (tree.code, branch["state"]) == (0, "Available")
    kinds = [(each["kind"], each["state"]) for each in branch["children"]]
    assert kinds == [("OpenModel", "Ready"), ("Image", "Ready"), ("Image", "Ready")]
    [below] = branch["children"][0]["children"]
    assert [(each["name"], each["state"]) for each in below["children"]] == [("n1", "Ready"), ("n2", "Ready")]

    again = kubectl.swarm("plan", "-f", str(file), "-n", scene.namespace, "-o", "json").json
    planned = next(each for each in again["contents"] if each["content"] == MODEL)
    assert (planned["originBytes"], planned["peerBytes"], planned["presentBytes"]) == (0, 0, 2 * size)
    cache = kubectl.swarm("cache", "n1", "-o", "json").json
    assert [(each["content"], each["wantedBy"]) for each in cache["models"]] == [
        (digest, [f"{NAMESPACE}/{name_of(task)}"])
    ]


def test_the_deepest_cause_is_found_and_named_with_node_and_numbers(
    scene: Scene, agents: PlayedAgents, kubectl: Kubectl
) -> None:
    agents.add("n1", "n2")
    model = scene.model("m", MODEL)
    scene.playground("play", model)
    task = pinned(scene, model)
    digest = task["status"]["resolved"]["digest"]
    for node in ("n1", "n2"):
        agents.report(node, digest, state="Failed", reason="InsufficientCapacity", message="need 65.5Gi, free 40Gi")

    def look() -> bool:
        said = kubectl.swarm("why", "playground/play", "-n", scene.namespace)
        assert said.code == 1, said
        cause, remedy = said.out.splitlines()
        assert f"waits for model {MODEL}" in cause
        assert "2 of 2 nodes report InsufficientCapacity (n1: need 65.5Gi, free 40Gi" in cause
        assert "MODELSWARM_AGENT_QUOTA" in remedy
        return True

    eventually(look, SECONDS)
    node = kubectl.swarm("why", "node/n1")
    assert (node.code, "need 65.5Gi, free 40Gi" in node.out) == (1, True)
    tree = kubectl.swarm("tree", "playground/play", "-n", scene.namespace).out
    assert "n1  Failed  InsufficientCapacity: need 65.5Gi, free 40Gi" in tree
    status = kubectl.swarm("status", "-o", "json").json
    assert [each["grade"] for each in status["tasks"] if each["name"] == name_of(task)] == ["act"]


def test_what_does_not_fit_or_does_not_exist_fails_the_plan(
    scene: Scene, agents: PlayedAgents, kubectl: Kubectl
) -> None:
    agents.add("n1", "n2")
    agents.room("n1", 10)
    agents.room("n2", 1 << 30)
    source = {"modelHub": {"modelID": MODEL}}
    task = {
        "apiVersion": "llmaz.io/v1alpha1", "kind": "P2PTask", "metadata": {"name": "t"},
        "spec": {"model": {"source": source}, "placement": {"copies": "All"}},
    }  # fmt: skip
    said = kubectl.swarm("plan", "-f", "-", "-o", "json", input=json.dumps(task))
    assert said.code == 1
    [row] = said.json["contents"]
    assert {each["node"]: each["fits"] for each in row["nodes"]} == {"n1": False, "n2": True}
    assert (row["reason"], row["message"]) == ("InsufficientCapacity", "does not fit on n1")

    task["spec"] = {"model": {"source": {"modelHub": {"modelID": "no/such-model"}}}}
    said = kubectl.swarm("plan", "-f", "-", "-o", "json", input=json.dumps(task))
    assert said.code == 1
    assert [each["reason"] for each in said.json["troubles"]] == ["SourceNotFound"]


def test_a_token_of_the_users_goes_to_the_hub_and_nowhere_else(
    scene: Scene, agents: PlayedAgents, kubectl: Kubectl, hub: Hub, repository: object
) -> None:
    agents.add("n1")
    repository_id = str(getattr(repository, "id"))  # noqa: B009
    task = {
        "apiVersion": "llmaz.io/v1alpha1", "kind": "P2PTask", "metadata": {"name": "t"},
        "spec": {"model": {"source": {"modelHub": {"modelID": repository_id}}}},
    }  # fmt: skip
    said = kubectl.swarm("plan", "-f", "-", input=json.dumps(task), HF_TOKEN="hf_very-secret-token")
    assert said.code in (0, 1)
    assert "very-secret" not in said.out + said.err
    bad = kubectl.swarm("plan", "-f", "-", input=json.dumps(task), HF_ENDPOINT="http://me:very-secret@127.0.0.1:1")
    assert bad.code == 3
    assert "very-secret" not in bad.out + bad.err


def test_prefetch_brings_a_model_to_the_nodes_of_a_selector_and_waits(
    scene: Scene, agents: PlayedAgents, kubectl: Kubectl
) -> None:
    agents.add("cpu")
    agents.add("gpu-1", "gpu-2", pool="gpu")
    words = ("prefetch", MODEL, "--nodes", "pool=gpu", "-n", NAMESPACE, "--name", scene.name("p"))
    made = kubectl.swarm(*words)
    assert (made.code, "created" in made.out) == (0, True), made
    assert "exists already" in kubectl.swarm(*words).out
    other = kubectl.swarm("prefetch", "facebook/opt-6.7b", "-n", NAMESPACE, "--name", scene.name("p"))
    assert (other.code, "asks for something else" in other.err) == (1, True)

    def chosen() -> Manifest:
        found: Manifest = scene.api.get("P2PTask", scene.name("p"), NAMESPACE).get("status", {})
        assert found.get("desired") == 2, found
        return found

    resolved = eventually(chosen, SECONDS)["resolved"]
    assert kubectl.swarm(*words, "--wait", "--timeout", "0.1").code == 1
    for node in ("gpu-1", "gpu-2"):
        agents.report(node, resolved["digest"], state="Ready", bytes=resolved["bytes"])
    done = kubectl.swarm(*words, "--wait", "--timeout", "60", "-o", "json")
    assert (done.code, done.json["status"]["ready"]) == (0, 2)
    owner = [each["manager"] for each in done.json["metadata"].get("managedFields", [])]
    assert owner in ([], ["kubectl-swarm"])
    scene.api.delete("P2PTask", scene.name("p"), NAMESPACE)


def test_suspend_resume_and_retry(scene: Scene, agents: PlayedAgents, kubectl: Kubectl, hub: Hub) -> None:
    agents.add("n1")
    name = scene.name("t")
    assert kubectl.swarm("prefetch", "no/such-model", "-n", NAMESPACE, "--name", name).code == 0

    def phase(wanted: str) -> bool:
        now = scene.api.get("P2PTask", name, NAMESPACE).get("status", {})
        assert now.get("phase") == wanted, now
        return True

    eventually(lambda: phase("Failed"), SECONDS)
    assert kubectl.swarm("suspend", name).code == 0  # found in the operator's namespace, for there is only one
    eventually(lambda: phase("Suspended"), SECONDS)
    why = kubectl.swarm("why", f"p2ptask/{name}")
    assert (why.code, f"kubectl swarm resume {name} -n {NAMESPACE}" in why.out) == (1, True)
    assert kubectl.swarm("retry", name).code == 1
    assert kubectl.swarm("resume", f"p2ptask/{name}", "-n", NAMESPACE).code == 0
    eventually(lambda: phase("Failed"), SECONDS)
    generation = scene.api.get("P2PTask", name, NAMESPACE)["metadata"]["generation"]
    said = kubectl.swarm("retry", name)
    assert (said.code, "tries again" in said.out) == (0, True), said
    after = scene.api.get("P2PTask", name, NAMESPACE)
    assert (after["spec"]["suspend"], after["metadata"]["generation"]) == (False, generation + 2)
    scene.api.delete("P2PTask", name, NAMESPACE)


def test_watching_tells_every_change_until_ctrl_c(scene: Scene, agents: PlayedAgents, kubectl: Kubectl) -> None:
    agents.add("n1")
    name = scene.name("w")
    watch = kubectl.start("status", "-w", "-o", "json", "-n", NAMESPACE)
    try:
        assert kubectl.swarm("prefetch", MODEL, "-n", NAMESPACE, "--name", name, "--copies", "1").code == 0
        assert watch.stdout is not None
        for line in watch.stdout:
            row = json.loads(line)
            if row["name"] == name and row["phase"] == "Running":
                break
    finally:
        said = interrupt(watch)
    assert said.code == 130
    assert "Traceback" not in said.err
    scene.api.delete("P2PTask", name, NAMESPACE)


def test_the_doctor_finds_what_is_wrong(
    scene: Scene, agents: PlayedAgents, kubectl: Kubectl, cluster: ControlPlane
) -> None:
    agents.add("n1", "n2")
    agents.ready("n1")

    def lines() -> dict[str, list[Manifest]]:
        said = kubectl.swarm("doctor", "-o", "json")
        assert said.code == 1, said
        found: dict[str, list[Manifest]] = {}
        for each in said.json:
            found.setdefault(each["area"], []).append(each)
        return found

    found = lines()
    assert [each["verdict"] for each in found["api server"] + found["kinds"] + found["leases"]] == ["ok", "ok", "ok"]
    assert [each["finding"] for each in found["agents"] if each["verdict"] == "problem"] == ["no ready agent on n2"]
    rights = {each["finding"].partition(" ")[0]: each["verdict"] for each in found["permissions"]}
    assert rights[f"{NAMESPACE}:modelswarm-operator"] == "ok"
    assert all(each["remedy"] for area in found.values() for each in area if each["verdict"] == "problem")

    cluster.kubectl("delete", "clusterrolebinding", "modelswarm-operator-agents")
    try:

        def denied() -> bool:
            [line] = [each for each in lines()["permissions"] if "operator may not" in each["finding"]]
            assert (line["verdict"], "list nodecaches.llmaz.io" in line["finding"]) == ("problem", True)
            return True

        eventually(lambda: "operator may not" in json.dumps(lines()["permissions"]) and denied(), SECONDS)
    finally:
        cluster.apply(RIGHTS)


def test_a_user_without_rights_is_told_so_in_one_line(cluster: ControlPlane, operator: OperatorProcess) -> None:
    nobody = Kubectl(cluster, {"KUBECONFIG": str(cluster.user_kubeconfig("nobody"))})
    for words in (("status",), ("tree", "x"), ("why", "node/x"), ("cache",), ("prefetch", MODEL)):
        said = nobody.swarm(*words)
        assert said.code == 3, said
        errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert "nobody" in errors[0]
    assert nobody.swarm("doctor").code in (0, 1)


def test_a_user_of_one_namespace_sees_that_namespace(scene: Scene, agents: PlayedAgents, cluster: ControlPlane) -> None:
    agents.add("n1")
    model = scene.model("m", MODEL)
    scene.playground("play", model)
    pinned(scene, model)
    scene.kubectl("create", "role", "viewer", "--verb=get,list,watch", "--resource=p2ptasks,playgrounds")
    scene.kubectl("create", "rolebinding", "viewer", "--role=viewer", "--user=guest")
    guest = Kubectl(cluster, {"KUBECONFIG": str(cluster.user_kubeconfig("guest"))})

    def look() -> bool:
        said = guest.swarm("tree", "play", "-n", scene.namespace, "-o", "json")
        assert said.code == 0, said
        assert "note: openmodels cannot be read" in said.err
        kinds = [(each["kind"], each["state"]) for each in said.json["children"]]
        # The images are tasks of their own.
        assert kinds == [("OpenModel", "Unknown"), ("Image", "Ready"), ("Image", "Ready")]
        return True

    eventually(look, 10)


@pytest.mark.parametrize(
    ("words", "code", "saying"),
    [
        pytest.param(("tree", "playground/opt-125"), 4, "does not exist in namespace default", id="an unknown object"),
        pytest.param(("why", "p2ptask/x"), 4, "p2ptask/x does not exist", id="an unknown task"),
        pytest.param(("why", "service/x"), 2, "write playground/NAME", id="a kind that it does not know"),
        pytest.param(("plan", "-f", "/nonexistent.yaml"), 2, "could be read", id="a file that is not there"),
        pytest.param(("prefetch", "a b"), 2, "is not a model id", id="no model id"),
        pytest.param(("prefetch", "ollama://x"), 2, "nothing to bring", id="nothing to bring"),
        pytest.param(("status", "--context", "nope"), 3, "nope", id="an unknown context"),
        pytest.param(("status", "--bogus"), 2, "No such option", id="an unknown option"),
    ],
)
def test_errors_are_one_line_and_a_code(
    kubectl: Kubectl, operator: OperatorProcess, words: tuple[str, ...], code: int, saying: str
) -> None:
    said = kubectl.swarm(*words)
    assert (said.code, saying in said.err, said.out) == (code, True, ""), said
    assert "Traceback" not in said.err


def test_names_are_suggested(scene: Scene, agents: PlayedAgents, kubectl: Kubectl) -> None:
    agents.add("gpu-node-1")
    scene.playground("chat", scene.model("m", MODEL))
    said = kubectl.swarm("why", "playground/chad", "-n", scene.namespace)
    assert (said.code, "did you mean chat?" in said.err) == (4, True), said
    assert "did you mean gpu-node-1?" in kubectl.swarm("cache", "gpu-node").err


def test_a_cluster_that_does_not_answer_or_does_not_have_it(
    cluster: ControlPlane, operator: OperatorProcess, kubectl: Kubectl, tmp_path: Path
) -> None:
    config = yaml.safe_load(Path(cluster.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    away = tmp_path / "away"
    away.write_text(yaml.safe_dump(config))
    said = kubectl.swarm("status", "--kubeconfig", str(away))
    assert (said.code, said.err.startswith("error: cannot reach the cluster")) == (3, True), said


def test_kubectl_completes_commands_and_names(scene: Scene, agents: PlayedAgents, kubectl: Kubectl) -> None:
    agents.add("gpu-node-1")
    scene.playground("chat", scene.model("m", MODEL))

    def complete(*words: str) -> list[str]:
        return [line.partition("\t")[0] for line in kubectl("__complete", "swarm", *words).out.splitlines()]

    assert complete("st") == ["status", ":4"]
    assert complete("why", "") == ["playground/", "p2ptask/", "openmodel/", "node/", ":4"]
    # Names are looked up for two seconds at most, so that the shell does not hang.
    eventually(lambda: complete("tree", "-n", scene.namespace, "playground/ch") == ["playground/chat", ":4"], 10)
    eventually(lambda: complete("cache", "gpu") == ["gpu-node-1", ":4"], 10)
    assert complete("status", "-o", "") == ["table", "json", "yaml", ":4"]
