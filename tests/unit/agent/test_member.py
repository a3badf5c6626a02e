"""Members of one content: everything leaves the origin once, and what is wrong is found and read again."""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from modelswarm.agent.messages import Answer, BadFile, Publication, Report
from modelswarm.agent.segments import plan
from modelswarm.agent.swarm import TorrentFailed
from modelswarm.agent.troubles import PEER_SHUNNED
from modelswarm.content.manifest import Manifest
from modelswarm.errors import AgentError, InsufficientCapacity, LoadError, Unavailable
from modelswarm.loader.outcome import Reason, Transient
from tests.unit.agent.fleet import MIB, SEGMENT, Fleet, Node, fleet_of
from tests.unit.agent.store.conftest import content, noise, object_content, put, tree

FILES = {
    "model.bin": noise("model", 7 * MIB + 123),
    "other.bin": noise("other", 3 * MIB),
    "config.json": b"{}",
    "empty": b"",
    "sub/tokenizer.json": b"tokens" * 1000,
}
MODEL = content(FILES)


def lying_content() -> str:
    return MODEL.digest.removeprefix("sha256:")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def whole(node: Node, manifest: Manifest = MODEL, files: dict[str, bytes] | None = None) -> bool:
    content_id = manifest.digest.removeprefix("sha256:")
    return node.store.has(content_id) and tree(node.store.directory(content_id)) == (files or FILES)


async def test_every_byte_leaves_the_origin_once(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b", "c") as (fleet, origin, _):
        await asyncio.gather(*(node.bring(MODEL) for node in fleet.nodes.values()))
        assert all(map(whole, fleet.nodes.values()))
        assert origin.given == {path: len(data) for path, data in FILES.items() if data}
        assert fleet.air.moved > 0


async def test_an_answer_that_a_later_one_has_overtaken_is_old(tmp_path: Path) -> None:
    """It may tell hashes that other ones have replaced since, and nobody would tell the right ones again."""
    answers: list[asyncio.Future[Answer]] = []

    async def report(url: str, content_id: str, report: Report) -> Answer:
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    def told(cursor: int, word: bytes) -> Answer:
        window = Publication(segments=(1,), hashes=word * 2, publisher="liar", window=True)
        return Answer(epoch=1, segment_bytes=SEGMENT, cursor=cursor, published=(window,))

    wrong, right = b"w" * 20, b"r" * 20
    async with fleet_of(tmp_path, FILES, MODEL, "a") as (fleet, _, _):
        [node] = fleet.nodes.values()
        fleet.report = report  # type: ignore[method-assign]
        async with await node.store.begin(MODEL) as filling:
            member = await node.join(filling)
            talk = asyncio.create_task(member.talk("http://coordinator"))
            await until(lambda: len(answers) == 1)
            await filling.write_small("config.json", FILES["config.json"])
            await until(lambda: len(answers) == 2)
            answers[1].set_result(told(2, right))
            await until(lambda: bool(node.swarm.entries))
            answers[0].set_result(told(1, wrong))
            await until(lambda: len(answers) == 3)
            [shared] = node.swarm.entries.values()
            assert shared.window.parts[0].hashes == right * 2
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
            await member.close()


async def test_where_the_bytes_came_from_is_counted(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b") as (fleet, _, _):
        a, b = fleet.nodes.values()
        async with await a.store.begin(MODEL) as first, await b.store.begin(MODEL) as second:
            members = [await a.join(first), await b.join(second)]
            talks = [asyncio.create_task(node.talk(member)) for node, member in zip((a, b), members, strict=True)]
            await asyncio.gather(*talks)
            counted = [member.sources for member in members]
            assert sum(each.origin for each in counted) == MODEL.bytes
            assert [each.origin + each.peers for each in counted] == [MODEL.bytes] * 2
            assert all(member.closed.is_set() for member in members)
            await asyncio.gather(*(member.close() for member in members))


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"only.bin": noise("only", 5 * MIB)}, id="one file"),
        pytest.param({"only.json": b"{}"}, id="one small file"),
        pytest.param({"one": b"", "sub/two": b""}, id="no bytes at all"),
        pytest.param({"a.bin": noise("t", 3 * MIB), "b.bin": noise("t", 3 * MIB)}, id="two files with the same bytes"),
    ],
)
async def test_contents_of_every_shape(tmp_path: Path, files: dict[str, bytes]) -> None:
    manifest = content(files)
    async with fleet_of(tmp_path, files, manifest, "a", "b") as (fleet, origin, _):
        await asyncio.gather(*(node.bring(manifest) for node in fleet.nodes.values()))
        assert all(whole(node, manifest, files) for node in fleet.nodes.values())
        assert origin.total == sum(map(len, set(files.values())))


