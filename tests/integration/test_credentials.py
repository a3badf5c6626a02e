"""Private models and images: whose credentials are used, what is said without them, and that no token leaks."""

import base64
import json
import time
from collections.abc import Iterator

import pytest

from dev.hub import Hub, Repository
from dev.installation import NAMESPACE, SERVICE_ACCOUNT
from dev.registry import Registry
from tests.integration.conftest import PRIVATE_HOST
from tests.integration.support import Manifest, Operators, Scene, backend_runtime, eventually, p2p_task

OPERATOR = f"--serviceaccount={NAMESPACE}:{SERVICE_ACCOUNT}"
TOKEN = "hf_the-secret-token-of-these-tests"


@pytest.fixture
def gated(hub: Hub, suffix: str) -> Repository:
    """A gated repository that TOKEN may read."""
    repository = hub.add(Repository(f"gated/model-{suffix}", gated="manual"))
    repository.move("main", repository.commit({"config.json": b"{}", "model.safetensors": b"for members"}))
    hub.allow(TOKEN, repository.id)
    return repository


@pytest.fixture
def system_secret(scene: Scene) -> Iterator[None]:
    scene.api.apply(hub_secret(NAMESPACE))
    yield
    scene.api.delete("Secret", "modelhub-secret", NAMESPACE)


def hub_secret(namespace: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "modelhub-secret", "namespace": namespace},
        "stringData": {"HF_TOKEN": TOKEN},
    }


def touch(scene: Scene, task: Manifest) -> None:
    """It is asked again after a while; a changed spec makes that now."""
    scene.api.patch("P2PTask", task["metadata"]["name"], scene.namespace, {"spec": {"backoffLimit": 7}})


def printed_command(message: str) -> list[list[str]]:
    """The commands in a message that tells how to allow something: what follows the colon."""
    commands = message[message.index("kubectl ") :].split(" && ")
    return [command.rstrip(".;").split()[1:] for command in commands]


def assert_nothing_leaked(scene: Scene, operators: Operators, *secrets: str) -> None:
    """Nowhere but in Secrets: not in our objects, workloads, Events, ConfigMaps, Leases, nor in any operator's log."""
    kinds = ("OpenModel", "Playground", "BackendRuntime", "P2PTask", "Deployment", "ConfigMap", "Event", "Lease", "Pod")
    dump = {kind: json.dumps(scene.api.all(kind)) for kind in kinds} | {"log": operators.logged()}
    for secret in secrets:
        for form in (secret, base64.b64encode(secret.encode()).decode()):
            found = [place for place, text in dump.items() if form in text]
            assert not found, f"a credential stands in {found}"


def test_a_gated_model_is_denied_without_credentials_and_the_gate_stays_closed(scene: Scene, gated: Repository) -> None:
    model = scene.model("gated", gated.id)
    scene.has("OpenModel", model, "Ready", "False", "AccessDenied")
    assert "credentialsSecretRef" not in scene.model_task(model)["spec"]


@pytest.mark.usefixtures("system_secret")
def test_a_token_in_the_operators_namespace_serves_every_gated_model(
    scene: Scene, operators: Operators, gated: Repository
) -> None:
    model = scene.model("gated", gated.id)
    # Whether the Secret exists is looked up every so often, so it may take a moment to be noticed.
    scene.has("OpenModel", model, "Ready", "True", "Ready", seconds=20)
    assert scene.model_task(model)["spec"]["credentialsSecretRef"] == {"name": "modelhub-secret"}
    scene.playground("pg", model)
    scene.deployment("pg")
    assert_nothing_leaked(scene, operators, TOKEN)


def test_else_the_playgrounds_own_secret_is_used_once_the_operator_may_read_it(
    scene: Scene, operators: Operators, gated: Repository
) -> None:
    """As llmaz users keep it: in the Playground's namespace. The message shows the very command that allows it."""
    scene.apply(hub_secret(scene.namespace))
    model = scene.model("gated", gated.id)
    scene.playground("pg", model)
    message = scene.has("Playground", "pg", "Available", "False", "WaitingForModel", saying="CredentialNotReadable")
    assert scene.find("Deployment", "pg") is None
    [task] = scene.tasks("model")
    assert task["metadata"]["ownerReferences"][0]["kind"] == "Playground"
    assert task["spec"]["credentialsSecretRef"] == {"name": "modelhub-secret"}
    for command in printed_command(task["status"]["display"]["message"]):
        scene.cluster.kubectl(*command)
    assert "kubectl -n" in message
    touch(scene, task)
    scene.has("P2PTask", task["metadata"]["name"], "Ready", "True", "NothingToDistribute")
    scene.deployment("pg")
    assert_nothing_leaked(scene, operators, TOKEN)


def test_a_playground_in_a_namespace_without_the_secret_is_told_so(scene: Scene, gated: Repository) -> None:
    model = scene.model("gated", gated.id)
    scene.playground("pg", model)
    message = scene.has("Playground", "pg", "Available", "False", "WaitingForModel", saying="Credential")
    assert "modelhub-secret" in message


