"""The parts that need no running Dragonfly."""

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from dev.binaries import BinaryUnavailable
from dev.dragonfly import builds
from dev.dragonfly.builds import Crate
from dev.dragonfly.manager import covered_urls, failures
from dev.dragonfly.network import LoopbackNetwork
from dev.dragonfly.packages import Package, PackagesMissing, ensure_packages

CRATE = Crate("some-client", "1.2.3", "0" * 64)
ABSENT = Package("no-such-package", ("no-such-program",))


def test_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(PackagesMissing, match=r"apt-get install --no-install-recommends no-such-package$") as raised:
        ensure_packages([Package("coreutils", ("cp",)), ABSENT])
    assert "\n" not in str(raised.value)


def test_package_is_not_installed_by_an_ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev.dragonfly.packages.os.geteuid", lambda: 1000)
    monkeypatch.setattr("dev.dragonfly.packages.subprocess.run", lambda *_, **__: pytest.fail("apt-get was called"))
    with pytest.raises(PackagesMissing):
        ensure_packages([ABSENT], install=True)


def test_missing_cargo_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELSWARM_CACHE", str(tmp_path))
    monkeypatch.setattr("dev.dragonfly.builds.shutil.which", lambda _: None)
    with pytest.raises(BinaryUnavailable, match=r"^cannot build dfdaemon and dfget: there is no 'cargo' on PATH; .*$"):
        builds._clients()


def test_archive_with_other_content_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "some-client-1.2.3.crate"
    archive.write_bytes(b"other")
    with pytest.raises(BinaryUnavailable, match="instead of 0000"):
        builds._verify(CRATE, [archive])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Crate("some-client", "1.2.4", "0" * 64), id="version"),
        pytest.param(Crate("some-client", "1.2.3", "1" * 64), id="content"),
    ],
)
def test_another_pin_is_another_build(other: Crate) -> None:
    assert builds.cache_key(other) != builds.cache_key(CRATE) == builds.cache_key(CRATE)


def test_two_networks_do_not_overlap() -> None:
    networks = [LoopbackNetwork() for _ in range(5)]
    try:
        assert len({network.address(1) for network in networks}) == 5
    finally:
        for network in networks:
            network.release()


def test_taken_port_is_replaced() -> None:
    network = LoopbackNetwork()
    address = network.address(1)
    try:
        assert network.port(address, 8080) == 8080
        with socket.create_server((address, 8080)):
            assert network.port(address, 8080) != 8080
    finally:
        network.release()


@pytest.mark.parametrize(
    ("result", "urls", "messages"),
    [
        pytest.param(None, set(), [], id="not polled yet"),
        pytest.param({"job_states": None}, set(), [], id="no states"),
        pytest.param({"job_states": [{"error": "", "results": None}]}, set(), [], id="success without any task"),
        pytest.param(
            {"job_states": [{"error": "", "results": [{"success_tasks": [{"url": "u"}], "failure_tasks": None}]}]},
            {"u"},
            [],
            id="success",
        ),
        pytest.param(
            {
                "job_states": [
                    {"error": "e", "results": [{"failure_tasks": [{"url": "u", "description": "d"}]}]},
                ]
            },
            set(),
            ["e", "u: d"],
            id="failure",
        ),
    ],
)
def test_job_is_read_as_it_is(result: object, urls: set[str], messages: Sequence[str]) -> None:
    job = {"state": "SUCCESS", "result": result}
    assert covered_urls(job) == urls
    assert failures(job) == messages
