"""The CRDs on a real API server: what it lets in, what it refuses and in which words, defaults, columns, scale."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from dev.controlplane import ControlPlane, KubectlFailed
from modelswarm.api.schema import KINDS
from tests.integration.crd_cases import (
    HUB,
    Manifest,
    elastic,
    hub,
    image,
    models,
    node_cache,
    openmodel,
    playground,
    task,
)
from tests.integration.crd_cases.accepted import ACCEPTED
from tests.integration.crd_cases.refused import REFUSED

# The first start on a machine may have to build the programs.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("examples/**/*.yaml"))
RUNTIMES = sorted(ROOT.glob("charts/modelswarm/backendruntimes/*.yaml"))
PATHS = {
    kind.KIND: "/".join(
        ["/apis", kind.GROUP, kind.VERSION, *(["namespaces", "default"] if kind.NAMESPACED else []), kind.PLURAL]
    )
    for kind in KINDS
}


@pytest.fixture(scope="module")
def api_server() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as cluster:
        cluster.apply(ROOT / "crds")
        yield cluster


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api_server.server, verify=api_server.ssl_context(), timeout=30) as client:
        yield client


def create(api: httpx.Client, manifest: Manifest, *, dry_run: bool = True) -> httpx.Response:
    path = PATHS[str(manifest["kind"])]
    return api.post(path, json=manifest, params={"dryRun": "All"} if dry_run else {})


def created_spec(api: httpx.Client, manifest: Manifest) -> Manifest:
    """The spec as the API server would store it."""
    response = create(api, manifest)
    assert response.status_code == 201, response.json()["message"]
    spec: Manifest = response.json()["spec"]
    return spec


def change(api: httpx.Client, path: str, patch: Manifest, *, dry_run: bool = True) -> httpx.Response:
    return api.patch(
        path,
        content=json.dumps(patch),
        headers={"Content-Type": "application/merge-patch+json"},
        params={"dryRun": "All"} if dry_run else {},
    )


# Admission


@pytest.mark.parametrize("manifest", ACCEPTED)
def test_the_api_server_accepts(api: httpx.Client, manifest: Manifest) -> None:
    created_spec(api, manifest)


@pytest.mark.parametrize(("manifest", "words"), REFUSED)
def test_the_api_server_refuses(api: httpx.Client, manifest: Manifest, words: str) -> None:
    response = create(api, manifest)
    assert response.status_code == 422, response.text
    assert re.search(words, response.json()["message"]), response.json()["message"]


def test_rules_hold_for_updates_too(api: httpx.Client) -> None:
    assert create(api, playground(name="updated"), dry_run=False).status_code == 201
    response = change(api, f"{PATHS['Playground']}/updated", {"spec": {"modelClaims": {"models": [{"name": "a"}]}}})
    assert "couldn't be both not nil" in response.json()["message"]


TASK_CHANGES = [
    pytest.param(
        "model-task",
        {"model": {"source": {"modelHub": {"revision": "v2"}}}},
        "model is immutable",
        id="another revision",
    ),
    pytest.param(
        "model-task", {"model": {"source": {"uri": "s3://b/p"}}}, "model is immutable", id="another source beside it"
    ),
    pytest.param("model-task", {"model": None, "image": image()}, "is immutable", id="an image instead of the model"),
    pytest.param("model-task", {"image": image()}, "exactly one of", id="an image beside the model"),
    pytest.param("model-task", {"model": None}, "exactly one of", id="nothing at all"),
    pytest.param("image-task", {"image": {"reference": "other:v1"}}, "image is immutable", id="another image"),
    pytest.param("image-task", {"image": {"platforms": ["linux/arm64"]}}, "image is immutable", id="other platforms"),
    pytest.param(
        "image-task", {"image": None, "model": {"source": HUB}}, "is immutable", id="a model instead of the image"
    ),
    pytest.param("model-task", {"suspend": True, "pin": True}, None, id="suspend and pin are let through"),
    pytest.param(
        "image-task", {"image": {"pullSecrets": [{"name": "regcred"}]}}, None, id="other pull secrets are let through"
    ),
    pytest.param("image-task", {"placement": {"copies": "All"}}, None, id="more copies are let through"),
    pytest.param("image-task", {"engine": "Direct", "fallback": "Fail"}, None, id="another engine is let through"),
]


@pytest.fixture(scope="module")
def tasks(api: httpx.Client) -> None:
    for manifest in (task(name="model-task"), task(name="image-task", image=image())):
        assert create(api, manifest, dry_run=False).status_code == 201


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(("name", "patch", "words"), TASK_CHANGES)
def test_what_a_task_distributes_cannot_change(
    api: httpx.Client, name: str, patch: Manifest, words: str | None
) -> None:
    response = change(api, f"{PATHS['P2PTask']}/{name}", {"spec": patch})
    if words is None:
        assert response.status_code == 200, response.text
    else:
        assert response.status_code == 422
        assert words in response.json()["message"]


def test_an_object_from_before_the_rules_stays_usable(api_server: ControlPlane, api: httpx.Client) -> None:
    """The API server objects only when what breaks a rule is changed."""
    crd = yaml.safe_load((ROOT / "crds/llmaz.io_openmodels.yaml").read_text())
    crd["metadata"]["name"] = "openmodels.before.example.com"
    crd["spec"]["group"] = "before.example.com"
    crd["spec"]["names"]["shortNames"] = ["before"]
    strict = yaml.safe_dump(crd)
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    path = "/apis/before.example.com/v1alpha1/openmodels"
    old = openmodel({"modelHub": {}}, name="old", familyName="two words") | {
        "apiVersion": "before.example.com/v1alpha1"
    }
    new = old | {"metadata": {"name": "new"}}

    api_server.apply(yaml.safe_dump(crd))
    eventually(lambda: api.post(path, json=old).status_code in (201, 409))
    api_server.apply(strict)
    eventually(lambda: api.post(path, json=new, params={"dryRun": "All"}).status_code == 422)

    label = change(api, f"{path}/old", {"metadata": {"labels": {"a": "b"}}, "spec": {"ownedBy": "me"}})
    status = change(api, f"{path}/old/status", {"status": {"conditions": [condition("Ready")]}})
    family = change(api, f"{path}/old", {"spec": {"familyName": "three more words"}})
    assert (label.status_code, status.status_code, family.status_code) == (200, 200, 422), label.text + status.text


def eventually(holds: Callable[[], bool], timeout: float = 30) -> None:
    """A changed CRD is served a moment after it was written."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Defaults


