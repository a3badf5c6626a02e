"""Lists of files and credentials: from the right object, checked, and with a helpful word where they are missing."""

import base64

import pytest

from modelswarm.agent.provisions import ProvisionReason, Provisions
from modelswarm.agent.wanted import Claim, ManifestRef, SecretRef, Wanted
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import HubName
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind, encode, shard_name, to_binary_data
from modelswarm.content.source import HubSource, Provider, StoreSource
from modelswarm.errors import AgentError, Forbidden, Unavailable
from tests.unit.kube.fake import FakeServer, Interruption

HUB = HubSource(HubName.HUGGINGFACE, "org/model")
MODELSCOPE = HubSource(HubName.MODELSCOPE, "org/model")
S3 = StoreSource(Provider.S3, "b", "p")
OSS = StoreSource(Provider.OSS, "b", "p", "e")
MANIFEST = Manifest(
    Origin(OriginKind.HUGGINGFACE, "org/model"),
    "c" * 40,
    tuple(ManifestFile(f"file-{number:04}", number, f"sha256:{number:064x}") for number in range(500)),
)


def claim(name: str = "t", *, secret: SecretRef | None = None, manifest: ManifestRef | None = None) -> Claim:
    return Claim("P2PTask", "ns", name, "uid", secret=secret, manifest=manifest)


def wanted(*claims: Claim, content: str | None = MANIFEST.digest, source: HubSource | StoreSource = HUB) -> Wanted:
    return Wanted("key", content, "h" * 64, "org/model", None, source, claims)


def provisions(server: FakeServer, interruption: Interruption = lambda verb: None) -> Provisions:
    return Provisions(server.client(interruption), namespace="ome")


def put_manifest(server: FakeServer, manifest: Manifest, name: str = "m") -> ManifestRef:
    shards = encode(manifest, shard_bytes=4000)
    assert len(shards) > 1
    for index, shard in enumerate(shards):
        server.store(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": shard_name(name, index), "namespace": "ns"},
                "binaryData": dict(to_binary_data(shard)),
            }
        )
    return ManifestRef("ns", name, len(shards))


