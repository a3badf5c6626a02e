"""Image references and platforms, read as docker and the kubelet read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelswarm.content.image import ImageReference, parse_reference
from modelswarm.content.platform import describe, parse_platform
from modelswarm.errors import InvalidReference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("vllm/vllm-openai:v0.7.3", "docker.io/vllm/vllm-openai:v0.7.3"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b/c:Tag_1.2-x", "localhost:5000/a/b/c:Tag_1.2-x"),
        ("foo:5000/bar", "foo:5000/bar:latest"),
        ("127.0.0.1:5000/a", "127.0.0.1:5000/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("Registry/a", "Registry/a:latest"),
        ("ghcr.io/a__b/c-d.e", "ghcr.io/a__b/c-d.e:latest"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"ghcr.io/a/b:v1@{DIGEST}", f"ghcr.io/a/b:v1@{DIGEST}"),
        (f"a@sha512:{HEX}{HEX}", f"docker.io/library/a@sha512:{HEX}{HEX}"),
    ],
)
def test_normalised_references(text: str, canonical: str) -> None:
    assert parse_reference(text).canonical == canonical


def test_the_digest_decides() -> None:
    image = parse_reference(f"ghcr.io/a/b:v1@{DIGEST}")
    assert (image.registry, image.repository, image.tag, image.digest) == ("ghcr.io", "a/b", "v1", DIGEST)
    assert image.version == DIGEST
    assert parse_reference("a:v1").version == "v1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "empty", id="nothing"),
        pytest.param("ghcr.io/Org/app", "lower case", id="upper case"),
        pytest.param("Nginx", "lower case", id="upper case on Docker Hub"),
        pytest.param(HEX, "image id", id="an image id"),
        pytest.param("nginx:", "bad tag", id="an empty tag"),
        pytest.param("nginx:" + "a" * 129, "bad tag", id="a long tag"),
        pytest.param("nginx:a:b", "bad tag", id="two tags"),
        pytest.param("nginx@", "bad digest", id="an empty digest"),
        pytest.param("nginx@sha256:abc", "bad digest", id="a short digest"),
        pytest.param(f"nginx@{DIGEST.upper()}", "bad digest", id="a digest in upper case"),
        pytest.param(f"nginx@md5:{HEX}", "bad digest", id="an unknown algorithm"),
        pytest.param("a//b", "bad name", id="an empty part"),
        pytest.param("a/b/", "bad name", id="a slash at the end"),
        pytest.param("ghcr.io/", "bad name", id="a registry only"),
        pytest.param("-a", "bad name", id="a dash in front"),
        pytest.param("a..b", "bad name", id="two dots"),
        pytest.param("a___b", "bad name", id="three underscores"),
        pytest.param("nginx latest", "bad name", id="a space"),
        pytest.param("https://ghcr.io/a", "bad", id="a URL"),
        pytest.param("user@ghcr.io/a", "bad", id="a user"),
        pytest.param("-x.io/a", "bad registry", id="a bad registry"),
        pytest.param("a.io/" + "b" * 256, "bad name", id="a long name"),
        pytest.param("nginx\n", "bad name", id="a newline"),
    ],
)
def test_refused_references(text: str, says: str) -> None:
    with pytest.raises(InvalidReference, match=says):
        parse_reference(text)


_PART = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True).filter(lambda part: len(part) < 40)
_REGISTRY = st.sampled_from(["docker.io", "ghcr.io", "localhost", "localhost:5000", "r.example.com:443", "10.0.0.1:1"])
_REFERENCES = st.builds(
    ImageReference,
    registry=_REGISTRY,
    repository=st.lists(_PART, min_size=2, max_size=4).map("/".join),
    tag=st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True),
    digest=st.none() | st.binary(min_size=32, max_size=32).map(lambda raw: f"sha256:{raw.hex()}"),
).filter(lambda image: image.tag or image.digest)


@given(_REFERENCES)
def test_references_round_trip(image: ImageReference) -> None:
    assert parse_reference(image.canonical) == image


@given(st.text(alphabet="aA1./:@-_[]é\n"))
def test_any_text_is_a_stable_reference_or_refused(text: str) -> None:
    try:
        image = parse_reference(text)
    except InvalidReference:
        return
    assert parse_reference(image.canonical) == image


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/aarch64/8", "linux/arm64"),
        ("linux/arm", "linux/arm"),
        ("linux/arm/v7", "linux/arm"),
        ("linux/armel", "linux/arm/v6"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platforms(text: str, normalised: str) -> None:
    assert str(parse_platform(text)) == normalised


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x"])
def test_refused_platforms(text: str) -> None:
    with pytest.raises(InvalidReference, match="OS/ARCHITECTURE"):
        parse_platform(text)


def test_attestations_are_for_no_platform() -> None:
    assert describe({"os": "unknown", "architecture": "unknown"}) is None
    assert describe({"os": "linux"}) is None
    assert describe(None) is None
    assert str(describe({"os": "linux", "architecture": "arm", "variant": "v6"})) == "linux/arm/v6"
