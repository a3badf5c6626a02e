"""Where the Dragonfly benchmark happens: shaped nodes, an origin with one model, and a Dragonfly when asked for one."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.bench.dragonfly_fetch import File
from dev.dragonfly.network import FIRST_DAEMON, FIRST_SEED, SERVER_HOST, NamespaceNetwork
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub, HubThread, Repository
from dev.netns import MBIT, Network

MODEL = "org/model"
ORIGIN, CONTROL = "origin", "control"
QUIET_BYTES, QUIET_SECONDS = 50_000, 1.0
"""A link on which less happens in that time only carries heartbeats."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many nodes and seeds, and their links' rate in Mbit/s, which is the origin's too."""

    nodes: int
    seeds: int
    rate: int

    @property
    def node_names(self) -> list[str]:
        return [f"node-{number + 1}" for number in range(self.nodes)]

    @property
    def seed_names(self) -> list[str]:
        return [f"seed-{number + 1}" for number in range(self.seeds)]

    @property
    def shaped(self) -> list[str]:
        return [ORIGIN, *self.seed_names, *self.node_names]


class Bed:
    """Made by ``open_bed``. The calling thread is on the node ``control``, whose link is not limited."""

    def __init__(self, shape: Shape, network: Network, hub: HubThread, scratch: Path) -> None:
        self.shape = shape
        self.network = network
        self.hub = hub
        self.scratch = scratch
        repository = hub.hub.repositories[MODEL]
        self.revision = repository.head
        self.files = [
            File(path, blob.size, blob.sha256, f"{hub.url}/{MODEL}/resolve/{repository.head}/{path}")
            for path, blob in repository.get(repository.head).files.items()
        ]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def one_copy(self) -> float:
        """Seconds that the model takes over one link at its nominal rate, which no transfer can beat."""
        return self.size * 8 / (self.shape.rate * MBIT)

    def origin_bytes(self) -> int:
        """Bytes of the model's files that left the origin since the counters were reset."""
        return self.hub.hub.counters.total(name=f"{MODEL}/*").content

    @contextmanager
    def dragonfly(self) -> Iterator[DragonflyStack]:
        """A new one, with nothing in its caches. The origin's counters begin at nothing."""
        shape, directory = self.shape, self.scratch / "df"
        places = {SERVER_HOST: CONTROL}
        places |= {FIRST_SEED + number: name for number, name in enumerate(shape.seed_names)}
        places |= {FIRST_DAEMON + number: name for number, name in enumerate(shape.node_names)}
        network = NamespaceNetwork(self.network, places)
        try:
            with DragonflyStack(daemons=shape.nodes, seeds=shape.seeds, directory=directory, network=network) as stack:
                self.hub.hub.reset()
                yield stack
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def watch_seeds(self, seeds: int) -> "SeedWatch":
        """Begins now."""
        return SeedWatch(self, seeds)

    def preheat(self, stack: DragonflyStack, *, seeds: int, timeout: float) -> float:
        """Bring all files onto that many seeds. Seconds until the bytes are there; the job is not waited for."""
        stack.wait_preheatable()
        watch = self.watch_seeds(seeds)
        stack.api.preheat([file.url for file in self.files], count=seeds)
        while not (watch.received_all and time.monotonic() - watch.last_byte >= QUIET_SECONDS):
            if time.monotonic() > watch.started + timeout:
                raise TimeoutError(f"the seeds have received {watch.received} bytes after {timeout:.0f} s")
            time.sleep(0.1)
            watch.look()
        return watch.last_byte - watch.started


class SeedWatch:
    """Sees by the seeds' links when they have received the whole model, and when the last of it came."""

    def __init__(self, bed: Bed, seeds: int) -> None:
        self._network, self._names, self._seeds = bed.network, bed.shape.seed_names, seeds
        self._size = bed.size
        self._before = self._network.traffic()
        self._seen = 0
        self.received = [0] * len(self._names)
        self.started = self.last_byte = time.monotonic()

    @property
    def received_all(self) -> bool:
        return sum(1 for each in self.received if each >= self._size) >= self._seeds

    def look(self) -> None:
        """To be called often."""
        now, traffic = time.monotonic(), self._network.traffic()
        self.received = [(traffic[name] - self._before[name]).received for name in self._names]
        if sum(self.received) - self._seen > QUIET_BYTES:
            self._seen, self.last_byte = sum(self.received), now


@contextmanager
def open_bed(shape: Shape, folder: Path, scratch: Path) -> Iterator[Bed]:
    """Raises NetnsUnavailable."""
    repository = Repository.from_folder(folder, id=MODEL)
    rates: dict[str, int | None] = dict.fromkeys(shape.shaped, shape.rate * MBIT)
    with Network([*shape.shaped, CONTROL], rates=rates) as network:
        with network.entered(ORIGIN):
            hub = HubThread(Hub(repository, host=network.address(ORIGIN)))
            hub.__enter__()
        try:
            with network.entered(CONTROL):
                yield Bed(shape, network, hub, scratch)
        finally:
            hub.__exit__(None, None, None)