def put_secret(server: FakeServer, **data: str) -> SecretRef:
    encoded: JsonObject = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    server.store({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"}, "data": encoded})
    return SecretRef("ns", "s")


async def test_a_manifest_of_several_shards() -> None:
    server = FakeServer()
    reference = put_manifest(server, MANIFEST)
    found = await provisions(server).manifest(wanted(claim(manifest=reference)))
    assert found == Manifest(MANIFEST.origin, MANIFEST.revision, tuple(sorted(MANIFEST.files)))


async def test_a_missing_manifest_is_taken_from_another_task() -> None:
    server = FakeServer()
    claims = claim("gone", manifest=ManifestRef("ns", "gone", 1)), claim(manifest=put_manifest(server, MANIFEST))
    found = await provisions(server).manifest(wanted(*claims))
    assert found is not None
    assert found.digest == MANIFEST.digest


async def test_a_base_model_has_no_manifest_yet() -> None:
    assert await provisions(FakeServer()).manifest(wanted(claim(), content=None)) is None


async def failure(server: FakeServer, given: Wanted, interruption: Interruption = lambda verb: None) -> AgentError:
    with pytest.raises(AgentError) as caught:
        await provisions(server, interruption).manifest(given)
    return caught.value


async def test_no_manifest_at_all() -> None:
    assert (await failure(FakeServer(), wanted(claim()))).reason == ProvisionReason.MANIFEST_NOT_FOUND
    missing = wanted(claim(manifest=ManifestRef("ns", "m", 1)))
    error = await failure(FakeServer(), missing)
    assert error.reason == ProvisionReason.MANIFEST_NOT_FOUND
    assert "ns/m" in error.message


async def test_a_manifest_of_another_content_is_refused() -> None:
    server = FakeServer()
    error = await failure(server, wanted(claim(manifest=put_manifest(server, MANIFEST)), content="sha256:" + "0" * 64))
    assert error.reason == ProvisionReason.MANIFEST_INVALID


async def test_an_incomplete_manifest_is_refused() -> None:
    server = FakeServer()
    put_manifest(server, MANIFEST)
    error = await failure(server, wanted(claim(manifest=ManifestRef("ns", "m", 1))))
    assert error.reason == ProvisionReason.MANIFEST_INVALID
    assert "incomplete" in error.message


async def test_a_manifest_that_may_not_be_read_says_how_to_allow_it() -> None:
    given = wanted(claim(manifest=ManifestRef("ns", "m", 2)))
    error = await failure(FakeServer(), given, lambda verb: Forbidden("no", status=403))
    assert error.reason == ProvisionReason.MANIFEST_NOT_READABLE
    # All of them: the next model of the namespace has another name, and a long list has many shards.
    assert "create role ome-model-agent-file-lists --verb=get --resource=configmaps && kubectl" in error.message
    assert "--serviceaccount=ome:ome-model-agent" in error.message


async def test_a_server_that_is_away_is_another_matter() -> None:
    with pytest.raises(Unavailable):
        await provisions(FakeServer(), lambda verb: Unavailable("away")).manifest(
            wanted(claim(manifest=ManifestRef("ns", "m", 1)))
        )


@pytest.mark.parametrize(
    ("source", "data", "key", "expected"),
    [
        pytest.param(HUB, {"HF_TOKEN": "t"}, None, {"hub_token": "t"}, id="a hub"),
        pytest.param(HUB, {"token": " t\n"}, "token", {"hub_token": "t"}, id="the key that the object names"),
        pytest.param(MODELSCOPE, {"MODELSCOPE_API_TOKEN": "t"}, None, {"modelscope_token": "t"}, id="ModelScope"),
        pytest.param(MODELSCOPE, {"HF_TOKEN": "t"}, None, {}, id="one hub's token is not shown to the other"),
        pytest.param(
            S3,
            {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "s"},
            None,
            {"access_key_id": "i", "access_key_secret": "s"},
            id="S3",
        ),
        pytest.param(
            OSS,
            {"OSS_ACCESS_KEY_ID": "i", "OSS_ACCESS_KEY_SECRET": "s"},
            None,
            {"access_key_id": "i", "access_key_secret": "s"},
            id="OSS",
        ),
    ],
)
async def test_credentials(
    source: HubSource | StoreSource, data: dict[str, str], key: str | None, expected: dict[str, str]
) -> None:
    server = FakeServer()
    put_secret(server, **data)
    given = wanted(claim(secret=SecretRef("ns", "s", key)), source=source)
    found = await provisions(server).credentials(given)
    assert found is not None
    names = ("hub_token", "access_key_id", "access_key_secret", "modelscope_token")
    assert {name: value for name in names if (value := getattr(found, name))} == expected
    assert not any(value in repr(found) for value in data.values() if len(value) > 1)


async def test_no_credentials_are_asked_for_where_no_secret_is_named() -> None:
    assert await provisions(FakeServer()).credentials(wanted(claim())) is None


async def test_a_missing_secret_matters_only_if_nobody_does_without() -> None:
    missing = claim("a", secret=SecretRef("ns", "gone"))
    with pytest.raises(AgentError, match="Secret ns/gone does not exist") as caught:
        await provisions(FakeServer()).credentials(wanted(missing))
    assert caught.value.reason == ProvisionReason.CREDENTIAL_NOT_FOUND
    assert await provisions(FakeServer()).credentials(wanted(missing, claim("b"))) is None


async def test_another_tasks_secret_is_used_if_the_first_is_missing() -> None:
    server = FakeServer()
    claims = claim("a", secret=SecretRef("ns", "gone")), claim("b", secret=put_secret(server, HF_TOKEN="t"))
    found = await provisions(server).credentials(wanted(*claims))
    assert found is not None
    assert found.hub_token == "t"


async def test_a_secret_without_the_key() -> None:
    server = FakeServer()
    with pytest.raises(AgentError, match="Secret ns/s has no key HF_TOKEN"):
        await provisions(server).credentials(wanted(claim(secret=put_secret(server, token="t"))))


async def test_a_secret_that_may_not_be_read_says_how_to_allow_it() -> None:
    with pytest.raises(
        AgentError, match="create role ome-model-agent-credentials-s --verb=get --resource=secrets --resource-name=s &&"
    ) as caught:
        await provisions(FakeServer(), lambda verb: Forbidden("no", status=403)).credentials(
            wanted(claim(secret=SecretRef("ns", "s")))
        )
    assert caught.value.reason == ProvisionReason.CREDENTIAL_NOT_READABLE
