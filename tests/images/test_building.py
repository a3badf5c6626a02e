"""Builds see no network and nothing of the day; what is in the cache is not built again."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.binaries import _locked, cache_directory
from dev.images import prepare
from dev.images.base import base_image
from dev.images.buildah import Buildah, BuildFailed
from tests.images.conftest import Images

NAME = "localhost/modelswarm-test:build"
INTERFACES = "import socket; assert [name for _, name in socket.if_nameindex()] == ['lo'], 'there is a network'"
DOCKERFILE = """\
ARG BASE
FROM ${{BASE}} AS tried
RUN ["python3", "-c", "{code}"]
"""


@pytest.mark.parametrize("target", ["loader", "agent"])
def test_another_build_of_the_same_commit_is_the_same_image(target: str, image: Images) -> None:
    first = image(target)
    before = hashlib.sha256(first.archive.read_bytes()).hexdigest()
    second = prepare([target], afresh=True)[target]
    if second.archive != first.archive:
        pytest.skip("SKIPPED: somebody changed the sources meanwhile")
    assert second.seconds > 0
    assert second.contents == first.contents
    assert hashlib.sha256(second.archive.read_bytes()).hexdigest() == before


def test_what_is_in_the_cache_is_not_built(image: Images) -> None:
    first = image("loader")
    again = prepare(["loader"])["loader"]
    assert (again.seconds, again.archive) == (0.0, first.archive) or again.archive != first.archive


@pytest.fixture
def storage(image: Images) -> Iterator[Buildah]:
    """The storage of the cache, with the base in it."""
    image("loader")
    home = cache_directory() / "images"
    with _locked(home / "build.lock"):
        yield Buildah(home / "buildah")


def run_in_build(storage: Buildah, directory: Path, code: str) -> None:
    (directory / "Dockerfile").write_text(DOCKERFILE.format(code=code))
    storage.build(directory, "tried", NAME, arguments={"BASE": base_image().name}, labels={}, epoch=0)
    storage.remove(NAME)


def test_a_build_has_no_network(storage: Buildah, tmp_path: Path) -> None:
    run_in_build(storage, tmp_path, INTERFACES)


def test_a_build_that_fails_says_why(storage: Buildah, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"buildah build failed:(?s:.*)the reason"):
        run_in_build(storage, tmp_path, "import sys; sys.exit('the reason')")
