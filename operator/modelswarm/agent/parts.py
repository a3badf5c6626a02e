"""What the sessions of a node share."""

from dataclasses import dataclass, field

from modelswarm.agent.hosting import Hosting
from modelswarm.agent.member import Address
from modelswarm.agent.metainfo.client import MetainfoClient
from modelswarm.agent.metrics import AgentMetrics
from modelswarm.agent.origin import Origins
from modelswarm.agent.peers import Discovery
from modelswarm.agent.provisions import Provisions
from modelswarm.agent.seeding import Seeding
from modelswarm.agent.settings import AgentSettings
from modelswarm.agent.sharing import Sharing
from modelswarm.agent.signals import Signals
from modelswarm.agent.store import Store
from modelswarm.agent.swarm import Swarm
from modelswarm.agent.turns import Turns
from modelswarm.content.resolve import Resolver
from modelswarm.kube.port import KubePort


@dataclass(frozen=True, slots=True)
class Parts:
    """Made once by ``process``."""

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
    origins: Origins
    metrics: AgentMetrics
    signals: Signals
    turns: Turns = field(default_factory=Turns)
