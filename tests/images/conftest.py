"""Images that are really built, and unpacked: ``make test-images``. Needs root, buildah and debootstrap."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from dev.dragonfly.packages import PackagesMissing, ensure_packages
from dev.images import Image, NotRoot, prepare
from dev.images.buildah import PACKAGES
from tests.images.support import Container

# The first build on a machine downloads a Debian and all Python packages.
BUILD_TIMEOUT = 3600

Containers = Callable[[str], Container]
Images = Callable[[str], Image]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(BUILD_TIMEOUT))


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> Mapping[str, Image]:
    """All images that can be built here, built at once, for they have much in common."""
    try:
        if os.geteuid() == 0:
            ensure_packages(PACKAGES, install=bool(os.environ.get("CI")), purpose="building images")
        built = prepare()
    except (NotRoot, PackagesMissing) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"SKIPPED: {error}")
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("\n" + "\n".join(map(str, built.values())))
    return built


@pytest.fixture(scope="session")
def image(images: Mapping[str, Image]) -> Images:
    def find(target: str) -> Image:
        if target not in images:
            reason = "dfget is not built: make dragonfly"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(f"SKIPPED: {reason}")
        return images[target]

    return find


@pytest.fixture(scope="session")
def container(image: Images) -> Iterator[Containers]:
    """The unpacked image of a target."""
    scratch = Path(tempfile.mkdtemp(prefix="modelswarm-images-"))
    # Others than root have to get through to it.
    scratch.chmod(0o755)

    @cache
    def unpack(target: str) -> Container:
        root = scratch / target
        root.mkdir()
        return Container.unpacked(target, image(target).archive, root)

    yield unpack
    # What is mounted there for a program is in that program's namespace only. If it were not, nothing must be removed.
    assert not [path for path in scratch.glob("*/*") if path.is_mount()]
    shutil.rmtree(scratch)
