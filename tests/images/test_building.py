"""Builds see no network and nothing of the day; what is in the cache is not built again."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.binaries import _locked, cache_directory
from dev.images import Image, prepare
from dev.images.base import base_image
from dev.images.buildah import Buildah, BuildFailed
from dev.images.context import lay_out
from dev.images.targets import TARGETS
from dev.installation import ROOT
from tests.images.conftest import Images

NAME = "localhost/modelswarm-test:build"
INTERFACES = "import socket; assert [name for _, name in socket.if_nameindex()] == ['lo'], 'there is a network'"
DOCKERFILE = """\
ARG BASE
FROM ${{BASE}} AS tried
RUN ["python3", "-c", "{code}"]
"""


@pytest.mark.parametrize("target", TARGETS if os.environ.get("SOAK") else ["loader"])
def test_two_builds_of_the_same_sources_are_the_same_image(target: str, image: Images, tmp_path: Path) -> None:
    """Of a copy, so that nobody changes the sources meanwhile. What is in the cache is not built a third time."""
    together = image(target)
    lay_out(ROOT, tmp_path)
    built: list[Image] = []
    files: list[str] = []
    for _ in range(2):
        built += prepare([target], root=tmp_path, afresh=True).values()
        files.append(hashlib.sha256(built[-1].archive.read_bytes()).hexdigest())
    first, second = built
    assert first.contents == second.contents
    assert files[0] == files[1]
    assert together.contents.layers[0] == first.contents.layers[0], "shared with other targets, and built alone"
    assert first.seconds > 0 < second.seconds
    (again,) = prepare([target], root=tmp_path).values()
    assert (again.archive, again.seconds) == (second.archive, 0.0)


@pytest.fixture
def storage(image: Images) -> Iterator[Buildah]:
    """The storage of the cache, with the base in it."""
    image("loader")
    home = cache_directory() / "images"
    with _locked(home / "build.lock"):
        storage = Buildah(home / "buildah")
        yield storage
        storage.clear()


def run_in_build(storage: Buildah, directory: Path, code: str) -> None:
    (directory / "Dockerfile").write_text(DOCKERFILE.format(code=code))
    storage.build(directory, "tried", NAME, arguments={"BASE": base_image().name}, labels={})
    storage.remove(NAME)


def test_a_build_has_no_network(storage: Buildah, tmp_path: Path) -> None:
    run_in_build(storage, tmp_path, INTERFACES)


def test_a_build_that_fails_says_why(storage: Buildah, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"buildah build failed:(?s:.*)the reason"):
        run_in_build(storage, tmp_path, "import sys; sys.exit('the reason')")
