import base64
import json
import traceback
from typing import Any

import pytest

from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import HubName
from modelswarm.content.credentials import Credentials
from modelswarm.content.source import HostSource, HubSource, OllamaSource, Provider, Source, StoreSource
from modelswarm.controllers.secrets import read_credentials, read_registry_auths, secret_for
from modelswarm.errors import Forbidden, ModelswarmError, TaskBlocked, Unavailable
from tests.unit.controllers.fake_kube import FakeKube, world
from tests.unit.controllers.objects import task

HUB = HubSource(HubName.HUGGINGFACE, "Qwen/Qwen2-0.5B")
MODELSCOPE = HubSource(HubName.MODELSCOPE, "Qwen/Qwen2-0.5B")
S3, OSS, GCS = (StoreSource(provider, "bucket", "path") for provider in (Provider.S3, Provider.OSS, Provider.GCS))
TOKEN = "hf_very-secret"


def secret(name: str, *, namespace: str = "llmaz-system", **values: Any) -> JsonObject:
    encoded = {key.replace("__", "."): base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {**encoded},
    }


async def read(source: Source, *secrets: JsonObject, name: str | None = "creds", kube: FakeKube | None = None) -> Any:
    kube = kube or FakeKube()
    for each in secrets:
        kube.put(each)
    spec: dict[str, Any] = {} if name is None else {"credentialsSecretRef": {"name": name}}
    return await read_credentials(world(kube), task(**spec), source)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        pytest.param(HUB, "modelhub-secret", id="a hub"),
        pytest.param(OSS, "oss-access-secret", id="OSS"),
        pytest.param(S3, "aws-access-secret", id="S3"),
        pytest.param(GCS, "aws-access-secret", id="GCS by its S3 interface"),
        pytest.param(OllamaSource("qwen2"), None, id="ollama pulls by itself"),
        pytest.param(HostSource("/models"), None, id="a directory needs nothing"),
    ],
)
def test_secret_for(source: Source, name: str | None) -> None:
    assert secret_for(source) == name


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        pytest.param(HUB, {"HF_TOKEN": TOKEN}, Credentials(hub_token=TOKEN), id="a hub token"),
        pytest.param(HUB, {"HF_TOKEN": f"{TOKEN}\n"}, Credentials(hub_token=TOKEN), id="a newline at its end is cut"),
        pytest.param(
            MODELSCOPE,
            {"MODELSCOPE_API_TOKEN": "ms", "HF_TOKEN": TOKEN},
            Credentials(modelscope_token="ms"),
            id="ModelScope's own token, and no other",
        ),
        pytest.param(MODELSCOPE, {"HF_TOKEN": TOKEN}, Credentials(), id="ModelScope does without a token"),
        pytest.param(
            OSS,
            {"OSS_ACCESS_KEY_ID": "id", "OSS_ACCESS_KEY_SECRET": "key"},
            Credentials(access_key_id="id", access_key_secret="key"),
            id="OSS keys",
        ),
        pytest.param(
            S3,
            {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"},
            Credentials(access_key_id="id", access_key_secret="key"),
            id="AWS keys",
        ),
    ],
)
async def test_what_is_read(source: Source, values: dict[str, Any], expected: Credentials) -> None:
    assert await read(source, secret("creds", **values)) == expected


async def test_a_task_that_names_no_secret_gets_none_and_nothing_is_read() -> None:
    kube = FakeKube()
    assert await read(HUB, name=None, kube=kube) is None
    assert kube.calls == []


async def test_a_secret_of_another_namespace_does_not_count() -> None:
    with pytest.raises(TaskBlocked, match=r"Secret llmaz-system/creds does not exist"):
        await read(HUB, secret("creds", namespace="default", HF_TOKEN=TOKEN))


@pytest.mark.parametrize(
    ("source", "values", "message"),
    [
        pytest.param(HUB, {}, "Secret creds has no key HF_TOKEN, or it is empty", id="no key"),
        pytest.param(HUB, {"HF_TOKEN": " \n"}, "Secret creds has no key HF_TOKEN, or it is empty", id="an empty key"),
        pytest.param(
            S3,
            {"AWS_ACCESS_KEY_ID": "id"},
            "Secret creds has no key AWS_SECRET_ACCESS_KEY, or it is empty",
            id="half of a pair",
        ),
    ],
)
async def test_a_missing_key(source: Source, values: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskBlocked) as caught:
        await read(source, secret("creds", **values))
    assert (caught.value.reason, caught.value.message) == ("CredentialNotFound", message)


async def test_a_secret_without_data() -> None:
    empty: JsonObject = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "creds", "namespace": "llmaz-system"},
    }
    with pytest.raises(TaskBlocked, match="has no key HF_TOKEN"):
        await read(HUB, empty)


async def test_a_missing_secret_says_what_to_do() -> None:
    with pytest.raises(TaskBlocked) as caught:
        await read(HUB)
    assert caught.value.reason == "CredentialNotFound"
    assert caught.value.message == "Secret llmaz-system/creds does not exist; create it, or remove the reference"