async def test_thousands_of_small_files(tmp_path: Path) -> None:
    files = {f"many/{number % 50}/{number}.json": b"%d" % number for number in range(3000)} | {"none": b""}
    manifest = content(files)
    async with fleet_of(tmp_path, files, manifest, "a", "b") as (fleet, origin, _):
        await asyncio.gather(*(node.bring(manifest) for node in fleet.nodes.values()))
        assert all(whole(node, manifest, files) for node in fleet.nodes.values())
        assert origin.total == manifest.bytes


# Liars


async def test_a_liar_is_found_and_shunned_and_the_file_ends_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    seen: list[str] = []
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b", "liar") as (fleet, origin, coordinator):
        liar, honest = fleet.nodes["liar"], [fleet.nodes["a"], fleet.nodes["b"]]
        liar.leg.flips["model.bin"] = 99
        liar.leg.open.clear()
        # One that is the first to find the file wrong blames the others: test_liars has that.
        liar.swarm.deaf = True
        fleet.lacking.discard(("liar", lying_content()))

        def watch() -> None:
            # Of all three: whoever is the first to have the whole file finds it wrong, and that may be the liar.
            for node in fleet.nodes.values():
                for member in node.members:
                    if member.trouble is not None:
                        seen.append(f"{member.trouble.reason}: {member.trouble.message}")

        lying = asyncio.create_task(liar.bring(MODEL, changed=watch))
        ranges = {each.index for each in plan(MODEL, SEGMENT) if each.files == (2,)}
        await until(lambda: any(ranges & report.working.keys() for report in fleet.reports))
        bringing = [asyncio.create_task(node.bring(MODEL, changed=watch)) for node in honest]
        await until(lambda: len({report.node for report in fleet.reports}) == 3)
        liar.leg.open.set()
        await asyncio.gather(*bringing)
        assert all(map(whole, honest))
        assert coordinator.shunned == {"liar"}
        lying.cancel()
        await asyncio.gather(lying, return_exceptions=True)
        assert not liar.store.has(lying_content()) or whole(liar)
    assert any(text.startswith("DigestMismatch: model.bin") and "liar" in text for text in seen), seen
    assert any(text.startswith(PEER_SHUNNED) and "liar published bytes of model.bin" in text for text in seen)
    assert "liar published bytes of model.bin that are not the origin's" in caplog.text
    # Of the other file at most what only the liar had when it was shunned.
    assert origin.given["other.bin"] <= 2 * len(FILES["other.bin"])