DEFAULTS = [
    pytest.param(
        openmodel(),
        "source.modelHub",
        HUB["modelHub"] | {"name": "Huggingface", "revision": "main"},
        id="hub",
    ),
    pytest.param(hub(name="ModelScope"), "source.modelHub.name", "ModelScope", id="a hub that is given is kept"),
    pytest.param(openmodel(), "ownedBy", "llmaz", id="ownedBy"),
    pytest.param(openmodel(ownedBy="me"), "ownedBy", "me", id="ownedBy that is given is kept"),
    pytest.param(openmodel(), "createdAt", None, id="createdAt has no default"),
    pytest.param(
        openmodel(createdAt="2025-01-01T00:00:00Z"), "createdAt", "2025-01-01T00:00:00Z", id="createdAt is kept"
    ),
    pytest.param(playground(), "replicas", 1, id="replicas"),
    pytest.param(playground(), "backendRuntimeConfig", None, id="no backend is put where none is"),
    pytest.param(playground(backendRuntimeConfig={}), "backendRuntimeConfig", {"backendName": "vllm"}, id="backend"),
    pytest.param(models(None), "modelClaims.models", [{"name": "model-0", "role": "main"}], id="role"),
    pytest.param(elastic(maxReplicas=2), "elasticConfig", {"minReplicas": 1, "maxReplicas": 2}, id="minReplicas"),
    pytest.param(
        task(model=None, image=image()),
        "",
        {
            "image": image(),
            "engine": "Auto",
            "pin": False,
            "fallback": "Direct",
            "suspend": False,
            "backoffLimit": 6,
        },
        id="a task",
    ),
    pytest.param(task(placement={}), "placement", {"copies": 2, "minReady": 1}, id="placement"),
]


@pytest.mark.parametrize(("manifest", "path", "value"), DEFAULTS)
def test_defaults(api: httpx.Client, manifest: Manifest, path: str, value: object) -> None:
    found: object = created_spec(api, manifest)
    for key in path.split(".") if path else []:
        found = found.get(key) if isinstance(found, dict) else None
    assert found == value


