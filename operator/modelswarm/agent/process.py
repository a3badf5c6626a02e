"""``modelswarm agent``: puts the agent's parts together and runs them. The only module of the agent that knows all."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import ip_address

from modelswarm import __version__, logs
from modelswarm.agent.custody import Custody
from modelswarm.agent.hosting import Hosting, LocalFirst
from modelswarm.agent.member import Address
from modelswarm.agent.metainfo.server import MetainfoServer
from modelswarm.agent.metainfo.signing import SecretFile, Signer, no_secrets
from modelswarm.agent.metrics import AgentMetrics
from modelswarm.agent.modelconfig import ModelConfigs
from modelswarm.agent.origin import Origins
from modelswarm.agent.origin import open_client as open_origin
from modelswarm.agent.parts import Parts
from modelswarm.agent.peers import Discovery, metainfo_url
from modelswarm.agent.probes import Probes
from modelswarm.agent.provisions import Provisions
from modelswarm.agent.reporter import Reporter
from modelswarm.agent.residents import Residents
from modelswarm.agent.scout import NodeView, Scout
from modelswarm.agent.seeding import Seeding
from modelswarm.agent.settings import AgentSettings
from modelswarm.agent.sharing import Sharing
from modelswarm.agent.signals import Signals
from modelswarm.agent.store import Store, StoreSettings
from modelswarm.agent.swarm import Encryption, Swarm, SwarmSettings
from modelswarm.agent.wanted import Needs
from modelswarm.api.nodecache import AgentStatus
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.resolve import Resolver
from modelswarm.errors import CannotListen, ModelswarmError, SettingsError, StoreBusy
from modelswarm.kube.auth import load_configuration, open_client
from modelswarm.kube.client import KubeClient
from modelswarm.kube.events import EventRecorder
from modelswarm.loader.gate import Gate

COMPONENT = "modelswarm-agent"
STOP_SECONDS = 20.0
STALL_SECONDS = 15.0
"""Without a byte of a window that somebody has, other ways to it are tried."""

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Exit codes: 0 asked to stop, 1 a part died (start it again), 2 wrong settings, or store or port are taken."""
    try:
        settings = AgentSettings.load(argv, os.environ)
    except SettingsError as error:
        print(f"modelswarm agent: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format)
    try:
        return asyncio.run(run(settings))
    except (SettingsError, StoreBusy, CannotListen) as error:
        log.error("P2P: %s", error)
        return 2
    except ModelswarmError as error:
        log.error("P2P: %s", error)
        return 1


async def run(settings: AgentSettings) -> int:
    """Run until SIGTERM or SIGINT, or until a part dies."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(_assemble(settings, stack))
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        code = 0 if stopped in done else 1
        for task in done - {stopped}:
            log.error("P2P: %s ended", task.get_name(), exc_info=task.exception())
        stopped.cancel()
    return code


@contextlib.asynccontextmanager
async def _assemble(
    settings: AgentSettings, stack: contextlib.AsyncExitStack
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Everything that runs, as tasks; what they need is given back in reverse order."""
    client = open_client(await load_configuration())
    stack.push_async_callback(client.close)
    metrics = AgentMetrics()
    kube = KubeClient(client, metrics=metrics)
    host = settings.pod_ip or None
    store = Store(_store_settings(settings))
    await stack.enter_async_context(store)
    secrets = _secrets(settings)
    signer = Signer(secrets, time.time)
    signals = Signals(settings.low_watermark)
    swarm = Swarm(_swarm_settings(settings, (secrets() or (b"",))[0]), report=signals.hear)
    own_url = metainfo_url(host or "127.0.0.1", settings.metainfo_port)
    peers = LocalFirst(signer, host=host)
    stack.push_async_callback(peers.close)
    discovery = Discovery(
        settings.peers_service,
        own=[host or "127.0.0.1"],
        metainfo_port=settings.metainfo_port,
        torrent_port=settings.torrent_port,
    )
    seeding = Seeding(store, swarm, peers, discovery, swarm.settings.secret, node=settings.node_name)
    hosting = Hosting(store, swarm, seeding)
    peers.own_url, peers.hosting = own_url, hosting
    if settings.p2p_enabled:
        await swarm.start()
        stack.push_async_callback(swarm.stop)
        server = MetainfoServer(
            hosting, signer, host=host, port=settings.metainfo_port, observe=metrics.metainfo_request
        )
        await server.start()
        stack.push_async_callback(server.stop)
        log.info("P2P enabled: BitTorrent on port %d, metainfo on port %d", swarm.port, server.port)
    else:
        log.info("P2P disabled: this node downloads from the origin by itself")
    http = await stack.enter_async_context(open_origin())
    endpoints = Endpoints.from_env(os.environ)
    torrent_host = host or "127.0.0.1"
    parts = Parts(
        settings=settings,
        address=Address(settings.node_name, own_url, torrent_host, swarm.port or settings.torrent_port),
        kube=kube,
        store=store,
        swarm=swarm,
        sharing=Sharing(swarm, signals.hear),
        client=peers,
        discovery=discovery,
        seeding=seeding,
        hosting=hosting,
        provisions=Provisions(kube, namespace=settings.pod_namespace),
        resolver=Resolver(http, endpoints, ttl=0.0),
        origins=Origins(http, endpoints, Gate(log.warning)),
        metrics=metrics,
        signals=signals,
    )
    events = EventRecorder(kube, metrics=metrics, component=COMPONENT, instance=settings.identity)
    torrent = f"[{torrent_host}]" if ip_address(torrent_host).version == 6 else torrent_host
    reporter = Reporter(
        kube,
        events,
        namespace=settings.pod_namespace,
        agent=AgentStatus(
            metainfo_url=own_url, torrent_address=f"{torrent}:{settings.torrent_port}", version=__version__
        ),
        configs=ModelConfigs(store.root / "models"),
        label_limit=settings.label_limit,
    )
    residents = Residents(parts, reporter)
    custody = Custody(kube, namespace=settings.pod_namespace, me=settings.node_name)

    def notice(needs: Needs, node: NodeView) -> None:
        residents.want(needs, node)
        custody.notice(needs)

    scout = Scout(
        kube,
        node=settings.node_name,
        namespace=settings.pod_namespace,
        root=settings.model_dir,
        pod=settings.pod_name,
        task_namespaces=settings.task_namespaces,
        on_change=notice,
    )
    metrics.watch(residents.live)
    probes = Probes(store.root, metrics, lambda: "" if scout.synced.is_set() else "the cluster was not listed yet")
    await probes.start(settings.http_port, settings.pod_ip or None)
    stack.push_async_callback(probes.stop)
    tasks = [
        asyncio.create_task(work, name=name)
        for name, work in {
            "discovery": discovery.run(),
            "residents": residents.run(),
            "reporter": reporter.run(),
            "custody": custody.run(),
            "events": events.run(),
            "scout": scout.run(),
        }.items()
    ]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_SECONDS)


def _secrets(settings: AgentSettings) -> Callable[[], Sequence[bytes]]:
    path = settings.peer_secret_file
    if path is None or (settings.peer_secret_optional and not path.exists()):
        return no_secrets
    return SecretFile(path, time.monotonic)


def _store_settings(settings: AgentSettings) -> StoreSettings:
    found = os.statvfs(settings.model_dir) if settings.model_dir.exists() else os.statvfs("/")
    total = found.f_blocks * found.f_frsize
    return StoreSettings(
        root=settings.model_dir,
        node=settings.node_name,
        quota=settings.quota.of(total),
        reserve=settings.reserve.of(total),
        high=settings.high_watermark,
        low=settings.low_watermark,
    )


def _swarm_settings(settings: AgentSettings, secret: bytes) -> SwarmSettings:
    return SwarmSettings(
        node=settings.node_name,
        host=settings.pod_ip or None,
        port=settings.torrent_port,
        secret=secret,
        download_rate=settings.max_download_rate,
        upload_rate=settings.max_upload_rate,
        encryption=Encryption(settings.encryption),
        stall_seconds=STALL_SECONDS,
    )
