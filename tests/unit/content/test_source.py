"""Every form of ``spec.source``: what it parses to, where it lies in a pod, and what is refused."""

import contextlib
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.api.openmodel import HubName, ModelHub, ModelSource
from modelswarm.content.source import (
    HostSource,
    HubSource,
    Layout,
    OllamaSource,
    Provider,
    Source,
    StoreSource,
    identity,
    is_distributable,
    is_inside,
    layout,
    parse_source,
    parse_uri,
    slug,
)
from modelswarm.errors import InvalidReference

ROOT = "/workspace/models/"


def hub(**fields: object) -> ModelSource:
    return ModelSource(model_hub=ModelHub(**{"model_id": "facebook/opt-125m", **fields}))


@pytest.mark.parametrize(
    ("source", "parsed", "where", "name"),
    [
        pytest.param(
            hub(),
            HubSource(HubName.HUGGINGFACE, "facebook/opt-125m"),
            Layout(f"{ROOT}models--facebook--opt-125m", f"{ROOT}models--facebook--opt-125m"),
            "opt-125m",
            id="a repository on Hugging Face",
        ),
        pytest.param(
            hub(model_id="gpt2", revision="refs/pr/1"),
            HubSource(HubName.HUGGINGFACE, "gpt2", "refs/pr/1"),
            Layout(f"{ROOT}models--gpt2", f"{ROOT}models--gpt2"),
            "gpt2",
            id="a repository without organisation, at a pull request",
        ),
        pytest.param(
            hub(filename="Q8/model-q8_0.gguf"),
            HubSource(HubName.HUGGINGFACE, "facebook/opt-125m", filename="Q8/model-q8_0.gguf"),
            Layout(ROOT, f"{ROOT}Q8/model-q8_0.gguf"),
            "opt-125m",
            id="one file of a repository",
        ),
        pytest.param(
            hub(name=HubName.MODELSCOPE, allow_patterns=("*.json",), ignore_patterns=("a/",)),
            HubSource(HubName.MODELSCOPE, "facebook/opt-125m", "main", None, ("*.json",), ("a/",)),
            Layout(f"{ROOT}models--facebook--opt-125m", f"{ROOT}models--facebook--opt-125m"),
            "opt-125m",
            id="a repository on ModelScope with patterns",
        ),
        pytest.param(
            hub(revision="", filename=""),
            HubSource(HubName.HUGGINGFACE, "facebook/opt-125m"),
            Layout(f"{ROOT}models--facebook--opt-125m", f"{ROOT}models--facebook--opt-125m"),
            "opt-125m",
            id="empty revision and filename are as good as none",
        ),
        pytest.param(
            ModelSource(model_hub=ModelHub(model_id="a/b"), uri="ollama://x"),
            HubSource(HubName.HUGGINGFACE, "a/b"),
            Layout(f"{ROOT}models--a--b", f"{ROOT}models--a--b"),
            "b",
            id="modelHub wins over uri",
        ),
        pytest.param(
            ModelSource(uri="oss://llmaz.oss-ap-southeast-1-internal.aliyuncs.com/models/Qwen2.5-7B/"),
            StoreSource(Provider.OSS, "llmaz", "models/Qwen2.5-7B", "oss-ap-southeast-1-internal.aliyuncs.com"),
            Layout(f"{ROOT}models--Qwen2.5-7B", f"{ROOT}models--Qwen2.5-7B"),
            "Qwen2.5-7B",
            id="a folder in OSS, its name with a dot",
        ),
        pytest.param(
            ModelSource(uri="S3://bucket.with.dots/models/a.GGUF"),
            StoreSource(Provider.S3, "bucket.with.dots", "models/a.GGUF"),
            Layout(ROOT, f"{ROOT}a.GGUF"),
            "a.GGUF",
            id="one object in S3, the protocol in upper case",
        ),
        pytest.param(
            ModelSource(uri="gcs://bucket/models/x"),
            StoreSource(Provider.GCS, "bucket", "models/x"),
            Layout(f"{ROOT}models--x", f"{ROOT}models--x"),
            "x",
            id="a folder in GCS",
        ),
        pytest.param(
            ModelSource(uri="ollama://qwen2:0.5b"),
            OllamaSource("qwen2:0.5b"),
            Layout(ROOT, ROOT),
            "qwen2:0.5b",
            id="ollama",
        ),
        pytest.param(
            ModelSource(uri="host:///mnt/models/Qwen2"),
            HostSource("/mnt/models/Qwen2"),
            Layout("/mnt/models/Qwen2", "/mnt/models/Qwen2"),
            "Qwen2",
            id="a directory on the node",
        ),
    ],
)
def test_forms_of_source(source: ModelSource, parsed: Source, where: Layout, name: str) -> None:
    assert parse_source(source) == parsed
    assert layout(parsed) == where
    assert slug(parsed) == name
    assert is_distributable(parsed) == isinstance(parsed, HubSource | StoreSource)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param(ModelSource(), "neither modelHub nor uri", id="nothing"),
        pytest.param(ModelSource(model_hub=ModelHub()), "modelID", id="no model id"),
        pytest.param(hub(model_id="a/b/c"), "ORGANISATION/NAME", id="three parts"),
        pytest.param(hub(model_id="a/.."), "ORGANISATION/NAME", id="a parent folder as model id"),
        pytest.param(hub(model_id="a b/c"), "ORGANISATION/NAME", id="a space in the model id"),
        pytest.param(hub(name=HubName.MODELSCOPE, model_id="gpt2"), "ModelScope", id="no organisation on ModelScope"),
        pytest.param(hub(name=HubName.MODELSCOPE, filename="a"), "Huggingface", id="filename on ModelScope"),
        pytest.param(hub(filename="a", allow_patterns=("b",)), "allowPatterns", id="filename and allowPatterns"),
        pytest.param(hub(filename="a", ignore_patterns=()), "ignorePatterns", id="filename and empty ignorePatterns"),
        pytest.param(hub(filename="../../etc/passwd"), "inside", id="a filename outside"),
        pytest.param(hub(filename="/etc/passwd"), "inside", id="an absolute filename"),
        pytest.param(hub(revision="../../other/model/main"), "revision", id="a revision that climbs"),
        pytest.param(hub(revision="my branch"), "revision", id="a revision with a space"),
        pytest.param(hub(revision="a?b"), "revision", id="a revision with a query"),
        pytest.param(ModelSource(uri="bucket/path"), "PROTOCOL://", id="no protocol"),
        pytest.param(ModelSource(uri="s3://a://b"), "PROTOCOL://", id="two protocols"),
        pytest.param(ModelSource(uri="s3://"), "PROTOCOL://", id="no address"),
        pytest.param(ModelSource(uri="gs://a/b"), "gcs, oss, s3, ollama and host", id="gs is not gcs"),
        pytest.param(ModelSource(uri="https://a/b"), "gcs, oss, s3, ollama and host", id="https"),
        pytest.param(ModelSource(uri="s3://bucket"), "s3://BUCKET/PATH", id="a bucket only"),
        pytest.param(ModelSource(uri="s3://bucket/"), "s3://BUCKET/PATH", id="an empty path"),
        pytest.param(ModelSource(uri="s3:///path"), "s3://BUCKET/PATH", id="no bucket"),
        pytest.param(ModelSource(uri="s3://bucket/a//b"), "s3://BUCKET/PATH", id="an empty part"),
        pytest.param(ModelSource(uri="s3://bucket/a/../b"), "s3://BUCKET/PATH", id="a parent folder"),
        pytest.param(ModelSource(uri="s3://user@bucket/a"), "characters", id="a user in the bucket"),
        pytest.param(ModelSource(uri="oss://bucket/path"), "endpoint", id="OSS without endpoint"),
        pytest.param(ModelSource(uri="oss://bucket.evil?x/path"), "characters", id="a query in the endpoint"),
        pytest.param(ModelSource(uri="host://relative/path"), "absolute", id="a relative directory"),
    ],
)
def test_refused_sources(source: ModelSource, says: str) -> None:
    with pytest.raises(InvalidReference, match=says) as raised:
        parse_source(source)
    assert not raised.value.retryable