def test_a_token_that_is_on_nobodys_list_is_denied(scene: Scene, hub: Hub, operators: Operators) -> None:
    repository = hub.add(Repository(f"gated/closed-{scene.suffix}", gated="manual"))
    repository.move("main", repository.commit({"config.json": b"{}"}))
    hub.allow("hf_a-token-without-rights")
    secret = hub_secret(scene.namespace)
    secret["stringData"] = {"HF_TOKEN": "hf_a-token-without-rights"}
    scene.apply(secret)
    allow_secret(scene, "modelhub-secret")
    scene.apply(p2p_task("gated", repository.id, credentialsSecretRef={"name": "modelhub-secret"}))
    scene.has("P2PTask", "gated", "Ready", "False", "AccessDenied")
    assert_nothing_leaked(scene, operators, "hf_a-token-without-rights")


def allow_secret(scene: Scene, *names: str) -> None:
    named = [f"--resource-name={name}" for name in names]
    scene.kubectl("create", "role", "credentials", "--verb=get", "--resource=secrets", *named)
    scene.kubectl("create", "rolebinding", "credentials", "--role=credentials", OPERATOR)


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        pytest.param(None, "CredentialNotReadable", id="may not read: whether it exists is not known"),
        pytest.param({}, "CredentialNotFound", id="has no such key"),
    ],
)
def test_a_named_secret_that_is_of_no_use_is_said(scene: Scene, secret: Manifest | None, reason: str) -> None:
    if secret is not None:
        meta = {"name": "mine"}
        scene.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": secret})
        allow_secret(scene, "mine")
    scene.apply(p2p_task("gated", "facebook/opt-125m", credentialsSecretRef={"name": "mine"}))
    message = scene.has("P2PTask", "gated", "Ready", "False", reason)
    assert "mine" in message


def test_a_private_image_is_pinned_with_the_default_accounts_pull_secret_where_allowed(
    scene_with_credentials: Scene, operators: Operators, private_registry: Registry
) -> None:
    scene = scene_with_credentials
    auth = {"username": private_registry.username, "password": private_registry.password}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "regcred"},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": {PRIVATE_HOST: auth}})},
    }
    scene.apply(secret)
    scene.kubectl("patch", "serviceaccount", "default", "-p", '{"imagePullSecrets": [{"name": "regcred"}]}')
    pull = ("--verb=get", "--resource=serviceaccounts", "--resource-name=default")
    scene.kubectl("create", "role", "pull-secrets", *pull)
    scene.kubectl("create", "rolebinding", "pull-secrets", "--role=pull-secrets", OPERATOR)
    image = f"{PRIVATE_HOST}/team/engine:v1"
    scene.apply(backend_runtime(scene.name("private"), f"{PRIVATE_HOST}/team/engine"))
    model = scene.model()
    scene.playground("pg", model, backendName=scene.name("private"))
    # The right to read the Secret itself is still missing. The kubelet does not need ours, so nobody waits; the message
    # says how to give it.
    scene.deployment("pg")
    name = scene.image_task(image)["metadata"]["name"]
    assert scene.image_task(image)["spec"]["image"]["pullSecrets"] == [{"name": "regcred"}]
    scene.has("P2PTask", name, "Ready", "True", "NothingToDistribute")
    for command in printed_command(scene.has("P2PTask", name, "Degraded", "True", "CredentialNotReadable")):
        scene.cluster.kubectl(*command)
    touch(scene, scene.image_task(image))
    scene.has("P2PTask", name, "Degraded", "False", "Healthy")
    assert scene.image_task(image)["status"]["resolved"]["digestSource"] == "Registry"
    assert scene.image_task(image)["status"]["phase"] == "Succeeded"
    assert_nothing_leaked(scene, operators, private_registry.password)

    # One more, given later, reaches the task that is there; the account is looked at every so often.
    before = scene.image_task(image)["metadata"]["uid"]
    scene.kubectl(
        "patch", "serviceaccount", "default", "-p", '{"imagePullSecrets": [{"name": "regcred"}, {"name": "x"}]}'
    )

    def arrived() -> bool:
        scene.kubectl("annotate", "playground", "pg", f"looked={time.monotonic()}", "--overwrite")
        return bool(scene.image_task(image)["spec"]["image"]["pullSecrets"] == [{"name": "regcred"}, {"name": "x"}])

    eventually(arrived, 40, every=1.0)
    assert scene.image_task(image)["metadata"]["uid"] == before
    scene.has("Playground", "pg", "Progressing", "True", "Pending")


def test_a_private_image_without_credentials_is_left_to_the_kubelet(scene: Scene) -> None:
    scene.apply(p2p_task("private", image=f"{PRIVATE_HOST}/team/engine:v1"))
    scene.has("P2PTask", "private", "Ready", "True", "NothingToDistribute", saying="pull secret")
    scene.has("P2PTask", "private", "Degraded", "True", "AccessDenied", saying="pull secret")
    assert scene.get("P2PTask", "private")["status"]["phase"] == "Succeeded"


def test_who_wants_to_be_sure_of_a_private_image_waits(scene: Scene) -> None:
    scene.apply(p2p_task("private", image=f"{PRIVATE_HOST}/team/engine:v1", fallback="Fail"))
    scene.has("P2PTask", "private", "Ready", "False", "AccessDenied")
    assert scene.get("P2PTask", "private")["status"]["phase"] == "Failed"
