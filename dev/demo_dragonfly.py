"""The demo's engine Dragonfly: the real one, with one seed peer and three nodes' daemons, started for the demo.

Everything runs in a network of its own, because Dragonfly's manager refuses registries on loopback addresses.
"""

from collections.abc import Sequence

from dev.demo_engine import Expected, Node, Stage, Surroundings
from dev.demo_steps import DemoFailed
from dev.dragonfly.builds import prepare
from dev.dragonfly.configs import CLUSTER
from dev.dragonfly.packages import ensure_packages
from dev.dragonfly.stack import DragonflyStack
from dev.hub import HubThread
from dev.installation import NAMESPACE
from dev.private_network import ADDRESS, PrivateNetworkUnavailable, enter_private_network

NODES = 3


class DragonflyDemo:
    # Nodes may read small files from the origin: here these are a few kilobytes.
    expected = Expected(copies=1.02, engine="Dragonfly", image_engine="Dragonfly")
    # If the scheduler does not answer, the manager looks at a job after 30, 90 and 210 s.
    patience = 300.0
    registry_address = ADDRESS

    def prepare(self) -> None:
        ensure_packages()
        prepare()  # says what it builds, and how long that takes
        try:
            self._way_in = enter_private_network()
        except PrivateNetworkUnavailable as error:
            raise DemoFailed(f"engine dragonfly {error}") from None

    def start(self, stage: Stage) -> None:
        self._stage = stage
        with stage.summary.stage("Dragonfly up"):
            self._dragonfly = stage.stack.enter_context(DragonflyStack(daemons=NODES, seeds=1))
        stage.console.say(
            f"Dragonfly: manager at {self._dragonfly.manager_url}, scheduler, 1 seed peer, daemons of {NODES} nodes"
        )

    def connect(self, around: Surroundings) -> dict[str, str]:
        token = f"--from-literal=token={self._dragonfly.token}"
        around.cluster.kubectl("-n", NAMESPACE, "create", "secret", "generic", "dragonfly-token", token)
        self._stage.console.say("waiting until Dragonfly's scheduler looks for seed peers, which it does every 30 s")
        with self._stage.summary.stage("scheduler knows its seed"):
            self._dragonfly.wait_preheatable()
        return {
            "MODELSWARM_DRAGONFLY_MANAGER_URL": self._dragonfly.manager_url,
            # So that Ready does not wait for the manager, which looks at a job after 30 s for the first time.
            "MODELSWARM_DRAGONFLY_SCHEDULERS": f"{CLUSTER}={self._dragonfly.scheduler_address}",
            # The manager of this version knows layers by their URL only.
            "MODELSWARM_DRAGONFLY_IMAGE_IDS": "url",
            "MODELSWARM_DRAGONFLY_IMAGE_HOSTS": f"docker.io={around.registry}",
            "MODELSWARM_DRAGONFLY_PLATFORMS": "linux/amd64",
        }

    def nodes(self) -> Sequence[Node]:
        """The pod mounts the socket's directory; here the daemons of all nodes have theirs side by side."""
        return [
            Node(
                f"node-{number}",
                {
                    "MODELSWARM_DFDAEMON_SOCKET": str(daemon.socket),
                    "MODELSWARM_DFGET": str(self._dragonfly.programs.dfget),
                },
            )
            for number, daemon in enumerate(self._dragonfly.daemons, start=1)
        ]

    def encore(self, hub: HubThread, model: str) -> list[tuple[str, str]]:
        return []

    def way_in(self) -> str:
        return self._way_in
