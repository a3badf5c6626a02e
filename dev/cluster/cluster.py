"""The whole: network, control plane, DNS, registry and nodes, started in this order and ended in the reverse."""

import itertools
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dev.binaries import _target
from dev.cluster import state
from dev.cluster.addresses import CONTROL, ORIGIN, machines, node_name, pod_range, routes, service_route
from dev.cluster.archive import program_image, push
from dev.cluster.configuration import PAUSE, NodeFacts
from dev.cluster.dns import ClusterDns
from dev.cluster.node import Identity, Node
from dev.cluster.programs import find_programs
from dev.controlplane import ControlPlane
from dev.dragonfly.packages import program_path
from dev.hub import Hub, HubThread
from dev.netns import Network
from dev.netns_commands import Names, start_time
from dev.registry import Registry

STANDIN = ("standin", "v1")
"""Repository and tag of the image that stands in for an engine; see dev/tools/cluster/standin."""
NODES_READY_TIMEOUT = 300.0

_CONTROL_PLANE_FLAGS = (
    "--endpoint-reconciler-type=lease",
    # Without these the API server cannot ask kubelets for logs, and exec does not work.
    "--kubelet-certificate-authority=pki/ca.crt",
    "--kubelet-client-certificate=pki/admin.crt",
    "--kubelet-client-key=pki/admin.key",
    "--kubelet-preferred-address-types=InternalIP",
)
# A dead node is NotReady after so long; kubelets report every four seconds.
_CONTROLLER_FLAGS = ("--node-monitor-grace-period=20s",)
_serials = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Images:
    """References as pods write them."""

    registry: str
    standin: str


class Cluster:
    """A context manager. While it lasts, the thread that entered it is on the control plane's machine.

    ``most`` is how many nodes there may ever be: the first ``nodes`` are started, others join with ``join``.
    """

    def __init__(self, *, nodes: int = 3, most: int | None = None, audit_log: bool = False) -> None:
        self._first, self._most = nodes, most or nodes
        self._audit_log = audit_log
        self._stack = ExitStack()
        self.nodes: dict[str, Node] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Raises ClusterUnavailable, BinaryUnavailable or StartupFailed."""
        self._programs = find_programs()
        state.remove_abandoned()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything and remove it. Harmless if that has been done."""
        self._stack.close()
        self.nodes.clear()

    # Use

    def join(self, *numbers: int) -> None:
        """Start these nodes, also such as were killed, and wait until they are Ready."""
        names = [node_name(number) for number in numbers]
        for number, name in zip(numbers, names, strict=True):
            if name not in self.nodes:
                node = self._node(number)
                self.nodes[name] = node
                self._stack.callback(node.remove)
            self.nodes[name].start()
        for name in names:
            self.nodes[name].wait_started()
        self._wait_ready(names)

    def serve(self, hub: Hub) -> HubThread:
        """The hub on the origin's machine; to be used as a context manager. Make it with ``host=origin_address``."""
        return _AtOrigin(self.network, hub)

    @property
    def origin_address(self) -> str:
        return self.network.address(ORIGIN)

    def route_services(self, number: int) -> None:
        """Reach Services from this machine through node ``number`` and not through the first."""
        self._route(CONTROL, service_route(number, self.network.address))

    def shape(self, rates: Mapping[str, int | None]) -> None:
        """Speeds of links by machine, in bits per second each way; None: as fast as it goes."""
        for machine, rate in rates.items():
            self.network.shape(machine, rate)

    # Start-up

    def _start(self) -> None:
        stack = self._stack
        serial = next(_serials)
        self.directory = state.new_directory(os.getpid(), serial)
        stack.callback(state.remove_directory, self.directory)
        self._cgroups = Names(os.getpid(), start_time() or 0, serial)
        self.network = stack.enter_context(Network(machines(self._most)))
        for machine, route in routes(self._most, self.network.address):
            self._route(machine, route)
        stack.enter_context(self.network.entered(CONTROL))
        self.address = self.network.address(CONTROL)
        self.plane = stack.enter_context(
            ControlPlane(
                directory=self.directory / "control",
                address=self.address,
                audit_log=self._audit_log,
                apiserver_flags=(
                    f"--bind-address={self.address}",
                    f"--advertise-address={self.address}",
                    *_CONTROL_PLANE_FLAGS,
                ),
                controller_flags=_CONTROLLER_FLAGS,
            )
        )
        self.registry = stack.enter_context(Registry(address=self.address, directory=self.directory / "registry"))
        dns = ClusterDns(self._programs.coredns, self.plane, self.address, self.directory / "dns")
        stack.callback(dns.stop)
        dns.start()
        self._make_images()
        self.join(*range(1, self._first + 1))

    def _wait_ready(self, names: Iterable[str]) -> None:
        nodes, limit = [f"node/{name}" for name in names], f"--timeout={NODES_READY_TIMEOUT:g}s"
        for node in nodes:  # one by one: kubectl gives up on a list when only some of it is there
            self.plane.kubectl("wait", "--for=create", limit, node)
        self.plane.kubectl("wait", "--for=condition=Ready", limit, *nodes)

    def _make_images(self) -> None:
        program, (_, architecture) = self._programs.standin, _target()
        self._pause = program_image(self.directory / "pause.tar", program, ["/standin", "pause"], PAUSE, architecture)
        repository, tag = STANDIN
        archive = self.directory / "standin.tar"
        program_image(archive, program, ["/standin", "serve"], f"localhost/{repository}:{tag}", architecture)
        self.images = Images(self.registry.host, push(archive, self.registry, repository, tag))

    def _node(self, number: int) -> Node:
        name = node_name(number)
        address = self.network.address(name)
        directory = self.directory / name
        directory.mkdir()
        plane = self.plane
        serving = plane.serving_certificate(name, (name, address))
        identity = {
            "ca.crt": plane.ca_file.read_bytes(),
            "kubelet.crt": serving.certificate,
            "kubelet.key": serving.key,
            "kubelet.kubeconfig": plane.user_kubeconfig(f"system:node:{name}", ["system:nodes"]).read_bytes(),
            "kube-proxy.kubeconfig": plane.user_kubeconfig("system:kube-proxy").read_bytes(),
        }
        facts = NodeFacts(
            name=name,
            address=address,
            pods=pod_range(number),
            dns=self.address,
            cgroup=self._cgroups.of(name),
            runc=self._programs.runc,
            cni=self._programs.cni,
            registries=(self.registry.host,),
        )
        return Node(self.network, facts, self._programs, Identity(identity), directory=directory, images=[self._pause])

    def _route(self, machine: str, route: tuple[str, ...]) -> None:
        self.network.run(machine, [str(program_path("ip")), "route", *route], timeout=30)


class _AtOrigin(HubThread):
    """Its sockets are made by its own thread, so that one has to be there too."""

    def __init__(self, network: Network, hub: Hub) -> None:
        super().__init__(hub)
        self._network = network

    def __enter__(self) -> Self:
        with self._network.entered(ORIGIN):
            return super().__enter__()


def kubeconfig_for(plane: ControlPlane, server: str, path: Path) -> Path:
    """The administrator's kubeconfig for a server at another address."""
    path.touch(mode=0o600)
    path.write_text(plane.kubeconfig.read_text().replace(plane.server, server))
    return path
