"""Fixtures of the tests on a real control plane. Session-scoped parts are shared; names keep the tests apart.

``cluster``, ``api``, ``hub``, ``registry``, ``operator``, ``scene`` (a fresh namespace and what can be asked about it)
are what most tests need. ``hub_valve`` and ``registry_valve`` hold the origins' answers back for as long as a test
wants. ``operators.replaced(...)`` runs an operator with other flags.
"""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.controlplane import ControlPlane
from dev.hub import Hub, HubThread, Repository
from dev.installation import ROOT, OperatorProcess, install
from dev.registry import Registry
from tests.integration.support import Api, Operators, Scene, Valve
from tests.integration.support.fleet import Swarms
from tests.integration.support.played import PlayedAgents

# The first start on a machine may have to build the programs.
TIMEOUT = 1200

PRIVATE_HOST = "registry.private.test"
WITH_CREDENTIALS = "with-credentials"
"""The namespace in which the operator looks for pull secrets."""

FLAGS = (
    "--log-format=text",
    "--log-level=info",
    "--resync-seconds=30",
    # A pause of the API server that is longer than a Lease would end the operator, which nobody starts again.
    "--lease-seconds=40",
    "--image-check-seconds=3",
    # Tests hold the registry's answers back to see what waits for them.
    "--image-patience-seconds=60",
    f"--credential-namespaces={WITH_CREDENTIALS}",
)

