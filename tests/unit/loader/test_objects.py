"""Loading from an object store: the real obstore against moto's S3."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from tests.unit.loader.conftest import Loader, mount

BUCKET = "models"
WEIGHTS = hashlib.shake_256(b"weights").digest(3 << 20)
FILES = {"config.json": b"{}", "weights.bin": WEIGHTS, "tokens/vocab.txt": b"a\nb\n"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(loader: Loader, endpoint: str) -> Loader:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKID",
        aws_secret_access_key="planted-secret",
    )
    client.create_bucket(Bucket=BUCKET)
    for name, content in FILES.items():
        client.put_object(Bucket=BUCKET, Key=f"team/Qwen2.5-7B/{name}", Body=content)
    client.put_object(Bucket=BUCKET, Key="team/model-q4.gguf", Body=WEIGHTS)
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="parts/big.bin")["UploadId"]
    part = client.upload_part(Bucket=BUCKET, Key="parts/big.bin", PartNumber=1, UploadId=upload, Body=WEIGHTS)
    client.complete_multipart_upload(
        Bucket=BUCKET,
        Key="parts/big.bin",
        UploadId=upload,
        MultipartUpload={"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]},
    )
    loader.environ = {
        "MODEL_SOURCE_TYPE": "objstore",
        "PROVIDER": "S3",
        "BUCKET": BUCKET,
        "MODEL_PATH": "team/Qwen2.5-7B",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "planted-secret",
        "MODELSWARM_TERMINATION_LOG": loader.environ["MODELSWARM_TERMINATION_LOG"],
    }
    return loader


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_prefix_becomes_a_directory_named_after_its_last_part(store: Loader) -> None:
    assert store.run() == 0, store.output
    assert read(store.root / "models--Qwen2.5-7B") == FILES
    assert store.summary["model"] == "s3://models/team/Qwen2.5-7B"
    assert store.summary["revision"] is None
    assert store.summary["unverified"] == 0, "their ETags are MD5s"
    assert "planted-secret" not in store.output + store.termination_log.read_text()


def test_a_gguf_object_becomes_a_file(store: Loader) -> None:
    assert store.run(MODEL_PATH="team/model-q4.gguf") == 0, store.output
    assert read(store.root) == {"model-q4.gguf": WEIGHTS}


def test_what_cannot_be_verified_is_said(store: Loader) -> None:
    assert store.run(MODEL_PATH="parts") == 0, store.output
    assert store.summary["unverified"] == 1
    assert "1 without a digest" in store.output
    assert store.run(MODEL_PATH="parts") == 0
    assert store.sources() == {"present": len(WEIGHTS)}


def test_an_object_that_changed_since_it_was_listed_is_refused(store: Loader, tmp_path: Path) -> None:
    files = (ManifestFile("weights.bin", len(WEIGHTS), None, f'"{"0" * 32}"'),)
    manifest = Manifest(Origin(OriginKind.S3, f"{BUCKET}/team/Qwen2.5-7B"), None, files)
    assert store.run(MODELSWARM_MANIFEST_DIR=mount(manifest, tmp_path / "m")) == 1
    assert store.summary["reason"] == "SourceChanged"
    assert not (store.root / "models--Qwen2.5-7B" / "weights.bin").exists()


def test_an_object_that_is_gone_is_named(store: Loader, tmp_path: Path) -> None:
    manifest = Manifest(Origin(OriginKind.S3, f"{BUCKET}/team/Qwen2.5-7B"), None, (ManifestFile("gone.bin", 5),))
    assert store.run(MODELSWARM_MANIFEST_DIR=mount(manifest, tmp_path / "m")) == 2
    assert store.summary["reason"] == "SourceNotFound"
    assert "gone.bin" in str(store.summary["message"])


def test_a_sha256_from_a_first_reader_is_held_against_the_object(store: Loader, tmp_path: Path) -> None:
    wrong = ManifestFile("weights.bin", len(WEIGHTS), f"sha256:{'0' * 64}")
    manifest = Manifest(Origin(OriginKind.S3, f"{BUCKET}/team/Qwen2.5-7B"), None, (wrong,))
    assert store.run(MODELSWARM_MANIFEST_DIR=mount(manifest, tmp_path / "m")) == 1
    assert store.summary["reason"] == "DigestMismatch"
    assert list((store.root / "models--Qwen2.5-7B").iterdir()) == []


def test_a_store_that_does_not_answer_is_worth_another_start(store: Loader) -> None:
    assert store.run(AWS_ENDPOINT_URL="http://127.0.0.1:9") == 1
    assert store.summary["reason"] == "SourceUnavailable"
