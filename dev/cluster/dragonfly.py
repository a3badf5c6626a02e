"""A real Dragonfly for a cluster: servers and a seed peer beside the control plane, and a dfdaemon on every node.

    with ClusterDragonfly(cluster) as dragonfly, dragonfly.mirrored(cluster.registry):
        dragonfly.stack.wait_preheatable()

Dragonfly's chart makes pods of them; here they are processes, which need no images. What pods and containerd see of a
node's daemon is the same: its socket on the node, and its proxy.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import Self

from dev.cluster.addresses import CONTROL
from dev.cluster.cluster import Cluster
from dev.cluster.configuration import DIRECTORY
from dev.cluster.node import Node
from dev.dragonfly.configs import DaemonOptions, DaemonPorts
from dev.dragonfly.daemon import Daemon
from dev.dragonfly.network import FIRST_SEED, SERVER_HOST, NamespaceNetwork
from dev.dragonfly.stack import DragonflyStack
from dev.registry import Registry

SOCKET = Path("/var/run/dragonfly/dfdaemon.sock")
"""On a node; where Dragonfly's chart has it."""
_SEEN = "/run/dragonfly/dfdaemon.sock"
"""The same without the link from /var/run."""


class ClusterDragonfly:
    """A context manager; the cluster has to last longer. Nodes that join or start again later have no daemon."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._resources = ExitStack()
        self._directory = cluster.directory / "dragonfly"
        # The manager refuses registries on loopback addresses; the control plane's machine has another one.
        network = NamespaceNetwork(cluster.network, {SERVER_HOST: CONTROL, FIRST_SEED: CONTROL})
        self.stack = DragonflyStack(daemons=0, seeds=1, directory=self._directory / "servers", network=network)
        """Manager, scheduler, databases and the seed peer."""
        self.daemons: Mapping[str, Daemon] = {}
        """By node."""

    def __enter__(self) -> Self:
        """Raises StartupFailed, BinaryUnavailable or PackagesMissing."""
        with ExitStack() as resources:
            resources.callback(rmtree, self._directory, ignore_errors=True)
            resources.enter_context(self.stack)
            self.daemons = {name: self._daemon(node) for name, node in self._cluster.nodes.items()}
            for daemon in self.daemons.values():
                resources.callback(daemon.stop)
                daemon.launch()
            for daemon in self.daemons.values():
                daemon.wait_ready()
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    @contextmanager
    def mirrored(self, registry: Registry) -> Iterator[None]:
        """Every node pulls this registry's images through its daemon while the block lasts."""
        before: dict[Path, str] = {}
        try:
            for name, daemon in self.daemons.items():
                file = self._cluster.nodes[name].path(f"{DIRECTORY}/certs.d/{registry.host}/hosts.toml")
                before[file] = file.read_text()
                # containerd reads it at each pull.
                file.write_text(mirror(registry.url, daemon.proxy_url))
            yield
        finally:
            for file, text in before.items():
                file.write_text(text)

    def _daemon(self, node: Node) -> Daemon:
        directory = self._directory / node.name
        seen_at = node.path(_SEEN)
        # Of a daemon that was killed: it would look as if the new one were ready.
        seen_at.unlink(missing_ok=True)
        daemon = Daemon(
            directory,
            self.stack.programs,
            self.stack.servers,
            name=node.name,
            address=node.address,
            ports=DaemonPorts(),
            seed=False,
            options=DaemonOptions(),
            socket=SOCKET,
            seen_at=seen_at,
        )
        # With the node's process ids, so that it ends with the node.
        daemon.child.start_through(node.command(()))
        return daemon


def mirror(registry: str, proxy: str) -> str:
    """``hosts.toml`` of a registry, both given by their URLs, as docs/how-to/dragonfly.md has it. Pure."""
    host = f'host."{proxy}"'
    return f"""server = "{registry}"

[{host}]
capabilities = ["pull", "resolve"]
[{host}.header]
X-Dragonfly-Registry = "{registry}"
"""
