"""Reading from a hub and from a bucket: real sockets, and everything that goes wrong on them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from dev.hub import (
    Fault,
    Hang,
    Hub,
    HubThread,
    IgnoreRange,
    Kind,
    RangeAsOk,
    RateLimit,
    Refuse,
    Repository,
    ServerError,
    Slow,
    Truncate,
    WrongBytes,
    make_model,
)
from modelswarm.agent.origin import OriginReader, open_client, open_leg
from modelswarm.agent.sinks import Received
from modelswarm.agent.store import Filling, Store, StoreSettings
from modelswarm.content.credentials import Credentials
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.manifest import Manifest, ManifestFile, Origin, OriginKind
from modelswarm.errors import (
    AccessDenied,
    DigestMismatch,
    InvalidReference,
    RateLimited,
    SourceChanged,
    SourceNotFound,
    SourceUnavailable,
)
from modelswarm.loader.digests import Verdict
from modelswarm.loader.effort import Effort
from modelswarm.loader.gate import Gate

MIB = 1 << 20
PIECE = 256 << 10
SHARD = 3 * MIB + 12345
BIG = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = make_model(tmp_path_factory.mktemp("model"), shards=2, shard_bytes=SHARD)
    return Repository.from_folder(folder, id="org/model", lfs_threshold=MIB)


@pytest.fixture
def hub(repository: Repository) -> Iterator[Hub]:
    with HubThread(Hub(repository)) as running:
        yield running.hub


@dataclass
class Node:
    """One node's store and client."""

    store: Store
    http: httpx.AsyncClient
    hub: Hub
    manifest: Manifest
    said: list[str] = field(default_factory=list)

    async def reader(
        self, token: str | None = None, *, attempts: int = 4, throttle: Received | None = None
    ) -> OriginReader:
        leg = await open_leg(
            self.manifest,
            Credentials(hub_token=token),
            Endpoints(huggingface=self.hub.url),
            self.http,
            Gate(self.said.append),
        )
        effort = Effort(attempts=attempts, first_pause=0.01, longest_pause=0.05)
        return OriginReader(leg, self.store.threads, effort=effort, throttle=throttle)

    def file(self, path: str = BIG) -> ManifestFile:
        return next(file for file in self.manifest.files if file.path == path)

    def data(self, path: str = BIG) -> bytes:
        repository = self.hub.repositories["org/model"]
        source = repository.get(repository.head).files[path].source
        return source if isinstance(source, bytes) else source.read_bytes()


@pytest.fixture
async def node(hub: Hub, repository: Repository, tmp_path: Path) -> AsyncIterator[Node]:
    commit = repository.get(repository.head)
    files = tuple(
        ManifestFile(path, blob.size, f"sha256:{blob.sha256}" if blob.is_lfs else f"git-sha1:{blob.oid}")
        for path, blob in commit.files.items()
    )
    manifest = Manifest(Origin(OriginKind.HUGGINGFACE, repository.id), commit.id, files)
    async with Store(StoreSettings(tmp_path / "store", reserve=0)) as store, open_client(stall=2.0) as http:
        yield Node(store, http, hub, manifest)


@pytest.fixture
async def filling(node: Node) -> AsyncIterator[Filling]:
    async with await node.store.begin(node.manifest) as filling:
        yield filling


def piece_hashes(data: bytes, start: int, end: int) -> list[bytes]:
    return [hashlib.sha1(data[at : min(at + PIECE, end)]).digest() for at in range(start, end, PIECE)]


