"""Where the parts of a Dragonfly are: on loopback, or on nodes of their own with links between them.

Dragonfly tells hosts apart by address: results of jobs are merged per address, and a daemon's identity is its address
and name. So every daemon gets an address of its own, with the usual ports. All of 127.0.0.0/8 is loopback on Linux,
which anybody may listen on.
"""

import random
import socket
from collections.abc import Mapping, Sequence
from typing import Protocol

from dev.netns import Network
from dev.process import free_port

SERVER_HOST, FIRST_SEED, FIRST_DAEMON = 1, 11, 21
"""The numbers of hosts: databases, manager and scheduler share one."""

_CLAIM_PORT = 3999
_ATTEMPTS = 200


class StackNetwork(Protocol):
    def address(self, host: int) -> str: ...

    def port(self, address: str, preferred: int) -> int:
        """A port for a server on that address."""

    def wrapper(self, host: int) -> Sequence[str]:
        """What starts a program on the host."""

    def release(self) -> None: ...


class LoopbackNetwork:
    """The addresses 127.A.B.1 to 127.A.B.253, for as long as it is not released.

    The claim is a socket that listens on 127.A.B.254, so two networks of one machine never overlap, whatever
    processes they belong to, and a killed process leaves nothing to clean up.
    """

    def __init__(self) -> None:
        # Not the shared generator, which test tools seed: see dev.process.free_port.
        choice = random.SystemRandom()
        for _ in range(_ATTEMPTS):
            prefix = f"127.{choice.randint(64, 126)}.{choice.randint(1, 254)}"
            claim = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                claim.bind((f"{prefix}.254", _CLAIM_PORT))
                claim.listen(1)
            except OSError:
                claim.close()
                continue
            self._prefix, self._claim = prefix, claim
            return
        raise RuntimeError(f"no free loopback network: is port {_CLAIM_PORT} in use on all addresses?")

    def address(self, host: int) -> str:
        if not 1 <= host <= 253:
            raise ValueError(f"the network has no host {host}")
        return f"{self._prefix}.{host}"

    def port(self, address: str, preferred: int) -> int:
        """``preferred``, or a free one if somebody listens on that on all addresses."""
        for port in (preferred, *(free_port() for _ in range(20))):
            if can_listen(address, port):
                return port
        raise RuntimeError(f"no free port on {address}")

    def wrapper(self, host: int) -> Sequence[str]:
        return ()

    def release(self) -> None:
        self._claim.close()


class NamespaceNetwork:
    """Nodes of a ``dev.netns`` network, which belongs to the caller. ``nodes``: names by the hosts' numbers.

    The address of a host is known inside only, so a thread that talks to the stack has to be there
    (``Network.entered``) while it does.
    """

    def __init__(self, network: Network, nodes: Mapping[int, str]) -> None:
        self._network = network
        self._nodes = dict(nodes)

    def address(self, host: int) -> str:
        return self._network.address(self._nodes[host])

    def port(self, address: str, preferred: int) -> int:
        """Nobody else is there."""
        return preferred

    def wrapper(self, host: int) -> Sequence[str]:
        return self._network.command(self._nodes[host], ())

    def release(self) -> None:
        """Nothing: the network outlives its Dragonfly."""


def can_listen(address: str, port: int, *, reuse: bool = True) -> bool:
    """Whether a server could open the port, for TCP and for UDP. Most servers reuse what dead connections hold."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM and reuse:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True
