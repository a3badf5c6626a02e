"""Whole agents of one process, without sockets: real residents, sessions, Leases, coordinators and stores.

What is played: the API server's objects (``FakeServer``), the way between nodes (a call, or an error where a node is
dead or cut off), the swarm (bytes are copied between the nodes' files where hashes agree) and the origin, which counts
what it gives. Time is the loop's, to be run with looptime, and what runs in threads elsewhere runs at once: so two
minutes of a test take no time, and the same seed gives the same order of events.
"""

import asyncio
import contextlib
import functools
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from modelswarm.agent.election import Record
from modelswarm.agent.hosting import Hosting
from modelswarm.agent.leaserecord import lease_name, read
from modelswarm.agent.member import Address
from modelswarm.agent.messages import Answer, Report
from modelswarm.agent.metainfo.client import MetainfoClient
from modelswarm.agent.metrics import AgentMetrics
from modelswarm.agent.origin import Origins
from modelswarm.agent.parts import Parts
from modelswarm.agent.peers import Discovery
from modelswarm.agent.provisions import Provisions
from modelswarm.agent.reporter import Reporter
from modelswarm.agent.residents import Residents
from modelswarm.agent.scout import NodeView
from modelswarm.agent.seeding import Seeding
from modelswarm.agent.settings import AgentSettings
from modelswarm.agent.sharing import Sharing
from modelswarm.agent.signals import Signals
from modelswarm.agent.standing import Standing
from modelswarm.agent.store import Store, StoreSettings
from modelswarm.agent.swarm import Swarm as RealSwarm
from modelswarm.agent.wanted import Claim, ManifestRef, Needs, Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.api.openmodel import HubName
from modelswarm.content.manifest import Manifest, encode, shard_name, to_binary_data
from modelswarm.content.resolve import Resolver
from modelswarm.content.source import HubSource
from modelswarm.errors import NotCoordinator, PeerUnavailable, Unavailable
from modelswarm.kube.key import Key
from modelswarm.kube.kinds import CONFIGMAP, LEASE
from tests.unit.agent.company_swarm import CompanySwarm
from tests.unit.agent.fleet import Air, Leg, Origin
from tests.unit.kube.fake import FakeServer, Interruption

NAMESPACE = "ome"
PORT = 8081
PATIENCE = 900.0
"""Of the loop's time, until which whatever a test waits for must have happened."""


class Inline(ThreadPoolExecutor):
    """What is called runs at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  (the caller gets it)
            done.set_exception(error)
        return done


def hash_of(manifest: Manifest) -> str:
    """A model hash; that it is the content's digest is chance."""
    return manifest.digest.removeprefix("sha256:")


def wanted_of(manifest: Manifest, *, path: Path | None = None, suspended: bool = False, pin: bool = False) -> Wanted:
    """As one task wants it; with a ``path``, as one BaseModel that is pinned wants it."""
    kind = "P2PTask" if path is None else "BaseModel"
    name = f"task-{hash_of(manifest)[:8]}"
    claim = Claim(
        kind, "models", name, f"uid-{name}", pin=pin, suspended=suspended, path=path,
        manifest=ManifestRef("models", f"{name}-manifest", 1),
    )  # fmt: skip
    return Wanted(
        key=manifest.digest,
        content=manifest.digest,
        model_hash=hash_of(manifest),
        name="org/model",
        revision=manifest.revision,
        source=HubSource(HubName.HUGGINGFACE, "org/model"),
        claims=(claim,),
        bytes=manifest.bytes,
    )


