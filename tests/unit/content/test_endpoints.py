"""Where files are read, whatever their names are, and which variables say so."""

from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.content.endpoints import Endpoints, file_url, object_key
from modelswarm.content.manifest import Origin, OriginKind
from modelswarm.errors import InvalidReference, SettingsError

COMMIT = "c" * 40
HF = Origin(OriginKind.HUGGINGFACE, "org/model")
MS = Origin(OriginKind.MODELSCOPE, "org/model")
OSS = Origin(OriginKind.OSS, "bucket/models/x", "oss-cn-hangzhou.aliyuncs.com")
ODD = "a b/#1?x=%20&é+;~.bin"
ENCODED = "a%20b/%231%3Fx%3D%2520%26%C3%A9%2B%3B~.bin"


@pytest.mark.parametrize(
    ("origin", "revision", "path", "url"),
    [
        (HF, COMMIT, "config.json", f"https://huggingface.co/org/model/resolve/{COMMIT}/config.json"),
        (HF, "refs/pr/1", ODD, f"https://huggingface.co/org/model/resolve/refs%2Fpr%2F1/{ENCODED}"),
        (
            MS,
            COMMIT,
            ODD,
            f"https://modelscope.cn/api/v1/models/org/model/repo?Revision={COMMIT}&FilePath="
            + ENCODED.replace("/", "%2F"),
        ),
        (Origin(OriginKind.S3, "bkt/m/x"), None, ODD, f"https://bkt.s3.amazonaws.com/m/x/{ENCODED}"),
        (Origin(OriginKind.S3, "b.k.t/m x"), None, "a", "https://s3.amazonaws.com/b.k.t/m%20x/a"),
        (Origin(OriginKind.S3, "bkt/m/a.gguf"), None, "a.gguf", "https://bkt.s3.amazonaws.com/m/a.gguf"),
        (Origin(OriginKind.GCS, "bkt/m"), None, "a", "https://storage.googleapis.com/bkt/m/a"),
        (OSS, None, "a", "https://bucket.oss-cn-hangzhou.aliyuncs.com/models/x/a"),
        (
            Origin(OriginKind.IMAGE, "docker.io/library/nginx"),
            "sha256:1",
            "blobs/sha256/ab",
            "https://registry-1.docker.io/v2/library/nginx/blobs/sha256:ab",
        ),
        (
            Origin(OriginKind.IMAGE, "ghcr.io/a/b"),
            "sha256:1",
            "manifests/sha256/ab",
            "https://ghcr.io/v2/a/b/manifests/sha256:ab",
        ),
    ],
)
def test_urls(origin: Origin, revision: str | None, path: str, url: str) -> None:
    assert file_url(origin, revision, path, Endpoints()) == url
    assert str(httpx.URL(url)) == url


def test_mirrors() -> None:
    mirrors = Endpoints(
        huggingface="https://hf-mirror.com/",
        modelscope="http://ms.internal/base/",
        s3="http://minio:9000",
        gcs="http://gcs:4443",
        oss="http://oss:1",
        registries={"docker.io": "https://mirror.internal/hub/"},
    )
    image = Origin(OriginKind.IMAGE, "docker.io/a/b")
    assert file_url(HF, "main", "a", mirrors) == "https://hf-mirror.com/org/model/resolve/main/a"
    assert file_url(MS, "m", "a", mirrors).startswith("http://ms.internal/base/api/v1/models/org/model/repo?")
    assert file_url(Origin(OriginKind.S3, "b/m"), None, "a", mirrors) == "http://minio:9000/b/m/a"
    assert file_url(Origin(OriginKind.GCS, "b/m"), None, "a", mirrors) == "http://gcs:4443/b/m/a"
    assert file_url(OSS, None, "a", mirrors) == "http://oss:1/bucket/models/x/a"
    assert file_url(image, None, "blobs/sha256/a", mirrors) == "https://mirror.internal/hub/v2/a/b/blobs/sha256:a"
    assert mirrors.registry("ghcr.io") == "https://ghcr.io"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1))