def test_identity_tells_requests_apart() -> None:
    sources: list[Source] = [
        HubSource(HubName.HUGGINGFACE, "a/b"),
        HubSource(HubName.MODELSCOPE, "a/b"),
        HubSource(HubName.HUGGINGFACE, "a/b", "v1"),
        HubSource(HubName.HUGGINGFACE, "a/b", allow_patterns=("x",)),
        HubSource(HubName.HUGGINGFACE, "a/b", ignore_patterns=("x",)),
        HubSource(HubName.HUGGINGFACE, "a/b", allow_patterns=()),
        StoreSource(Provider.S3, "a", "b"),
        StoreSource(Provider.GCS, "a", "b"),
        StoreSource(Provider.OSS, "a", "b", "c"),
        OllamaSource("/a"),
        HostSource("/a"),
    ]
    assert len({identity(source) for source in sources}) == len(sources)
    assert identity(HubSource(HubName.HUGGINGFACE, "a/b")) == identity(HubSource(HubName.HUGGINGFACE, "a/b"))


@given(st.text())
def test_any_uri_is_parsed_or_refused(uri: str) -> None:
    with contextlib.suppress(InvalidReference):
        parse_uri(uri)


_SEGMENT = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda part: part not in (".", "..") and "://" not in part
)


@given(
    st.sampled_from(list(Provider)),
    st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}", fullmatch=True),
    st.lists(_SEGMENT, min_size=1, max_size=4).map("/".join).filter(lambda path: "://" not in path),
)
def test_store_uris_round_trip(provider: Provider, bucket: str, path: str) -> None:
    source = StoreSource(provider, bucket, path, "oss-x.example.com" if provider is Provider.OSS else None)
    assert parse_uri(source.uri) == source


@given(st.text(alphabet="ab./\\\0", min_size=1))
def test_inside_means_inside(path: str) -> None:
    if is_inside(path):
        assert posixpath.normpath(posixpath.join("/base", path)) == f"/base/{path}"