class Wire:
    """What one node asks the others (``MetainfoClient``)."""

    def __init__(self, company: "Company", own: "Agent") -> None:
        self._company = company
        self._own = own

    async def report(self, url: str, content_id: str, report: Report) -> Answer:
        report = self._own.lie(report)
        self._company.reports.append(report)
        # As on the wire: nothing is shared but what the message says.
        sent = Report.model_validate_json(report.model_dump_json(exclude_defaults=True))
        answer = await self._ask(url, lambda other: other.parts.hosting.report(content_id, sent))
        if answer is None:
            raise NotCoordinator("nothing is known of the content", url=url)
        return Answer.model_validate_json(answer.model_dump_json(exclude_defaults=True))

    async def find_seeders(self, urls: Sequence[str], model_hash: str, enough: int = 4) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for url in urls:
            with contextlib.suppress(PeerUnavailable):
                metainfo = await self._ask(url, lambda other: other.parts.hosting.metainfo(model_hash))
                if metainfo is not None:
                    found[url] = self._company.at(url).false_metainfo or metainfo
        return found

    async def is_alive(self, url: str) -> bool:
        return self._company.reaches(self._own, url)

    async def manifest(self, url: str, digest: str) -> Manifest | None:
        return await self._ask(url, lambda other: other.parts.hosting.manifest(digest.removeprefix("sha256:")))

    async def blobs(self, url: str, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        if self._company.reaches(self._own, url) and self._company.at(url).gives_no_blobs:
            raise PeerUnavailable("no answer", url=url)
        for key in keys:
            path = await self._ask(url, lambda other, key=key: other.parts.hosting.blob(key))  # type: ignore[misc]
            if path is not None:
                found[key] = path.read_bytes()
        return found

    async def _ask(self, url: str, ask: Callable[["Agent"], Any]) -> Any:
        await asyncio.sleep(0.001)
        if not self._company.reaches(self._own, url):
            await asyncio.sleep(self._company.silence)
            raise PeerUnavailable("no answer", url=url)
        other = self._company.at(url)
        asking = asyncio.ensure_future(ask(other))
        dying = asyncio.ensure_future(other.died.wait())
        try:
            await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            dying.cancel()
            if not asking.done():
                asking.cancel()
        if not asking.done() or other.died.is_set():
            await asyncio.gather(asking, return_exceptions=True)
            raise PeerUnavailable("no answer", url=url)
        return asking.result()


@dataclass(slots=True)
class Told:
    """Instead of the reporter."""

    standings: list[Standing] = field(default_factory=list)

    def update(self, standings: Sequence[Standing], capacity: object, node: object) -> None:
        self.standings = list(standings)


class Agent:
    """One node's: ``start`` and ``kill`` it as often as you like; the disk stays."""

    def __init__(self, company: "Company", name: str, number: int) -> None:
        self.name = name
        self.host = f"10.0.0.{number}"
        self.url = f"http://{self.host}:{PORT}"
        self.died = asyncio.Event()
        self.died.set()
        self.cut_off = False
        """Nobody reaches it, and it reaches nobody; the API server does not count."""
        self.false_metainfo = b""
        """What it tells instead of its metainfo, if anything."""
        self.gives_no_blobs = False
        self.lie: Callable[[Report], Report] = lambda report: report
        """What it makes of its own reports."""
        self.api: Interruption = lambda verb: None
        """How the API server treats its requests."""
        self.leg = Leg(company.origin)
        self.needs = Needs()
        self.told = Told()
        self.quota = 1 << 40
        """Of the store. Without one, how full the machine's disk is would decide what is evicted."""
        self._company = company
        self._stack = contextlib.AsyncExitStack()

    @property
    def is_alive(self) -> bool:
        return not self.died.is_set()

    async def start(self, *manifests: Manifest, origin_nodes: int | None = None, p2p: bool = True) -> "Agent":
        """Let it want these contents, or (without any) what it wanted before."""
        self._stack = contextlib.AsyncExitStack()
        self.died = asyncio.Event()
        self.parts = await self._assemble(origin_nodes, p2p)
        self.residents = Residents(
            self.parts, cast(Reporter, self.told), rng=random.Random(f"{self.name} {self._company.seed}")
        )
        for work in (self.residents.run(), self.swarm.run()):
            task = asyncio.create_task(work)
            self._stack.push_async_callback(_end, task)
        if manifests:
            self.want(*map(wanted_of, manifests))
        else:
            self._tell()
        return self

    async def _assemble(self, origin_nodes: int | None, p2p: bool) -> Parts:
        company = self._company
        settings = AgentSettings(
            node_name=self.name, model_dir=company.directory / self.name, origin_nodes=origin_nodes, p2p_enabled=p2p,
            download_timeout=60.0,
        )  # fmt: skip
        store = Store(StoreSettings(settings.model_dir, node=self.name, reserve=0, quota=self.quota))
        store.threads._executor = Inline()
        await self._stack.enter_async_context(store)
        kube = company.server.client(self._interrupt)
        self.swarm = CompanySwarm(company.air, self.name, functools.partial(company.seeder_of, self))
        self._stack.callback(company.air.swarms.remove, self.swarm)
        swarm, wire = cast(RealSwarm, self.swarm), cast(MetainfoClient, Wire(company, self))
        signals = Signals(settings.low_watermark)
        discovery = Discovery(
            ["peers"],
            own=[self.host],
            metainfo_port=PORT,
            torrent_port=6881,
            lookup=company.look_up,
            rng=random.Random(f"dns {self.name}"),
        )
        seeding = Seeding(store, swarm, wire, discovery, self.swarm.settings.secret, node=self.name)
        self.swarm.report = signals.hear
        return Parts(
            settings=settings,
            address=Address(self.name, self.url, self.host, 6881),
            kube=kube,
            store=store,
            swarm=swarm,
            sharing=Sharing(self.swarm, signals.hear),
            client=wire,
            discovery=discovery,
            seeding=seeding,
            hosting=Hosting(store, swarm, seeding),
            provisions=Provisions(kube, namespace=NAMESPACE),
            resolver=cast(Resolver, None),
            origins=cast(Origins, SimpleNamespace(leg=self._leg)),
            metrics=AgentMetrics(),
            signals=signals,
        )

    async def _leg(self, manifest: Manifest, credentials: object) -> Leg:
        return self.leg

    def _interrupt(self, verb: str) -> Exception | float | None:
        dead = self.died.is_set() or self._company.api_is_away
        return Unavailable("no answer") if dead else self.api(verb)

    def want(self, *wanted: Wanted, in_use: frozenset[str] = frozenset()) -> None:
        """These and nothing else."""
        self.needs = Needs({each.key: each for each in wanted}, in_use=in_use)
        self._tell()

    def _tell(self) -> None:
        self.residents.want(self.needs, NodeView(self.name, f"uid-{self.name}"))

    def move(self, host: str) -> None:
        """While it is dead: it comes back at another address, as a pod does."""
        self.host, self.url = host, f"http://{host}:{PORT}"

    async def kill(self) -> None:
        """As the kernel does it: from one moment to the next it is not heard of any more."""
        self.died.set()
        self.swarm.entries.clear()
        self.swarm.models.clear()
        await self._stack.aclose()

    async def stop(self) -> None:
        """As the kubelet does it: asked to, it gives back what it holds."""
        await self._stack.aclose()
        self.died.set()

    def standing(self, manifest: Manifest) -> Standing:
        return next(each for each in self.residents.standings() if each.key == manifest.digest)

    def is_ready(self, manifest: Manifest) -> bool:
        return self.is_alive and any(
            each.key == manifest.digest and each.state is ModelState.READY for each in self.residents.standings()
        )


class Company:
    """All nodes, one API server, one origin."""

    def __init__(self, directory: Path, files: Mapping[str, bytes], *, seed: int = 0) -> None:
        self.directory = directory
        self.origin = Origin(files)
        self.server = FakeServer()
        self.air = Air()
        self.agents: dict[str, Agent] = {}
        self.reports: list[Report] = []
        self.api_is_away = False
        self.silence = 0.0
        """Seconds until it is noticed that nobody is at an address."""
        self.ghosts: list[str] = []
        """Addresses in DNS where nobody is."""
        self.seed = seed

    def add(self, *names: str) -> list[Agent]:
        found = [Agent(self, name, 1 + len(self.agents) + number) for number, name in enumerate(names)]
        self.agents.update((agent.name, agent) for agent in found)
        return found

    def describe(self, *manifests: Manifest) -> None:
        """The lists of files that the operator writes."""
        for manifest in manifests:
            [claim] = wanted_of(manifest).claims
            assert claim.manifest is not None
            for index, shard in enumerate(encode(manifest)):
                self.server.store(
                    {
                        "apiVersion": CONFIGMAP.api_version,
                        "kind": CONFIGMAP.kind,
                        "metadata": {"name": shard_name(claim.manifest.name, index), "namespace": "models"},
                        "binaryData": {**to_binary_data(shard)},
                    }
                )

    async def look_up(self, name: str) -> Sequence[str]:
        return [*self.ghosts, *(agent.host for agent in self.agents.values() if agent.is_alive)]

    def at(self, url: str) -> Agent:
        return next(agent for agent in self.agents.values() if agent.url == url)

    def reaches(self, own: Agent, url: str) -> bool:
        if all(agent.url != url for agent in self.agents.values()):
            return False
        other = self.at(url)
        return other.is_alive and own.is_alive and (other is own or not (other.cut_off or own.cut_off))

    def seeder_of(self, asking: Agent, content: str, path: str, hosts: Collection[str]) -> Path | None:
        for agent in self.agents.values():
            if agent.host in hosts and self.reaches(asking, agent.url):
                model = agent.swarm.models.get(content)
                if model is not None and path in model.have:
                    return model.paths[path]
        return None

    def lease(self, manifest: Manifest) -> Record:
        return read(self.server.objects[LEASE, Key(NAMESPACE, lease_name(hash_of(manifest)))])

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def until_ready(
        self, manifest: Manifest, agents: Iterable[Agent] | None = None, seconds: float = PATIENCE
    ) -> None:
        chosen = list(agents if agents is not None else self.agents.values())
        await self.until(lambda: all(agent.is_ready(manifest) for agent in chosen), seconds)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def company_of(
    directory: Path, files: Mapping[str, bytes], *manifests: Manifest, seed: int = 0
) -> AsyncIterator[Company]:
    """No agent yet; ``add`` and ``start`` some. At the end all are stopped."""
    asyncio.get_running_loop().set_default_executor(Inline())
    company = Company(directory, files, seed=seed)
    company.describe(*manifests)
    moving = asyncio.create_task(company.air.run())
    try:
        yield company
    finally:
        for agent in company.agents.values():
            if agent.is_alive:
                await agent.kill()
        await _end(moving)