def test_unknown_fields_are_dropped(api: httpx.Client) -> None:
    assert "tolerations" not in created_spec(api, playground(tolerations=[]))


# Status


def condition(type_: str) -> Manifest:
    now = "2025-01-01T00:00:00Z"
    return {"type": type_, "status": "False", "reason": "Pending", "message": "", "lastTransitionTime": now}


def cached(**fields: object) -> Manifest:
    return {"content": f"sha256:{'a' * 64}", "name": "org/model", "state": "Ready", **fields}


STATUSES = [
    pytest.param("Playground", {"conditions": [condition("Available")]}, "status.replicas: Required", id="no replicas"),
    pytest.param("Playground", {"replicas": 0, "conditions": [condition("Available")]}, None, id="no replicas yet"),
    pytest.param(
        "Playground", {"replicas": 0, "conditions": [condition("A"), condition("A")]}, "Duplicate value", id="twice"
    ),
    pytest.param("P2PTask", {"phase": "Sleeping"}, "status.phase: Unsupported value", id="a phase that does not exist"),
    pytest.param("P2PTask", {"phase": "Running", "ready": 0, "progress": {"percent": 0}}, None, id="zeros"),
    pytest.param(
        "P2PTask",
        {"failures": [{"node": f"n{n}", "reason": "R", "message": ""} for n in range(21)]},
        "Too many",
        id="more than 20 failures",
    ),
    pytest.param("NodeCache", {"models": [cached()], "usedBytes": 0}, None, id="a model on a node"),
    pytest.param("NodeCache", {"models": [cached(content=f"model:{'b' * 64}")]}, None, id="a model that is not pinned"),
    pytest.param("NodeCache", {"models": [cached(), cached()]}, "Duplicate value", id="a model twice"),
    pytest.param("NodeCache", {"models": [cached(content="b" * 64)]}, r"models\[0\].content", id="a digest alone"),
    pytest.param("NodeCache", {"models": [cached(state="Sleeping")]}, "Unsupported value", id="an unknown state"),
    pytest.param("NodeCache", {"models": [cached(fetchingFrom="Moon")]}, "Unsupported value", id="an unknown source"),
    pytest.param("NodeCache", {"models": [cached(message="m" * 257)]}, "Too long", id="a long message"),
    pytest.param(
        "NodeCache",
        {"models": [cached(content=f"sha256:{n:064x}") for n in range(1001)]},
        "Too many",
        id="more than 1,000 models",
    ),
]


@pytest.mark.parametrize(("kind", "status", "words"), STATUSES)
def test_status(api: httpx.Client, kind: str, status: Manifest, words: str | None) -> None:
    manifest = {"Playground": playground, "P2PTask": task, "NodeCache": node_cache}[kind](name="with-status")
    assert create(api, manifest, dry_run=False).status_code in (201, 409)
    response = change(api, f"{PATHS[kind]}/with-status/status", {"status": status})
    assert response.status_code == (422 if words else 200), response.text
    assert re.search(words or "", response.text)


def test_kubectl_scale_works(api: httpx.Client, api_server: ControlPlane) -> None:
    assert create(api, playground(name="scaled"), dry_run=False).status_code == 201
    api_server.kubectl("scale", "pl", "scaled", "--replicas=3")
    path = f"{PATHS['Playground']}/scaled"
    assert api.get(path).json()["spec"]["replicas"] == 3
    status: Manifest = {"replicas": 2, "selector": "llmaz.io/playground=scaled", "conditions": []}
    assert change(api, f"{path}/status", {"status": status}, dry_run=False).status_code == 200
    scale = api.get(f"{path}/scale").json()
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "llmaz.io/playground=scaled"}


# kubectl


COLUMNS = [
    ("om", "NAME OWNEDBY AGE MODELHUB MODELID URI", "READY MESSAGE"),
    ("pl", "NAME MODEL REPLICAS STATUS AGE", "MESSAGE"),
    ("br", "NAME AGE", "IMAGE VERSION"),
    ("p2pt", "NAME ENGINE READY PROGRESS ETA PHASE AGE", "ORIGIN PEER REVISION MESSAGE"),
    ("nc", "NAME MODELS SIZE FREE AGE", "METAINFO VERSION CLOSED BY"),
]


