"""Images on the real Dragonfly: preheated by the operator, and pulled through a node's daemon as containerd does."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx
import pytest

from dev.dragonfly.daemon import Daemon
from dev.installation import OperatorProcess
from dev.registry import PushedImage, Registry
from tests.dragonfly.support import Bench
from tests.dragonfly.support.addresses import AddressUnavailable, private_address
from tests.dragonfly.support.bench import traces
from tests.integration.support.waiting import eventually

PLATFORM = "linux/amd64"
LAYERS = (6 << 20, 5 << 20)
"""More than what dfdaemon calls small: smaller ones come from the registry in any case."""
PULL_SECRET = "aws-access-secret"
"""Any Secret that the operator may read in its namespace: which ones these are is not what is tested here."""


@dataclass(frozen=True, slots=True)
class Registries:
    open: Registry
    private: Registry
    """Knows names and passwords, and no tokens."""

    def of(self, image: PushedImage) -> Registry:
        return next(each for each in (self.open, self.private) if image["reference"].startswith(f"{each.host}/"))


@pytest.fixture(scope="module")
def registries() -> Iterator[Registries]:
    try:
        with (
            private_address() as address,
            Registry(address=address) as public,
            Registry(address=address, auth="basic") as private,
        ):
            yield Registries(public, private)
    except AddressUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def operator(bench: Bench, registries: Registries) -> Iterator[OperatorProcess]:
    """As configured for nodes that name layers by their URL, which is all that this manager can."""
    with _operator(bench, registries, DRAGONFLY_IMAGE_IDS="url") as running:
        running.wait_leading()
        yield running


def _operator(bench: Bench, registries: Registries, **environment: str) -> OperatorProcess:
    hosts = ",".join(f"{registry.host}={registry.url}" for registry in (registries.open, registries.private))
    bench.dragonfly.wait_preheatable()
    return bench.operator(f"--registries={hosts}", asks_seeds=True, DRAGONFLY_PLATFORMS=PLATFORM, **environment)


@pytest.fixture(scope="module")
def public_image(registries: Registries) -> PushedImage:
    return registries.open.push_image("team/public", "v1", layer_bytes=LAYERS, seed="public")


@pytest.fixture(scope="module")
def private_image(registries: Registries) -> PushedImage:
    return registries.private.push_image("team/private", "v1", layer_bytes=LAYERS, seed="private")


@pytest.fixture(scope="module")
def preheated(
    bench: Bench,
    operator: OperatorProcess,
    public_image: PushedImage,
    private_image: PushedImage,
    registries: Registries,
) -> dict[str, PushedImage]:
    """Both at once; Ready."""
    config = json.dumps(registries.private.docker_config())
    bench.secret(PULL_SECRET, {".dockerconfigjson": config})
    bench.task("public-image", image=public_image["reference"])
    bench.task("private-image", image=private_image["reference"], image_spec={"pullSecrets": [{"name": PULL_SECRET}]})
    for name in ("public-image", "private-image"):
        bench.wait_distributed(name)
    return {"public-image": public_image, "private-image": private_image}


@pytest.mark.parametrize("name", ["public-image", "private-image"])
def test_the_seed_holds_what_the_task_says(bench: Bench, preheated: dict[str, PushedImage], name: str) -> None:
    image = preheated[name]["platforms"][PLATFORM]
    blobs = {*image["layers"], image["config"]}
    books = bench.status(name)["dragonfly"]
    examples = {example["name"]: example["id"] for example in books["examples"]}
    assert set(examples) == blobs
    seed = bench.dragonfly.seeds[0]
    assert set(examples.values()) <= seed.tasks(), "the ids in the status are those of the daemon"
    for digest, task_id in examples.items():
        assert f"sha256:{hashlib.sha256(seed.task_file(task_id).read_bytes()).hexdigest()}" == digest


@pytest.mark.parametrize(("name", "node"), [("public-image", 0), ("private-image", 1)])
def test_a_pull_through_the_node_s_daemon_hits_what_was_preheated(
    bench: Bench, registries: Registries, preheated: dict[str, PushedImage], name: str, node: int
) -> None:
    image, daemon = preheated[name], bench.dragonfly.daemons[node]
    registry = registries.of(image)
    layers = image["platforms"][PLATFORM]["layers"]
    before, asked = daemon.traffic(), _blob_bytes(registry)
    for digest in layers:
        assert _pull(daemon, registry, image, digest) == digest
    total = sum(LAYERS)

    def moved() -> Mapping[str, int] | None:
        grown = daemon.traffic()
        grown.subtract(before)
        return grown if grown["REMOTE_PEER"] >= total else None

    assert eventually(moved, 20)["BACK_TO_SOURCE"] == 0
    # A daemon asks the registry for one byte of a layer to learn its size.
    assert _blob_bytes(registry) - asked <= len(layers)


def test_credentials_of_a_registry_leave_the_manager_with_the_job(
    bench: Bench, registries: Registries, preheated: dict[str, PushedImage]
) -> None:
    """Sent as a header, because this manager would use a password for manifests only."""
    assert bench.jobs("private-image") == []
    assert len(bench.jobs("public-image")) == 1
    listed = json.dumps(bench.dragonfly.api.jobs())
    assert registries.private.password not in listed
    assert "finalizers" not in bench.get("private-image")["metadata"]


def test_the_operator_has_no_internal_error_to_tell_of(
    operator: OperatorProcess, preheated: dict[str, PushedImage]
) -> None:
    assert traces(operator.child.log) == []


def test_nodes_that_name_layers_by_digest_get_nothing_from_this_manager_and_are_told(
    bench: Bench, registries: Registries, operator: OperatorProcess, preheated: dict[str, PushedImage]
) -> None:
    image = registries.open.push_image("team/digest", "v1", layer_bytes=LAYERS, seed="digest")
    operator.stop()
    with _operator(bench, registries, DRAGONFLY_IMAGE_IDS="digest") as other:
        other.wait_leading()
        bench.task("digest-image", image=image["reference"])
        bench.wait("digest-image", "True", "ImagePreheatIneffective", seconds=60)
        message = bench.condition("digest-image", "Degraded")[2]
        assert bench.condition("digest-image", "Degraded")[:2] == ("True", "ImagePreheatIneffective")
        assert "MODELSWARM_DRAGONFLY_IMAGE_IDS=url" in message
        eventually(lambda: bench.jobs("digest-image") == [], 30)
        assert traces(other.child.log) == []


# As containerd does


def _pull(daemon: Daemon, registry: Registry, image: PushedImage, digest: str) -> str:
    """A layer through the daemon's proxy, with containerd's header; the digest of what came."""
    repository = image["reference"].removeprefix(f"{registry.host}/").rpartition(":")[0]
    auth = (registry.username, registry.password) if registry.auth == "basic" else None
    headers = {"X-Dragonfly-Registry": registry.url}
    with httpx.Client(trust_env=False, timeout=60, auth=auth) as client:
        answer = client.get(f"{daemon.proxy_url}/v2/{repository}/blobs/{digest}", headers=headers)
    assert answer.status_code == httpx.codes.OK, answer.text[:300]
    return f"sha256:{hashlib.sha256(answer.content).hexdigest()}"


def _blob_bytes(registry: Registry) -> int:
    """What the registry has sent of blobs."""
    return sum(entry.size for entry in registry.access_log() if entry.method == "GET" and "/blobs/" in entry.uri)
