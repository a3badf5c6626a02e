"""What becomes of contents on a node: wanted, suspended, deleted, evicted, failed, and wanted again."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from modelswarm.agent.session import LONGEST_PAUSE
from modelswarm.agent.store import COMPLETE
from modelswarm.agent.troubles import SPACE_NEEDED, SUSPENDED
from modelswarm.api.nodecache import ModelState
from modelswarm.content.manifest import Manifest
from modelswarm.errors import LoadError, StoreReason
from modelswarm.kube.kinds import CONFIGMAP
from modelswarm.loader.outcome import Reason, Transient
from tests.unit.agent.company import Agent, Company, company_of, hash_of, wanted_of
from tests.unit.agent.store.conftest import MIB, content, noise, occupied, tree

pytestmark = pytest.mark.looptime

FILES = {"model.bin": noise("model", 5 * MIB + 123), "other.bin": noise("other", 3 * MIB), "config.json": b"{}"}
MODEL = content(FILES)
SECOND_FILES = FILES | {"config.json": b"{ }", "more.bin": noise("more", 2 * MIB)}
SECOND = content(SECOND_FILES)


async def started(company: Company, *names: str, pause: float = 0.0) -> list[Agent]:
    agents = company.add(*names)
    for agent in agents:
        agent.leg.pause = pause
        await agent.start(MODEL)
    return agents


def directory(agent: Agent, manifest: Manifest = MODEL) -> Path:
    return agent.parts.store.directory(hash_of(manifest))


async def test_states_follow_each_other_and_what_is_ready_is_marked(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = company.add("a")
        agent.leg.pause = 1.0
        await agent.start(MODEL)
        seen: list[ModelState] = []

        def look() -> bool:
            states = [each.state for each in agent.told.standings]
            seen.extend(state for state in states if state not in seen[-1:])
            return agent.is_ready(MODEL)

        await company.until(look)
        order = [ModelState.WAITING, ModelState.FETCHING, ModelState.VERIFYING, ModelState.READY]
        assert [state for state in dict.fromkeys(seen) if state in order] == [each for each in order if each in seen]
        assert ModelState.FETCHING in seen
        assert (directory(agent) / COMPLETE).exists()
        assert tree(directory(agent)) == FILES


async def test_suspended_no_byte_moves_and_resumed_it_goes_on_from_there(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = await started(company, "a", "b", pause=1.0)
        await company.until(lambda: company.origin.total >= MODEL.bytes / 2)
        for agent in agents:
            agent.want(wanted_of(MODEL, suspended=True))
        await company.until(lambda: all(agent.standing(MODEL).reason == SUSPENDED for agent in agents))
        await asyncio.sleep(5)
        read, there = company.origin.total, [agent.standing(MODEL).done_bytes for agent in agents]
        await asyncio.sleep(300)
        assert company.origin.total == read
        assert all(agent.standing(MODEL).state is ModelState.WAITING for agent in agents)
        assert there == [agent.standing(MODEL).done_bytes for agent in agents]
        for agent in agents:
            agent.want(wanted_of(MODEL))
        await company.until_ready(MODEL)
        # The last half MiB of each connection may not have reached the disk.
        assert company.origin.total <= MODEL.bytes + 8 * MIB // 2


@pytest.mark.parametrize("half_way", [True, False])
async def test_what_a_task_brought_stays_when_the_task_is_gone(tmp_path: Path, half_way: bool) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = await started(company, "a", pause=0.5)
        await company.until(lambda: company.origin.total >= MODEL.bytes / 2 if half_way else agent.is_ready(MODEL))
        agent.want()
        await company.until(lambda: not agent.residents.sessions)
        read = company.origin.total
        await asyncio.sleep(120)
        assert company.origin.total == read
        assert occupied(tmp_path / "a") > 0
        agent.want(wanted_of(MODEL))
        await company.until_ready(MODEL)
        assert company.origin.total <= MODEL.bytes + (8 * MIB // 2 if half_way else 0)


@pytest.mark.parametrize("half_way", [True, False])
async def test_what_a_base_model_brought_goes_with_it(tmp_path: Path, half_way: bool) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = company.add("a")
        agent.leg.pause = 0.5
        path = tmp_path / "a" / "served"
        await agent.start()
        agent.want(wanted_of(MODEL, path=path))
        await company.until(lambda: company.origin.total >= MODEL.bytes / 2 if half_way else agent.is_ready(MODEL))
        assert half_way or tree(path) == FILES
        agent.want()
        await company.until(lambda: not agent.residents.sessions)
        assert not path.exists() or tree(path) == {}
        assert not directory(agent).exists()
        assert occupied(tmp_path / "a" / "blobs") == occupied(tmp_path / "a" / "partial") == 0
        read = company.origin.total
        await asyncio.sleep(60)
        assert company.origin.total == read


async def test_a_path_that_is_asked_for_later_is_filled_and_one_that_is_not_any_more_is_cleared(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = await started(company, "a")
        await company.until_ready(MODEL)
        task, path = wanted_of(MODEL), tmp_path / "a" / "served"
        both = replace(task, claims=(*task.claims, *wanted_of(MODEL, path=path).claims))
        agent.want(both)
        await company.until(lambda: path.exists() and tree(path) == FILES)
        agent.want(task)
        await company.until(lambda: not path.exists() or not tree(path))
        assert agent.is_ready(MODEL)
        assert company.origin.total == MODEL.bytes


async def test_a_path_that_cannot_be_is_said_and_the_content_is_here_all_the_same(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = company.add("a")
        path = tmp_path / "a" / "taken"
        await agent.start()
        path.parent.mkdir(exist_ok=True)
        path.write_text("somebody's file")
        task = wanted_of(MODEL)
        agent.want(replace(task, claims=(*task.claims, *wanted_of(MODEL, path=path).claims)))
        await company.until_ready(MODEL)
        assert agent.standing(MODEL).reason is not None
        assert tree(directory(agent)) == FILES
        path.unlink()
        await company.until(lambda: agent.standing(MODEL).reason is None)
        assert tree(path) == FILES


async def test_two_contents_on_one_node_share_what_they_can(tmp_path: Path) -> None:
    files = SECOND_FILES | {"config.json": b"{}"}
    async with company_of(tmp_path, files, MODEL, SECOND) as company:
        company.origin.files = dict(files)
        [agent] = company.add("a")
        company.origin.files["config.json"] = b"{}"
        await agent.start(MODEL)
        await company.until_ready(MODEL)
        company.origin.files["config.json"] = b"{ }"
        agent.want(wanted_of(MODEL), wanted_of(SECOND))
        await company.until_ready(SECOND)
        assert company.origin.total == MODEL.bytes + len(SECOND_FILES["more.bin"]) + len(b"{ }")


# The disk


async def test_what_nobody_uses_makes_room_and_comes_back_with_a_pod(tmp_path: Path) -> None:
    large_files = {"large.bin": noise("large", 6 * MIB)}
    large = content(large_files)
    async with company_of(tmp_path, FILES | large_files, MODEL, large) as company:
        [agent] = company.add("a")
        agent.quota = 12 * MIB
        await agent.start(MODEL)
        await company.until_ready(MODEL)
        pinned = wanted_of(large, pin=True)
        agent.want(wanted_of(MODEL), pinned)
        await company.until_ready(large)
        await company.until(lambda: agent.standing(MODEL).state is ModelState.EVICTED)
        assert agent.standing(MODEL).reason == SPACE_NEEDED
        assert not (directory(agent) / COMPLETE).exists()
        agent.want(replace(wanted_of(MODEL), pods=frozenset({"default/pod"})))
        await company.until_ready(MODEL)
        assert tree(directory(agent)) == FILES


async def test_of_what_made_room_nothing_is_remembered(tmp_path: Path) -> None:
    large_files = {"large.bin": noise("large", 6 * MIB)}
    large = content(large_files)
    async with company_of(tmp_path, FILES | large_files, MODEL, large) as company:
        [agent] = company.add("a")
        agent.quota = 12 * MIB
        await agent.start(MODEL)
        await company.until_ready(MODEL)
        seeding, evictions = agent.parts.seeding, "modelswarm_agent_evictions_total"
        await company.until(lambda: hash_of(MODEL) in seeding.hashes)
        agent.want(wanted_of(MODEL), wanted_of(large, pin=True))
        await company.until(lambda: not agent.parts.store.has(hash_of(MODEL)))
        assert agent.parts.metrics.registry.get_sample_value(evictions) == 1
        assert not await seeding.has_seeded(hash_of(MODEL))
        agent.want(replace(wanted_of(MODEL), pods=frozenset({"default/pod"})))
        await company.until_ready(MODEL)
        assert agent.standing(MODEL).origin_bytes == MODEL.bytes, "what came before is not here any more"


async def test_what_made_room_is_asked_for_its_directory_before_it_is_noticed(tmp_path: Path) -> None:
    large_files = {"large.bin": noise("large", 6 * MIB)}
    large = content(large_files)
    async with company_of(tmp_path, FILES | large_files, MODEL, large) as company:
        [agent] = company.add("a")
        agent.quota = 12 * MIB
        await agent.start()
        served = wanted_of(MODEL, path=tmp_path / "a" / "served")
        agent.want(served)
        await company.until_ready(MODEL)
        agent.want(served, wanted_of(large, pin=True))
        await company.until(lambda: not agent.parts.store.has(hash_of(MODEL)))
        assert agent.is_ready(MODEL), "its session has not noticed yet"
        another = tmp_path / "a" / "another"
        agent.want(wanted_of(MODEL, path=another), wanted_of(large, pin=True))
        await company.until(lambda: agent.standing(MODEL).state is ModelState.EVICTED)
        assert not another.exists()
        await company.until_ready(large)
        agent.want(replace(wanted_of(MODEL, path=another), pods=frozenset({"default/pod"})))
        await company.until_ready(MODEL)
        assert tree(another) == FILES


async def test_what_does_not_fit_is_said_and_begins_when_there_is_room(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = company.add("a")
        agent.quota = 4 * MIB
        await agent.start(MODEL)
        await company.until(lambda: agent.standing(MODEL).reason == StoreReason.INSUFFICIENT_CAPACITY)
        assert agent.standing(MODEL).state is ModelState.FAILED
        assert company.origin.total == 0
        await agent.stop()
        agent.quota = 64 * MIB
        await agent.start()
        await company.until_ready(MODEL)


async def test_files_that_change_on_the_disk_are_noticed_and_fetched_again(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        agents = await started(company, "a", "b")
        await company.until_ready(MODEL)
        agent, read = agents[0], company.origin.total
        blob = agent.parts.store.blob(f"sha256-{MODEL.files[0].digest.removeprefix('sha256:')}")  # type: ignore[union-attr]
        assert blob is not None
        blob.chmod(0o644)
        with blob.open("r+b") as file:
            file.write(b"rot")
        wrong = await agent.parts.store.recheck(hash_of(MODEL))
        assert wrong == (MODEL.files[0].path,)
        await company.until(lambda: not agent.is_ready(MODEL))
        await company.until_ready(MODEL)
        assert tree(directory(agent)) == FILES
        assert company.origin.total == read, "the other node has it"


# Failures


@pytest.mark.parametrize(
    ("error", "state"),
    [
        pytest.param(Transient("SourceUnavailable", "down"), ModelState.FETCHING, id="an origin that is down"),
        pytest.param(LoadError(Reason.SOURCE_CHANGED, "another file"), ModelState.FAILED, id="a source that changed"),
    ],
)
async def test_what_the_origin_says_is_said_tried_less_and_less_often_and_forgotten_when_it_is_over(
    tmp_path: Path, error: LoadError, state: ModelState
) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        company.origin.always = error
        [agent] = await started(company, "a")
        await company.until(lambda: agent.standing(MODEL).reason == error.reason)
        assert agent.standing(MODEL).state is state
        before = company.origin.calls
        await asyncio.sleep(10 * LONGEST_PAUSE)
        assert company.origin.calls - before < 10 * LONGEST_PAUSE, "by eight connections together"
        company.origin.always = None
        await company.until_ready(MODEL)
        standing = agent.standing(MODEL)
        assert (standing.reason, standing.message) == (None, "")
        assert company.origin.total == MODEL.bytes


async def test_a_missing_list_of_files_is_said_and_looked_for_again(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES) as company:
        [agent] = await started(company, "a")
        await company.until(lambda: agent.standing(MODEL).reason == "ManifestNotFound")
        assert agent.standing(MODEL).state is ModelState.FAILED
        company.describe(MODEL)
        await company.until_ready(MODEL, seconds=2 * LONGEST_PAUSE)


async def test_new_claims_are_a_reason_to_try_at_once(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES) as company:
        [agent] = await started(company, "a")
        await company.until(lambda: agent.standing(MODEL).reason == "ManifestNotFound")
        # Past the first attempts, which follow each other soon.
        await asyncio.sleep(1.0)
        company.describe(MODEL)
        [claim] = wanted_of(MODEL).claims
        began = asyncio.get_running_loop().time()
        agent.want(replace(wanted_of(MODEL), claims=(claim, replace(claim, uid="another", name="another"))))
        await company.until_ready(MODEL)
        assert asyncio.get_running_loop().time() - began < LONGEST_PAUSE / 4


async def test_a_restarted_agent_has_what_it_had_and_asks_nobody(tmp_path: Path) -> None:
    async with company_of(tmp_path, FILES, MODEL) as company:
        [agent] = await started(company, "a")
        await company.until_ready(MODEL)
        await company.until(lambda: company.lease(MODEL).complete)
        await agent.kill()
        company.server.remove(CONFIGMAP, f"task-{hash_of(MODEL)[:8]}-manifest", "models")
        requests = len(company.server.requests)
        await agent.start()
        await company.until_ready(MODEL)
        assert company.origin.total == MODEL.bytes
        assert company.server.requests[requests:] == []
        assert hash_of(MODEL) in agent.parts.seeding.hashes
        assert agent.standing(MODEL).origin_bytes == MODEL.bytes, "where it came from is remembered"
