"""Which nodes have a ready agent: the endpoints of the agents' headless Service, looked at every few seconds.

They say what a NodeCache cannot: a killed agent or a lost node does not write any more. What NodeCaches say of their
Nodes is looked at with them: a label or a taint may concern tasks that the NodeCache does not name.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from modelswarm.backends.bittorrent.nodes import Nodes, ready_nodes
from modelswarm.errors import KubeError
from modelswarm.kube.kinds import ENDPOINTSLICE
from modelswarm.kube.port import KubePort
from modelswarm.placement import Place

logger = logging.getLogger(__name__)


class AgentWatch:
    """Keeps ``nodes.presence``, and calls ``changed`` when another node is live, when one has been away too long, and
    when one's labels are others, or whether it takes pods."""

    def __init__(
        self,
        kube: KubePort,
        nodes: Nodes,
        *,
        namespace: str,
        service: str,
        changed: Callable[[], None],
        grace: float,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = 5.0,
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._namespace = namespace
        self._selector = f"kubernetes.io/service-name={service}"
        self._changed = changed
        self._grace = grace
        self._clock = clock
        self._seconds = seconds
        self._problem = ""
        self._places: Mapping[str, Place] = {}

    async def look(self) -> bool:
        """Look once; returns whether something changed. What cannot be read now stays as it was."""
        try:
            slices = await self._kube.list(ENDPOINTSLICE, self._namespace, label_selector=self._selector)
        except KubeError as error:
            if error.message != self._problem:
                logger.warning("cannot see which agents are ready: %s", error.message)
            self._problem = error.message
            return False
        self._problem = ""
        before, places = self._nodes.presence, self._places
        self._nodes.presence = before.after(ready_nodes(slices), self._clock(), self._grace)
        self._places = self._nodes.places()
        return (self._nodes.presence, self._places) != (before, places)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            if await self.look():
                self._changed()