@pytest.mark.parametrize(("short_name", "columns", "wide"), COLUMNS)
def test_columns_of_kubectl_get(
    api_server: ControlPlane, api: httpx.Client, short_name: str, columns: str, wide: str
) -> None:
    for manifest in (openmodel(), playground(), task(), node_cache(), yaml.safe_load(RUNTIMES[0].read_text())):
        assert create(api, manifest, dry_run=False).status_code in (201, 409)
    assert api_server.kubectl("get", short_name).splitlines()[0].split() == columns.split()
    headers = api_server.kubectl("get", short_name, "-o", "wide").splitlines()[0].split()
    assert sorted(headers) == sorted([*columns.split(), *wide.split()])


def test_the_status_column_says_what_a_playground_waits_for(api_server: ControlPlane, api: httpx.Client) -> None:
    create(api, playground(name="waiting"), dry_run=False)
    waiting = condition("Available") | {"reason": "WaitingForModel", "message": "model llama3-8b: 71% 1/2 ETA 1m14s"}
    status: Manifest = {"replicas": 0, "conditions": [waiting]}
    assert change(api, f"{PATHS['Playground']}/waiting/status", {"status": status}, dry_run=False).status_code == 200
    assert "WaitingForModel" in api_server.kubectl("get", "pl", "waiting")
    assert "71% 1/2 ETA 1m14s" in api_server.kubectl("get", "pl", "waiting", "-o", "wide")


@pytest.mark.usefixtures("tasks")
def test_tasks_read_well(api_server: ControlPlane, api: httpx.Client) -> None:
    status: Manifest = {
        "phase": "Running",
        "engine": "BitTorrent",
        "ready": 0,
        "display": {"ready": "1/2", "progress": "71%", "eta": "1m14s"},
    }
    assert change(api, f"{PATHS['P2PTask']}/model-task/status", {"status": status}, dry_run=False).status_code == 200
    line = api_server.kubectl("get", "p2ptasks", "model-task", "--no-headers").split()
    assert line[:6] == ["model-task", "BitTorrent", "1/2", "71%", "1m14s", "Running"]
    running = api_server.kubectl("get", "p2pt", "--field-selector", "status.phase=Running", "-o", "name")
    assert running.split() == ["p2ptask.llmaz.io/model-task"]
    api_server.kubectl("wait", "--for=jsonpath={.status.ready}=0", "--timeout=5s", "p2ptask/model-task")
    assert "p2ptask.llmaz.io/model-task" in api_server.kubectl("get", "llmaz", "-o", "name")


EXPLAINED = [
    ("p2ptask", "These bytes, on those nodes"),
    ("p2ptask.spec", "How bytes are spread"),
    ("p2ptask.status", "what stall timeouts are measured from"),
    ("p2ptask.spec.placement", "On how many nodes"),
    ("nodecache", "only that node's agent writes it"),
    ("nodecache.status.models", "Bytes that this node got from other nodes"),
    ("openmodel.spec.source", "A repository on a model hub"),
    ("playground.spec.elasticConfig.scaleTrigger.hpa.behavior", "scaleDown"),
    ("backendruntime.spec.readinessProbe", "periodSeconds"),
]


@pytest.mark.parametrize(("path", "words"), EXPLAINED)
def test_kubectl_explain(api_server: ControlPlane, path: str, words: str) -> None:
    text = " ".join(api_server.kubectl("explain", path).split())
    assert words in text
    if path == "p2ptask.spec":
        assert "<no description>" not in text


# Files


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in EXAMPLES + RUNTIMES])
def test_every_shipped_file_applies(api_server: ControlPlane, path: Path) -> None:
    """Strict: a field that the schema does not know is an error."""
    api_server.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", path)


def test_a_misspelt_field_is_told(api_server: ControlPlane) -> None:
    text = yaml.safe_dump(playground(replica=3))
    with pytest.raises(KubectlFailed, match=r"unknown field|field not declared"):
        api_server.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=text)


def test_the_crds_also_apply_from_the_client_side(api_server: ControlPlane) -> None:
    """Their text fits into the annotation that it needs."""
    api_server.kubectl("apply", "--dry-run=server", "-f", ROOT / "crds")
