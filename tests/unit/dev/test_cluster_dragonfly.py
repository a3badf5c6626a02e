"""What nodes of the test cluster are told about Dragonfly is what the guide tells its readers."""

from dev.cluster.dragonfly import SOCKET, mirror
from dev.installation import ROOT
from modelswarm.workload.pod import DFDAEMON_SOCKET


def test_the_mirror_of_a_registry_is_the_one_of_the_guide() -> None:
    guide = (ROOT / "docs" / "how-to" / "dragonfly.md").read_text()
    assert f"```toml\n{mirror('https://index.docker.io', 'http://127.0.0.1:4001')}```" in guide


def test_the_daemons_listen_where_loaders_look() -> None:
    assert str(SOCKET) == DFDAEMON_SOCKET