HUGGINGFACE = (
    "facebook/opt-125m",
    "facebook/opt-6.7b",
    "Qwen/Qwen2-0.5B-Instruct",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "meta-llama/Meta-Llama-3-8B",
    "meta-llama/Llama-3.2-1B",
    "AI-ModelScope/opt-125m",
)
GGUF = {
    "Qwen/Qwen2-0.5B-Instruct-GGUF": ("qwen2-0_5b-instruct-q5_k_m.gguf",),
    "Qwen/Qwen2.5-0.5B-Instruct-GGUF": ("qwen2.5-0.5b-instruct-q2_k.gguf", "qwen2.5-0.5b-instruct-q5_k_m.gguf"),
    "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF": ("qwen2.5-coder-0.5b-instruct-q2_k.gguf",),
    "TheBloke/Llama-2-7B-GGUF": ("llama-2-7b.Q8_0.gguf", "llama-2-7b.Q2_K.gguf"),
}
IMAGES = (
    ("modelswarm/loader", "v0.1.0"),
    ("vllm/vllm-openai", "v0.7.3"),
    ("vllm/vllm-openai", "main"),
    ("lmsysorg/sglang", "v0.4.5-cu121"),
    ("lmsysorg/sglang", "main"),
    ("ggerganov/llama.cpp", "server"),
    ("ggerganov/llama.cpp", "main"),
    ("huggingface/text-generation-inference", "2.3.1"),
    ("huggingface/text-generation-inference", "main"),
    ("nvidia/tritonserver", "25.03-trtllm-python-py3"),
    ("nvidia/tritonserver", "main"),
    ("ollama/ollama", "latest"),
    ("ollama/ollama", "main"),
    ("library/busybox", "latest"),
    ("library/busybox", "v1"),
    ("library/busybox", "v2"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Building the programs counts as a test's time, so the first may take long. Fleets of agents are a lane apart."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT))
            if item.path.name.startswith("test_swarm") or here / "seed" in item.path.parents:
                item.add_marker(pytest.mark.fleet)


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    """A control plane with everything but a scheduler; modelswarm's CRDs, rights and BackendRuntimes are installed."""
    with ControlPlane(scheduler=False, audit_log=True) as running:
        install(running)
        yield running


@pytest.fixture(scope="session")
def api(cluster: ControlPlane) -> Iterator[Api]:
    with Api(cluster) as api:
        yield api


@pytest.fixture(scope="session")
def hub_server() -> Iterator[HubThread]:
    """The hub stand-in with small repositories under the names that the examples and llmaz's tests use."""
    repositories = [_repository(id, _model_files(id)) for id in HUGGINGFACE]
    repositories += [_repository(id, {name: f"{id}/{name}".encode() for name in names}) for id, names in GGUF.items()]
    with HubThread(Hub(*repositories)) as running:
        yield running


@pytest.fixture
def hub(hub_server: HubThread) -> Iterator[Hub]:
    """The hub; its faults and counts are reset after the test. Move branches of ``repository`` only."""
    yield hub_server.hub
    hub_server.hub.reset()


def _repository(id: str, files: dict[str, bytes]) -> Repository:
    # ModelScope's own default branch is master, llmaz's default revision is main: both lead to the same commit.
    repository = Repository(id)
    commit = repository.commit(files)
    repository.move("main", commit)
    repository.move("master", commit)
    return repository


def _model_files(id: str) -> dict[str, bytes]:
    return {
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": b"# A model of no use\n",
        "config.json": b"{}",
        "model.safetensors": f"weights of {id}".encode(),
        "tokenizer.json": b"{}",
    }


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """An image registry with every image that the shipped BackendRuntimes and the tests name."""
    with Registry() as running:
        for repository, tag in IMAGES:
            running.push_image(repository, tag, seed=f"{repository}:{tag}")
        yield running


@pytest.fixture(scope="session")
def private_registry() -> Iterator[Registry]:
    """The registry that the operator knows as PRIVATE_HOST; it wants a password. Has ``team/engine:v1``."""
    with Registry(auth="basic", password="the-secret-password-of-these-tests") as running:
        running.push_image("team/engine", "v1")
        yield running


@pytest.fixture(scope="session")
def _hub_valve(hub_server: HubThread) -> Iterator[Valve]:
    with Valve(hub_server.url) as valve:
        yield valve


@pytest.fixture(scope="session")
def _registry_valve(registry: Registry) -> Iterator[Valve]:
    with Valve(registry.url) as valve:
        yield valve


@pytest.fixture
def hub_valve(_hub_valve: Valve) -> Iterator[Valve]:
    """Between the operator and the hub: shut, the hub does not answer. Open again after the test."""
    yield _hub_valve
    _hub_valve.open()


@pytest.fixture
def registry_valve(_registry_valve: Valve) -> Iterator[Valve]:
    """Between the operator and the registry, as ``hub_valve``."""
    yield _registry_valve
    _registry_valve.open()


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """An S3 server with the buckets of the examples; its URL. OSS is spoken to by its S3 interface too."""
    from tests.integration.support.objectstore import serve_object_store

    with serve_object_store() as url:
        yield url


@pytest.fixture(scope="session")
def operators(
    cluster: ControlPlane,
    _hub_valve: Valve,
    _registry_valve: Valve,
    private_registry: Registry,
    object_store: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Operators]:
    hosts = ("docker.io", "ghcr.io", "nvcr.io")
    environment = {
        "HF_ENDPOINT": _hub_valve.url,
        "MODELSCOPE_ENDPOINT": _hub_valve.url,
        "AWS_ENDPOINT_URL": object_store,
        "OSS_ENDPOINT_URL": object_store,
        "STORAGE_EMULATOR_HOST": object_store,
    }
    mirrors = [*(f"{host}={_registry_valve.url}" for host in hosts), f"{PRIVATE_HOST}={private_registry.url}"]
    logs = tmp_path_factory.mktemp("operators")
    operators = Operators(cluster, logs, (*FLAGS, f"--registries={','.join(mirrors)}"), environment)
    yield operators
    operators.shared.stop()


@pytest.fixture
def operator(operators: Operators) -> OperatorProcess:
    """The operator, leading. Shared by all tests; one that stops or kills it need not start it again."""
    return operators.start()


_numbers = itertools.count(1)


@pytest.fixture
def suffix() -> str:
    """Makes the names of cluster-scoped objects unique."""
    return f"t{next(_numbers)}"


@pytest.fixture
def repository(hub: Hub, suffix: str) -> Repository:
    """A repository on the hub that nobody has asked for yet (the operator remembers answers for ten seconds)."""
    id = f"org/model-{suffix}"
    return hub.add(_repository(id, _model_files(id)))


@pytest.fixture
def engine_version(registry: Registry, suffix: str) -> str:
    """A version of vLLM's image that nobody has asked for yet."""
    registry.push_image("vllm/vllm-openai", suffix, seed=suffix)
    return suffix


@contextlib.contextmanager
def _scene(cluster: ControlPlane, api: Api, namespace: str, suffix: str) -> Iterator[Scene]:
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    # Pods are not admitted before it exists.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
    api.apply(account)
    scene = Scene(cluster, api, namespace, suffix)
    yield scene
    scene.clean()


@pytest.fixture
def bare_scene(cluster: ControlPlane, api: Api, hub: Hub, suffix: str) -> Iterator[Scene]:
    """A fresh namespace, whether or not an operator runs; deleted after the test, without waiting."""
    with _scene(cluster, api, f"test-{suffix}", suffix) as scene:
        yield scene


@pytest.fixture
def scene_with_credentials(
    cluster: ControlPlane, api: Api, hub: Hub, suffix: str, operator: OperatorProcess
) -> Iterator[Scene]:
    """The one namespace in which the operator looks for pull secrets; for one test only."""
    with _scene(cluster, api, WITH_CREDENTIALS, suffix) as scene:
        yield scene


@pytest.fixture
def namespace(bare_scene: Scene) -> str:
    return bare_scene.namespace


@pytest.fixture
def scene(bare_scene: Scene, operator: OperatorProcess) -> Scene:
    """A fresh namespace with the shared operator at work."""
    return bare_scene


@pytest.fixture
def agents(api: Api, operator: OperatorProcess) -> Iterator[PlayedAgents]:
    """Agents that the test plays, gone after it. The module's ``operator`` has to be one that gives them work."""
    agents = PlayedAgents(api)
    yield agents
    agents.clean()


@pytest.fixture(scope="module")
def swarms(
    cluster: ControlPlane, api: Api, operators: Operators, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Swarms]:
    """Makes fleets of agents. For as long as the module's tests run, the operator reads the same hub as they do."""
    for manifest in ("p2p/headless-service", "p2p/model-agent-daemonset", "operator/rbac-agents"):
        cluster.apply(ROOT / "config" / f"{manifest}.yaml")
    cluster.apply(ROOT / "config" / "operator" / "rbac-for-agents.yaml")
    flags = ("--agent-root=/mnt/models", "--stall-seconds=120", "--retry-seconds=2", "--agent-grace-seconds=3")
    # It ends when it cannot renew its Lease, and there is no kubelet here that would start it again.
    flags += ("--lease-seconds=60",)
    with (
        HubThread(Hub()) as hub,
        operators.replaced(*flags, environment={"HF_ENDPOINT": hub.url}) as operator,
    ):
        yield Swarms(cluster, api, hub, operator, tmp_path_factory.mktemp("fleets"))
