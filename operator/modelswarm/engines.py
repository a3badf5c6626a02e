"""Which engines there are, from the settings: the part of the composition root that knows backends and controllers."""

import asyncio
import base64
from collections.abc import Mapping, Sequence

import httpx

from modelswarm.api.p2ptask import P2PTask
from modelswarm.backends.bittorrent.engine import BitTorrent
from modelswarm.backends.bittorrent.nodes import Nodes
from modelswarm.backends.direct import Direct
from modelswarm.backends.dragonfly.client import ManagerClient
from modelswarm.backends.dragonfly.engine import Dragonfly
from modelswarm.backends.dragonfly.images import Images
from modelswarm.backends.dragonfly.reasons import DragonflyError, DragonflyReason
from modelswarm.backends.dragonfly.seeds import Seeds
from modelswarm.backends.dragonfly.settings import DragonflySettings
from modelswarm.backends.dragonfly.wire import GrpcWire
from modelswarm.backends.engine import EngineBackend
from modelswarm.content.credentials import RegistryAuth
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.resolve import Resolver
from modelswarm.controllers.secrets import read_registry_auths
from modelswarm.controllers.world import World
from modelswarm.errors import KubeError, NotFound
from modelswarm.kube.kinds import NODE, SECRET

TOKEN_KEY = "token"
NODES_SECONDS = 300.0
"""How long the nodes' platforms are good for."""


def engines(
    world: World, http: httpx.AsyncClient, endpoints: Endpoints, resolver: Resolver, nodes: Nodes | None = None
) -> list[EngineBackend]:
    """In the order in which ``Auto`` tries them: the one that the settings prefer, Dragonfly, BitTorrent, Direct.

    ``Direct`` serves everything. ``nodes`` are those with agents, where agents are installed.
    """
    found: list[EngineBackend] = [Direct()]
    if nodes is not None:
        found.insert(0, BitTorrent(nodes))
    if (settings := world.settings.dragonfly()) is not None:
        found.insert(0, _dragonfly(world, http, endpoints, resolver, settings))
    return sorted(found, key=lambda engine: engine.name is not world.settings.engine)


def _dragonfly(
    world: World, http: httpx.AsyncClient, endpoints: Endpoints, resolver: Resolver, settings: DragonflySettings
) -> Dragonfly:

    async def auths(task: P2PTask) -> Mapping[str, RegistryAuth]:
        # One that cannot be read is no obstacle: the image may be public, and if not, the manager will say so.
        return (await read_registry_auths(world, task)).by_registry

    images = Images(http, endpoints, settings, resolver.resolve_image, auths, NodePlatforms(world))
    client = ManagerClient(http, settings.manager_url, lambda: read_token(world))
    seeds = Seeds(settings.schedulers, GrpcWire())
    return Dragonfly(client, settings, endpoints, images, seeds, clock=world.clock)


async def read_token(world: World) -> str:
    """The manager's personal access token. Raises ``DragonflyError`` (Unauthorized)."""
    name, namespace = world.settings.dragonfly_token_secret, world.settings.namespace
    try:
        secret = await world.kube.get(SECRET, name, namespace)
    except NotFound:
        raise _no_token(f"Secret {namespace}/{name} does not exist") from None
    except KubeError as error:
        raise _no_token(f"Secret {namespace}/{name} cannot be read: {error.message}") from None
    data = secret.get("data")
    value = data.get(TOKEN_KEY) if isinstance(data, dict) else None
    try:
        token = base64.b64decode(str(value or "")).decode().strip()
    except ValueError:
        token = ""
    if not token:
        raise _no_token(f"Secret {namespace}/{name} has no key {TOKEN_KEY!r}, or it is empty")
    return token


def _no_token(what: str) -> DragonflyError:
    return DragonflyError(DragonflyReason.UNAUTHORIZED, f"{what}; put the manager's personal access token there")


class NodePlatforms:
    """The platforms of the cluster's nodes, looked up now and then; none where nodes may not be listed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._until = 0.0
        self._platforms: tuple[str, ...] = ()

    async def __call__(self) -> Sequence[str]:
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._until = now + NODES_SECONDS
            try:
                nodes = await self._world.kube.list(NODE)
            except KubeError:
                return self._platforms
            found: set[str] = set()
            for node in nodes:
                status = node.get("status")
                info = status.get("nodeInfo") if isinstance(status, dict) else None
                if isinstance(info, dict) and info.get("operatingSystem") and info.get("architecture"):
                    found.add(f"{info['operatingSystem']}/{info['architecture']}")
            self._platforms = tuple(sorted(found))
        return self._platforms