async def test_a_secret_that_may_not_be_read_says_how_to_grant_it() -> None:
    kube = FakeKube(faults={("get", "creds"): [Forbidden("no", status=403)]})
    with pytest.raises(TaskBlocked) as caught:
        await read(HUB, kube=kube)
    assert caught.value.reason == "CredentialNotReadable"
    for part in (
        "Secret llmaz-system/creds",
        "kubectl -n llmaz-system create role modelswarm-credentials-creds ",
        "--resource-name=creds",
        "create rolebinding",
        "--serviceaccount=llmaz-system:modelswarm-operator",
    ):
        assert part in caught.value.message


async def test_an_api_server_that_does_not_answer_is_not_the_user_s_fault() -> None:
    with pytest.raises(Unavailable):
        await read(HUB, kube=FakeKube(faults={("get", "creds"): [Unavailable("no answer")]}))


# --- pull secrets ---------------------------------------------------------------------------------------------------


def docker_config(**registries: str) -> str:
    """Host (with ``_`` for ``.``) to USER:PASSWORD."""
    return json.dumps(
        {
            "auths": {
                host.replace("_", "."): {"auth": base64.b64encode(pair.encode()).decode()}
                for host, pair in registries.items()
            }
        }
    )


async def pull(*secrets: JsonObject, names: tuple[str, ...], kube: FakeKube | None = None) -> dict[str, str]:
    kube = kube or FakeKube()
    for each in secrets:
        kube.put(each)
    image = {"reference": "ghcr.io/a/b:v1", "pullSecrets": [{"name": name} for name in names]}
    auths = await read_registry_auths(world(kube), task(image=image))
    assert auths.problem is None
    return {host: f"{auth.username}:{auth.password}" for host, auth in auths.by_registry.items()}


async def test_pull_secrets_are_merged_and_the_first_wins() -> None:
    one = secret("one", __dockerconfigjson=docker_config(ghcr_io="a:1", quay_io="b:2"))
    two = secret("two", __dockerconfigjson=docker_config(ghcr_io="c:3", docker_io="d:4"))
    assert await pull(one, two, names=("one", "two")) == {"ghcr.io": "a:1", "quay.io": "b:2", "docker.io": "d:4"}


async def test_the_old_form_of_a_pull_secret() -> None:
    entries = json.loads(docker_config(ghcr_io="a:1"))["auths"]
    assert await pull(secret("old", __dockercfg=json.dumps(entries)), names=("old",)) == {"ghcr.io": "a:1"}


async def test_without_pull_secrets_and_without_an_image_nothing_is_read() -> None:
    assert await pull(names=()) == {}
    assert (await read_registry_auths(world(FakeKube()), task())).by_registry == {}


@pytest.mark.parametrize(
    ("given", "kube", "reason", "message"),
    [
        pytest.param(None, FakeKube(), "CredentialNotFound", "does not exist", id="missing"),
        pytest.param(
            None,
            FakeKube(faults={("get", "regcred"): [Forbidden("no")]}),
            "CredentialNotReadable",
            "may not read",
            id="may not be read",
        ),
        pytest.param(
            secret("regcred", password=TOKEN),
            FakeKube(),
            "CredentialNotFound",
            "no pull secret",
            id="opaque",
        ),
        pytest.param(
            secret("regcred", __dockerconfigjson=f"{{{TOKEN}"),
            FakeKube(),
            "CredentialNotFound",
            "not JSON",
            id="not JSON",
        ),
    ],
)
async def test_a_pull_secret_that_does_not_help(
    given: JsonObject | None, kube: FakeKube, reason: str, message: str
) -> None:
    """It is remembered, not raised, and the others are used: the image may be public (as for the kubelet)."""
    for each in [secret("good", __dockerconfigjson=docker_config(quay_io="b:2")), *([given] if given else [])]:
        kube.put(each)
    image = {"reference": "ghcr.io/a/b:v1", "pullSecrets": [{"name": "regcred"}, {"name": "good"}]}
    auths = await read_registry_auths(world(kube), task(image=image))
    assert list(auths.by_registry) == ["quay.io"]
    assert auths.problem is not None
    assert auths.problem.reason == reason
    assert message in auths.problem.message


# --- values stay where they are -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(secret("creds", HF_TOKEN_OLD=TOKEN), id="under another key"),
        pytest.param(secret("creds", __dockerconfigjson=f'{{"auths": "{TOKEN}"}}'), id="in a broken pull secret"),
        pytest.param(secret("creds", __dockerconfigjson=f'{{"{TOKEN}'), id="in JSON that breaks off"),
    ],
)
async def test_no_message_shows_what_a_secret_holds(broken: JsonObject) -> None:
    kube = FakeKube()
    kube.put(broken)
    image = {"reference": "ghcr.io/a/b:v1", "pullSecrets": [{"name": "creds"}]}
    with pytest.raises(ModelswarmError) as of_source:
        await read(HUB, kube=kube)
    of_image = (await read_registry_auths(world(kube), task(image=image))).problem
    assert of_image is not None
    for caught in (of_source.value, of_image):
        assert TOKEN not in "".join(traceback.format_exception(caught))


async def test_no_repr_shows_what_a_secret_holds() -> None:
    values = [
        await read(HUB, secret("creds", HF_TOKEN=TOKEN)),
        await read(S3, secret("creds", AWS_ACCESS_KEY_ID=TOKEN, AWS_SECRET_ACCESS_KEY=TOKEN)),
    ]
    for value in values:
        assert TOKEN not in f"{value!r} {value} {value.fingerprint}"
        assert "***" in repr(value)