async def test_a_range_is_filled_hashed_and_noted(node: Node, filling: Filling) -> None:
    file, data = node.file(), node.data()
    partial = await filling.partial(filling.key(file.path))
    reader = await node.reader()
    pieces: list[tuple[int, bytes]] = []
    hashes = await reader.read(
        file, partial, MIB, 2 * MIB, piece_length=PIECE, on_piece=lambda index, sha1: pieces.append((index, sha1))
    )
    wanted = piece_hashes(data, MIB, 3 * MIB)
    assert hashes == b"".join(wanted)
    assert pieces == list(enumerate(wanted, MIB // PIECE))
    assert partial.present == [(MIB, 3 * MIB)]
    assert [(it.offset, it.length, it.piece_length, it.hashes) for it in partial.pieces()] == [
        (MIB, 2 * MIB, PIECE, hashes)
    ]
    assert partial.path.read_bytes()[MIB : 3 * MIB] == data[MIB : 3 * MIB]
    assert node.hub.counters.total(name="*" + BIG).content == 2 * MIB
    assert reader.traffic.bytes == 2 * MIB
    tail = await reader.read(file, partial, 3 * MIB, file.size - 3 * MIB, piece_length=PIECE)
    assert tail == b"".join(piece_hashes(data, 3 * MIB, file.size)), "the last piece of a file may be short"


async def test_several_ranges_become_the_whole_model(node: Node, filling: Filling) -> None:
    reader = await node.reader()
    small = [file for file in filling.missing() if file.size <= MIB]
    await reader.read_small(small, lambda file, data: filling.write_small(file.path, data))
    for file in filling.missing():
        partial = await filling.partial(filling.key(file.path))
        async with asyncio.TaskGroup() as group:
            for at in range(0, file.size, MIB):
                length = min(MIB, file.size - at)
                group.create_task(reader.read(file, partial, at, length, piece_length=PIECE))
        await filling.finish(filling.key(file.path))
    await filling.complete()
    assert reader.traffic.bytes == sum(file.size for file in node.manifest.files)
    assert node.hub.counters.total().content == sum(file.size for file in node.manifest.files)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Truncate(after=700_001), id="cut in the middle"),
        pytest.param(Refuse(), id="reset instead of answered"),
        pytest.param(ServerError(503), id="an error page"),
        pytest.param(ServerError(403), id="a link that has expired"),
        pytest.param(Hang(after=300_000), id="silence in the middle"),
        pytest.param(Hang(), id="no answer at all"),
    ],
)
async def test_what_passes_is_asked_again_from_the_byte_where_it_struck(
    node: Node, filling: Filling, fault: Fault
) -> None:
    rule = node.hub.fail("*" + BIG, fault, times=2, on=Kind.CDN)
    file = node.file()
    partial = await filling.partial(filling.key(file.path))
    reader = await node.reader()
    hashes = await reader.read(file, partial, 0, 2 * MIB, piece_length=PIECE)
    assert hashes == b"".join(piece_hashes(node.data(), 0, 2 * MIB))
    assert rule.hits == 2
    assert reader.traffic.retries == 2
    assert reader.traffic.bytes == 2 * MIB, "no byte came twice"


async def test_a_range_honoured_under_status_200_is_a_range(node: Node, filling: Filling) -> None:
    node.hub.fail("*" + BIG, RangeAsOk(), on=Kind.CDN)
    partial = await filling.partial(filling.key(BIG))
    hashes = await (await node.reader()).read(node.file(), partial, MIB, MIB, piece_length=PIECE)
    assert hashes == b"".join(piece_hashes(node.data(), MIB, 2 * MIB))


async def test_an_origin_that_ignores_ranges_is_not_read_to_be_thrown_away(node: Node, filling: Filling) -> None:
    node.hub.fail("*" + BIG, IgnoreRange(), on=Kind.CDN)
    partial = await filling.partial(filling.key(BIG))
    reader = await node.reader()
    with pytest.raises(SourceUnavailable, match="ignores the range"):
        await reader.read(node.file(), partial, MIB, MIB, piece_length=PIECE)
    assert partial.present == []
    assert reader.traffic.bytes == 0