def test_any_name_survives(name: str) -> None:
    huggingface = urlsplit(file_url(HF, COMMIT, name, Endpoints()))
    assert unquote(huggingface.path.rpartition("/")[2]) == name
    assert (huggingface.query, huggingface.fragment) == ("", "")
    modelscope = urlsplit(file_url(MS, COMMIT, name, Endpoints()))
    assert parse_qs(modelscope.query, keep_blank_values=True) == {"Revision": [COMMIT], "FilePath": [name]}


def test_files_without_a_place_are_refused() -> None:
    with pytest.raises(InvalidReference, match="revision"):
        file_url(HF, None, "a", Endpoints())
    with pytest.raises(InvalidReference, match="image"):
        file_url(Origin(OriginKind.IMAGE, "ghcr.io/a"), None, "etc/passwd", Endpoints())


def test_keys_of_objects() -> None:
    assert object_key(Origin(OriginKind.S3, "b/m/x"), "sub/a") == ("b", "m/x/sub/a")
    assert object_key(Origin(OriginKind.S3, "b/m/x.gguf"), "x.gguf") == ("b", "m/x.gguf")


@pytest.mark.parametrize(
    ("environ", "endpoints"),
    [
        pytest.param({}, Endpoints(), id="nothing set"),
        pytest.param({"HF_ENDPOINT": "  "}, Endpoints(), id="set to nothing"),
        pytest.param({"HF_ENDPOINT": "https://m/"}, Endpoints(huggingface="https://m"), id="HF_ENDPOINT"),
        pytest.param({"MODELSCOPE_ENDPOINT": "http://m"}, Endpoints(modelscope="http://m"), id="MODELSCOPE_ENDPOINT"),
        pytest.param(
            {"MODELSCOPE_DOMAIN": "www.modelscope.ai"}, Endpoints(modelscope="https://www.modelscope.ai"), id="domain"
        ),
        pytest.param({"AWS_ENDPOINT_URL": "http://a"}, Endpoints(s3="http://a"), id="AWS_ENDPOINT_URL"),
        pytest.param(
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"},
            Endpoints(s3="http://b"),
            id="the more specific one wins",
        ),
        pytest.param({"STORAGE_EMULATOR_HOST": "localhost:4443"}, Endpoints(gcs="http://localhost:4443"), id="GCS"),
        pytest.param({"OSS_ENDPOINT_URL": "http://o"}, Endpoints(oss="http://o"), id="OSS"),
        pytest.param(
            {"MODELSWARM_REGISTRIES": "docker.io=https://m, ghcr.io=http://n:5000,"},
            Endpoints(registries={"docker.io": "https://m", "ghcr.io": "http://n:5000"}),
            id="registries",
        ),
    ],
)
def test_variables(environ: dict[str, str], endpoints: Endpoints) -> None:
    assert Endpoints.from_env(environ) == endpoints


def test_given_registries_win_over_the_variable() -> None:
    environ = {"MODELSWARM_REGISTRIES": "a.io=https://m"}
    assert dict(Endpoints.from_env(environ, registries={"b.io": "https://n"}).registries) == {"b.io": "https://n"}


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"HF_ENDPOINT": "ftp://m"}, "huggingface"),
        ({"HF_ENDPOINT": "https://"}, "huggingface"),
        ({"HF_ENDPOINT": "https://m?x=1"}, "huggingface"),
        ({"HF_ENDPOINT": "https://user:s3cret@m"}, "Secret"),
        ({"HF_ENDPOINT": "ftp://user:s3cret@m"}, "huggingface"),
        ({"MODELSWARM_REGISTRIES": "https://m"}, "REGISTRY=URL"),
        ({"MODELSWARM_REGISTRIES": "docker.io=m"}, "docker.io"),
    ],
)
def test_bad_variables_are_refused(environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        Endpoints.from_env(environ)
    assert "s3cret" not in str(raised.value)