async def test_one_flipped_byte_is_never_complete(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a") as (fleet, origin, coordinator):
        node = fleet.nodes["a"]
        node.leg.flips["model.bin"] = 99
        async with await node.store.begin(MODEL) as filling:
            member = await node.join(filling)
            talk = asyncio.create_task(member.talk(""))
            await until(lambda: member.failure is not None and not member.failure.retryable)
            assert member.failure is not None
            assert member.failure.reason == "DigestMismatch"
            assert not member.complete.is_set()
            # Nothing more is read of a content that cannot be had, so another file may be missing as well.
            assert "model.bin" in [file.path for file in filling.missing()]
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
            await member.close()
        assert not whole(node)
        assert origin.given["model.bin"] >= 2 * len(FILES["model.bin"]), "it was read again before it was given up"
        assert coordinator.failure is not None


async def test_a_segment_to_read_again_is_work_although_it_is_here(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b") as (fleet, _, _):
        a, b = fleet.nodes.values()
        a.leg.flips["model.bin"] = 1
        async with await a.store.begin(MODEL) as filling:
            member = await a.join(filling)
            talk = asyncio.create_task(a.talk(member))
            await until(lambda: any(report.bad for report in fleet.reports))
            assert all(report.wants > 0 for report in fleet.reports), "whoever lacks something goes on to help"
            bad = next(report.bad for report in fleet.reports if report.bad)
            assert bad == (BadFile(file=2, publishers=("a",)),)
            await b.bring(MODEL)
            await talk
            assert not filling.missing()
            await member.close()
        assert whole(b)


async def test_bytes_that_the_disk_changed_are_fetched_again_and_nobody_is_blamed(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b") as (fleet, _, coordinator):
        a, b = fleet.nodes.values()
        bringing = asyncio.create_task(a.bring(MODEL))
        async with await b.store.begin(MODEL) as filling:
            await put(filling, filling.key("model.bin"), FILES["model.bin"], 0, 2 * MIB)
            partial = await filling.partial(filling.key("model.bin"))
            hashes = b"".join(hashlib.sha1(FILES["model.bin"][at : at + MIB]).digest() for at in (0, MIB))
            await filling.mark(filling.key("model.bin"), 0, 2 * MIB, piece_length=MIB, hashes=hashes)
            partial.write([b"rot"], 100)
            # Not earlier: it begins to hash what is there, and what was hashed is not looked at again.
            member = await b.join(filling)
            await asyncio.gather(b.talk(member), bringing)
            assert not filling.missing()
            await member.close()
        assert coordinator.shunned == set()


async def test_a_disk_that_is_full_for_the_swarm_is_full_for_the_node(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b") as (fleet, _, _):
        a, b = fleet.nodes.values()
        fleet.air.swarms.remove(b.swarm)  # nothing comes to it
        bringing = asyncio.create_task(a.bring(MODEL))
        async with await b.store.begin(MODEL) as filling:
            member = await b.join(filling)
            talk = asyncio.create_task(b.talk(member))
            await until(lambda: bool(b.swarm.entries))
            assert not await member.hear(TorrentFailed("of another content", "No space left on device", full=True))
            assert member.broken is None
            assert await member.hear(TorrentFailed(next(iter(b.swarm.entries)), "No space left on device", full=True))
            assert isinstance(member.broken, InsufficientCapacity)
            for task in (talk, bringing):
                task.cancel()
            await asyncio.gather(talk, bringing, return_exceptions=True)
            await member.close()


# What goes wrong with the origin


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        pytest.param(Transient("SourceUnavailable", "down"), "SourceUnavailable", True, id="an origin that is down"),
        pytest.param(Transient("RateLimited", "slower", retry_after=30), "RateLimited", True, id="a rate limit"),
    ],
)
async def test_what_passes_is_said_while_it_lasts(
    tmp_path: Path, error: Transient, reason: str, retryable: bool
) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a") as (fleet, origin, _):
        origin.always = error
        await _fails(fleet, reason, retryable)


async def test_a_source_that_changed_is_final(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a") as (fleet, origin, _):
        origin.always = LoadError(Reason.SOURCE_CHANGED, "model.bin: the file at the origin is another")
        await _fails(fleet, "SourceChanged", False)
        assert origin.calls < 20, "not asked again and again"


@pytest.mark.parametrize(
    ("refusal", "reason", "retryable"),
    [
        pytest.param(AgentError("CredentialNotFound", "no Secret"), "CredentialNotFound", False, id="no credentials"),
        pytest.param(Unavailable("no answer"), "ApiServerUnavailable", True, id="no API server"),
        pytest.param(RuntimeError("a defect"), "InternalError", True, id="a defect"),
    ],
)
async def test_whatever_keeps_a_node_from_reading_is_told(
    tmp_path: Path, refusal: Exception, reason: str, retryable: bool
) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a") as (fleet, _, _):
        fleet.refusal = refusal
        await _fails(fleet, reason, retryable)
        assert len(fleet.reports) < 50, "it does not run in circles"


async def _fails(fleet: Fleet, reason: str, retryable: bool) -> None:
    node = fleet.nodes["a"]
    async with await node.store.begin(MODEL) as filling:
        member = await node.join(filling)
        talk = asyncio.create_task(member.talk(""))
        await until(lambda: member.failure is not None)
        assert member.failure is not None
        assert (member.failure.reason, member.failure.retryable) == (reason, retryable)
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)
        await member.close()


# Small files


async def test_a_holder_that_gives_wrong_small_files_is_not_asked_again(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a", "bad", "c") as (fleet, origin, _):
        key = f"sha256-{hashlib.sha256(b'{}').hexdigest()}"
        bad = fleet.nodes["bad"]
        bad.lies[key] = b"[]"
        first = [asyncio.create_task(fleet.nodes[name].bring(MODEL)) for name in ("a", "bad")]
        await asyncio.gather(*first, fleet.nodes["c"].bring(MODEL))
        assert whole(fleet.nodes["c"])
        assert bad.asked <= 2, "once by each of the others"
        # Whoever finds only bad holders reads by itself; how many do so at the same time is chance.
        assert origin.given["config.json"] <= 3 * len(FILES["config.json"])


async def test_a_holder_that_is_silent_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a", "mute", "c") as (fleet, _, _):
        fleet.nodes["mute"].silent = True
        first = asyncio.create_task(fleet.nodes["a"].bring(MODEL))
        # Somebody else has the small files first, or all would wait for as long as a silent node is given.
        await until(lambda: any(report.node == "a" and report.have for report in fleet.reports))
        await asyncio.gather(first, *(fleet.nodes[name].bring(MODEL) for name in ("mute", "c")))
        assert whole(fleet.nodes["c"])


# Origins without digests


async def test_the_first_readers_word_holds_and_others_give_up_theirs(tmp_path: Path) -> None:
    files = {"weights.bin": noise("w", 3 * MIB), "config.json": b"{}"}
    manifest = object_content(files)
    stale = {"weights.bin": noise("stale", 3 * MIB), "config.json": b"[]"}
    async with fleet_of(tmp_path, files, manifest, "a", "b") as (fleet, _, _):
        a, b = fleet.nodes.values()
        first = asyncio.create_task(a.bring(manifest))
        await until(lambda: any(len(report.digests) == 2 for report in fleet.reports))
        async with await b.store.begin(manifest) as filling:
            # From an earlier life, with other bytes under the same name, version and size.
            await put(filling, filling.key("weights.bin"), stale["weights.bin"])
            await filling.finish(filling.key("weights.bin"))
            await filling.write_small("config.json", stale["config.json"])
            member = await b.join(filling)
            await asyncio.gather(b.talk(member), first)
            await filling.complete()
            await member.close()
        assert whole(a, manifest, files)
        assert whole(b, manifest, files)


# Several contents at once


async def test_two_contents_that_share_a_file_bring_it_once(tmp_path: Path) -> None:
    second_files = FILES | {"config.json": b"{ }"}
    second = content(second_files)
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b") as (fleet, origin, _):
        fleet.coordinate(second)
        a, b = fleet.nodes.values()
        await asyncio.gather(*(node.bring(MODEL) for node in (a, b)), *(_bring_second(node, second) for node in (a, b)))
        assert whole(a)
        assert whole(b, second, second_files)
        assert origin.given["model.bin"] == len(FILES["model.bin"])
        assert origin.given["other.bin"] == len(FILES["other.bin"])


async def _bring_second(node: Node, manifest: Manifest) -> None:
    """Only its shared files are asked for here; the small one that differs is put by hand."""
    async with await node.store.begin(manifest) as filling:
        await filling.write_small("config.json", b"{ }")
        member = await node.join(filling)
        await node.talk(member)
        await filling.complete()
        await member.close()


# Interruptions


async def test_cancelled_anywhere_it_goes_on_where_it_was(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b") as (fleet, _, _):
        a, b = fleet.nodes.values()
        for _ in range(12):
            task = asyncio.create_task(a.bring(MODEL))
            for _ in range(chance.randrange(1, 120)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert a.members == []
            assert a.sharing.joined == {}
            assert a.swarm.entries == {}
        await asyncio.gather(a.bring(MODEL), b.bring(MODEL))
        assert whole(a)
        assert whole(b)


async def test_a_new_coordinator_learns_what_is_here_and_nothing_is_read_twice(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b") as (fleet, origin, _):
        a, b = fleet.nodes.values()
        async with await a.store.begin(MODEL) as filling:
            member = await a.join(filling)
            talk = asyncio.create_task(member.talk(""))
            await asyncio.wait_for(member.complete.wait(), 60)
            talk.cancel()
            await asyncio.gather(talk, return_exceptions=True)
            fleet.coordinate(MODEL, epoch=2)
            await asyncio.gather(a.talk(member), b.bring(MODEL))
            await member.close()
        assert whole(b)
        assert origin.total == MODEL.bytes


async def test_what_a_node_had_begun_when_all_were_stopped_it_goes_on_with(tmp_path: Path) -> None:
    """Under a new coordinator, to which another node may have come first."""
    async with fleet_of(tmp_path, FILES, MODEL, "a", "b") as (fleet, origin, _):
        nodes = list(fleet.nodes.values())
        for node in nodes:
            node.leg.pause = 0.05
        tasks = [asyncio.create_task(node.bring(MODEL)) for node in nodes]
        await until(lambda: origin.total > 3 * MIB)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not any(map(whole, nodes))
        fleet.coordinate(MODEL, epoch=2)
        for node in nodes:
            node.leg.pause = 0.0
        await asyncio.gather(*(node.bring(MODEL) for node in nodes))
        assert all(map(whole, nodes))
        assert origin.total <= MODEL.bytes + SEGMENT