async def test_a_rate_limit_is_the_whole_clusters_affair(node: Node, filling: Filling) -> None:
    node.hub.fail("*" + BIG, Truncate(after=MIB + 3), on=Kind.CDN, times=1)
    node.hub.fail("*" + BIG, RateLimit(retry_after=17), on=Kind.CDN, skip=1, times=1)
    partial = await filling.partial(filling.key(BIG))
    reader = await node.reader()
    with pytest.raises(RateLimited) as caught:
        await reader.read(node.file(), partial, 0, 2 * MIB, piece_length=PIECE)
    assert caught.value.retry_after == 17
    assert partial.present == [(0, MIB + 3)], "what came before it stays"
    # After the pause (another reader: its gate has not been told to wait) it goes on from there.
    hashes = await (await node.reader()).read(node.file(), partial, 0, 2 * MIB, piece_length=PIECE)
    assert hashes == b"".join(piece_hashes(node.data(), 0, 2 * MIB))
    assert node.hub.counters.total(Kind.CDN, "*" + BIG).content == 2 * MIB


async def test_everybody_behind_the_same_gate_waits(node: Node, filling: Filling) -> None:
    node.hub.fail("*" + BIG, RateLimit(retry_after=1), on=Kind.CDN, times=1)
    partial = await filling.partial(filling.key(BIG))
    reader = await node.reader()
    with pytest.raises(RateLimited):
        await reader.read(node.file(), partial, 0, MIB, piece_length=PIECE)
    asked = node.hub.counters.total().requests
    task = asyncio.create_task(reader.read(node.file(), partial, 0, MIB, piece_length=PIECE))
    await asyncio.sleep(0.2)
    assert node.hub.counters.total().requests == asked
    assert len(await task) == 20 * (MIB // PIECE)


async def test_patience_ends_when_nothing_comes(node: Node, filling: Filling) -> None:
    rule = node.hub.fail("*" + BIG, ServerError(500), on=Kind.CDN)
    partial = await filling.partial(filling.key(BIG))
    with pytest.raises(SourceUnavailable, match="500"):
        await (await node.reader(attempts=3)).read(node.file(), partial, 0, MIB, piece_length=PIECE)
    assert rule.hits == 3


async def test_patience_does_not_end_while_bytes_come(node: Node, filling: Filling) -> None:
    rule = node.hub.fail("*" + BIG, Truncate(after=100_000), on=Kind.CDN)
    partial = await filling.partial(filling.key(BIG))
    hashes = await (await node.reader(attempts=2)).read(node.file(), partial, 0, MIB, piece_length=PIECE)
    assert hashes == b"".join(piece_hashes(node.data(), 0, MIB))
    assert rule.hits == 11


async def test_a_restart_hashes_what_is_there_instead_of_reading_it_again(node: Node) -> None:
    async with await node.store.begin(node.manifest) as filling:
        partial = await filling.partial(filling.key(BIG))
        partial.write([node.data()[: MIB + 1000]], 0)
        await filling.mark(filling.key(BIG), 0, MIB + 1000)
    async with await node.store.begin(node.manifest) as filling:
        partial = await filling.partial(filling.key(BIG))
        pieces: list[int] = []
        reader = await node.reader()
        hashes = await reader.read(
            node.file(), partial, 0, 2 * MIB, piece_length=PIECE, on_piece=lambda index, _: pieces.append(index)
        )
        assert hashes == b"".join(piece_hashes(node.data(), 0, 2 * MIB))
        assert pieces == list(range(8))
        assert reader.traffic.bytes == MIB - 1000
        again = await reader.read(node.file(), partial, 0, 2 * MIB, piece_length=PIECE)
        assert again == hashes
        assert reader.traffic.bytes == MIB - 1000


async def test_cancelled_it_keeps_what_came(node: Node, filling: Filling) -> None:
    node.hub.fail("*" + BIG, Slow(bytes_per_second=4 * MIB), on=Kind.CDN)
    partial = await filling.partial(filling.key(BIG))
    reader = await node.reader()
    task = asyncio.create_task(reader.read(node.file(), partial, 0, 3 * MIB, piece_length=PIECE))
    async with asyncio.timeout(20):
        while reader.traffic.bytes < MIB // 2:  # noqa: ASYNC110  (the other side is a server)
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    ((start, end),) = partial.present
    assert (start, end) == (0, reader.traffic.bytes)
    assert partial.path.read_bytes()[:end] == node.data()[:end]


async def test_progress_inside_a_range_survives_a_kill(node: Node, filling: Filling) -> None:
    node.hub.fail("*" + BIG, Hang(after=2 * MIB + MIB // 2), on=Kind.CDN, times=1)
    node.hub.fail("*" + BIG, Hang(), on=Kind.CDN, skip=1)
    partial = await filling.partial(filling.key(BIG))
    reader = await node.reader(attempts=100)
    task = asyncio.create_task(reader.read(node.file(), partial, 0, 3 * MIB, piece_length=PIECE))
    journal = partial.path.with_name(partial.path.name + ".json")
    async with asyncio.timeout(20):
        while b'{"ranges":[[0,' not in journal.read_bytes():  # noqa: ASYNC110  (what a killed process would leave)
            await asyncio.sleep(0.005)
    assert not task.done(), "it is in the journal while the range is still being read"
    task.cancel()
    await asyncio.wait([task])


async def test_the_token_goes_to_the_hub_and_nowhere_else(node: Node, filling: Filling) -> None:
    repository = node.hub.repositories["org/model"]
    repository.gated = "manual"
    partial = await filling.partial(filling.key(BIG))
    try:
        with pytest.raises(AccessDenied, match="wants a token"):
            await (await node.reader()).read(node.file(), partial, 0, MIB, piece_length=PIECE)
        node.hub.allow("hf_secret", "org/model")
        await (await node.reader("hf_secret")).read(node.file(), partial, 0, MIB, piece_length=PIECE)
    finally:
        repository.gated = False
    assert node.hub.counters.total(Kind.CDN, "*" + BIG).content == MIB
    assert node.hub.leaked_tokens == []
    assert not any("hf_secret" in line for line in node.said)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param(401, AccessDenied, id="denied"),
        pytest.param(403, AccessDenied, id="forbidden"),
        pytest.param(404, SourceNotFound, id="not there"),
    ],
)
async def test_the_hubs_own_word_is_final(node: Node, filling: Filling, status: int, error: type[Exception]) -> None:
    node.hub.allow("hf_secret", "org/model")
    rule = node.hub.fail("*" + BIG, ServerError(status), on=Kind.RESOLVE)
    partial = await filling.partial(filling.key(BIG))
    with pytest.raises(error) as caught:
        await (await node.reader("hf_secret")).read(node.file(), partial, 0, MIB, piece_length=PIECE)
    assert rule.hits == 1
    assert "hf_secret" not in str(caught.value)


async def test_another_size_than_the_pinned_one_is_a_changed_source(node: Node, filling: Filling) -> None:
    partial = await filling.partial(filling.key(BIG))
    longer = ManifestFile(BIG, SHARD + MIB, node.file().digest)
    with pytest.raises(SourceChanged):
        await (await node.reader()).read(longer, partial, 0, MIB, piece_length=PIECE)


async def test_small_files_with_wrong_bytes_are_read_again_and_then_refused(node: Node, filling: Filling) -> None:
    rule = node.hub.fail("*config.json", WrongBytes(offset=3), times=1)
    reader = await node.reader()
    config = [node.file("config.json")]
    await reader.read_small(config, lambda file, data: filling.write_small(file.path, data))
    assert "config.json" not in [file.path for file in filling.missing()]
    assert rule.hits == 1
    other = next(file for file in filling.missing() if file.size < MIB)
    rule = node.hub.fail("*" + other.path, WrongBytes(offset=1))
    with pytest.raises(DigestMismatch):
        await reader.read_small([other], lambda file, data: filling.write_small(file.path, data))
    assert rule.hits == 3


async def test_small_files_are_read_a_few_at_a_time(node: Node, filling: Filling) -> None:
    node.hub.fail("*", Slow(first_byte_delay=0.05))
    small = [file for file in filling.missing() if file.size <= MIB]
    seen: dict[str, int] = {}

    async def accept(file: ManifestFile, data: bytes) -> None:
        seen[file.path] = len(data)

    await (await node.reader()).read_small(small, accept, parallel=2)
    assert seen == {file.path: file.size for file in small}
    assert node.hub.counters.peak == 2


async def test_the_throttle_sees_every_byte(node: Node, filling: Filling) -> None:
    taken: list[int] = []

    async def take(count: int) -> None:
        taken.append(count)

    partial = await filling.partial(filling.key(BIG))
    await (await node.reader(throttle=take)).read(node.file(), partial, 0, MIB, piece_length=PIECE)
    assert sum(taken) == MIB


@pytest.mark.parametrize(("offset", "length"), [(1, PIECE), (0, PIECE + 1), (0, SHARD + 1), (0, 0), (-PIECE, PIECE)])
async def test_a_range_that_is_not_of_whole_pieces_is_a_mistake(
    node: Node, filling: Filling, offset: int, length: int
) -> None:
    partial = await filling.partial(filling.key(BIG))
    with pytest.raises(ValueError, match="whole pieces"):
        await (await node.reader()).read(node.file(), partial, offset, length, piece_length=PIECE)


async def test_images_are_not_read_by_range(node: Node) -> None:
    image = Manifest(Origin(OriginKind.IMAGE, "registry/repository"), None, ())
    with pytest.raises(InvalidReference):
        await open_leg(image, None, Endpoints(), node.http, Gate(print))


WEIGHTS = hashlib.shake_256(b"weights").digest(SHARD)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str) -> Manifest:
    """A prefix in moto's S3, listed."""
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="A", aws_secret_access_key="planted"
    )
    client.create_bucket(Bucket="models")
    files = tuple(
        ManifestFile(
            name, len(data), None, client.put_object(Bucket="models", Key=f"team/model/{name}", Body=data)["ETag"]
        )
        for name, data in {"config.json": b"{}", "weights.bin": WEIGHTS}.items()
    )
    return Manifest(Origin(OriginKind.S3, "models/team/model"), None, files)


