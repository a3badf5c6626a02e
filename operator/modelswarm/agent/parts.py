"""What the sessions of a node share."""

from dataclasses import dataclass

import httpx

from modelswarm.agent.hosting import Hosting
from modelswarm.agent.member import Address
from modelswarm.agent.metainfo.client import MetainfoClient
from modelswarm.agent.metrics import AgentMetrics
from modelswarm.agent.peers import Discovery
from modelswarm.agent.provisions import Provisions
from modelswarm.agent.seeding import Seeding
from modelswarm.agent.settings import AgentSettings
from modelswarm.agent.sharing import Sharing
from modelswarm.agent.signals import Signals
from modelswarm.agent.store import Store
from modelswarm.agent.swarm import Swarm
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.resolve import Resolver
from modelswarm.kube.port import KubePort
from modelswarm.loader.gate import Gate


@dataclass(frozen=True, slots=True)
class Parts:
    """Made once by ``process``. ``gate`` holds back all reads of an origin that has asked for patience."""

    settings: AgentSettings
    address: Address
    kube: KubePort
    store: Store
    swarm: Swarm
    sharing: Sharing
    client: MetainfoClient
    discovery: Discovery
    seeding: Seeding
    hosting: Hosting
    provisions: Provisions
    resolver: Resolver
    endpoints: Endpoints
    http: httpx.AsyncClient
    gate: Gate
    metrics: AgentMetrics
    signals: Signals