async def open_bucket(node: Node, bucket: Manifest, endpoint: str) -> OriginReader:
    credentials = Credentials(access_key_id="A", access_key_secret="planted")
    leg = await open_leg(bucket, credentials, Endpoints(s3=endpoint), node.http, Gate(print))
    return OriginReader(leg, node.store.threads, effort=Effort(attempts=2, first_pause=0.01))


async def test_a_bucket_is_read_by_range(node: Node, bucket: Manifest, endpoint: str) -> None:
    config, weights = bucket.files
    reader = await open_bucket(node, bucket, endpoint)
    async with await node.store.begin(bucket) as filling:
        partial = await filling.partial(filling.key("weights.bin"))
        first = await reader.read(weights, partial, 0, 2 * MIB, piece_length=PIECE)
        rest = await reader.read(weights, partial, 2 * MIB, SHARD - 2 * MIB, piece_length=PIECE)
        assert first + rest == b"".join(piece_hashes(WEIGHTS, 0, SHARD))
        await reader.read_small([config], lambda file, data: filling.write_small(file.path, data))
        found = await filling.finish(filling.key("weights.bin"))
        assert (found.sha256, found.etag) == (hashlib.sha256(WEIGHTS).hexdigest(), Verdict.RIGHT)
        await filling.complete()


async def test_an_object_that_changed_or_went_is_said(node: Node, bucket: Manifest, endpoint: str) -> None:
    stale = ManifestFile("weights.bin", SHARD, None, f'"{"0" * 32}"')
    reader = await open_bucket(node, bucket, endpoint)
    async with await node.store.begin(bucket) as filling:
        partial = await filling.partial(filling.key("weights.bin"))
        with pytest.raises(SourceChanged):
            await reader.read(stale, partial, 0, MIB, piece_length=PIECE)
        with pytest.raises(SourceNotFound):
            await reader.read(ManifestFile("gone.bin", SHARD), partial, 0, MIB, piece_length=PIECE)
        assert partial.present == []
