"""The real Dragonfly on loopback does what the engine relies on, and its parts can be killed and started again."""

import hashlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from dev.dragonfly.manager import covered_urls, failures
from dev.dragonfly.stack import DragonflyStack
from dev.hub import Hub, HubThread
from dev.hub.repository import Blob
from tests.dragonfly.conftest import MODEL
from tests.dragonfly.support import preheat
from tests.dragonfly.support.jobs import is_seedless
from tests.integration.support.waiting import eventually

# What a daemon asks for only to learn a file's size is not content, but allow for it.
ORIGIN_ALLOWANCE = 1.02
SINGLE_PIECE = 4 << 20


@pytest.fixture(scope="module", autouse=True)
def missing(dragonfly: DragonflyStack, _origin: HubThread) -> int:
    """A job for a file that is not there, made first: the manager says half a minute later what became of it."""
    dragonfly.wait_preheatable()
    job = dragonfly.api.preheat([missing_url(_origin.hub)])
    return int(job["id"])


def test_manager_answers_to_its_token_and_to_no_other(dragonfly: DragonflyStack) -> None:
    assert dragonfly.api.healthy()
    jobs = f"{dragonfly.manager_url}/oapi/v1/jobs"
    with httpx.Client(trust_env=False, timeout=10) as client:
        answers = {
            name: client.get(jobs, headers=headers).status_code
            for name, headers in {
                "right": {"Authorization": f"Bearer {dragonfly.token}"},
                "wrong": {"Authorization": "Bearer wrong"},
                "none": {},
            }.items()
        }
        elsewhere = client.get(f"{dragonfly.manager_url}/nope")
    assert answers == {"right": 200, "wrong": 401, "none": 401}
    assert (elsewhere.status_code, elsewhere.headers["Location"]) == (301, "/")


def test_token_without_the_scope_for_jobs_is_forbidden(dragonfly: DragonflyStack) -> None:
    token = dragonfly.api.create_token("clusters-only", scopes=("cluster",))
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{dragonfly.manager_url}/oapi/v1/jobs", headers=headers, trust_env=False)
    assert answer.status_code == 403
    assert "Required permission: job" in answer.json()["message"]


def test_preheated_model_costs_the_origin_its_size_once(dragonfly: DragonflyStack, origin: Hub, tmp_path: Path) -> None:
    """Two nodes load the whole model after a preheat: every byte right, and the origin has sent each about once."""
    files = large_files(origin)
    urls = {f"{base_url(origin)}/{path}": blob for path, blob in files.items()}
    size = sum(blob.size for blob in files.values())
    seed = dragonfly.seeds[0]
    before = seed.tasks()

    # An application of its own: other tests have brought the same files.
    job = preheat(dragonfly, list(urls), bio="model", application="stack")
    assert (job["state"], failures(job)) == ("SUCCESS", [])
    assert covered_urls(job) == set(urls)
    assert job["bio"] == "model"
    preheated = seed.tasks() - before
    assert {sha256(seed.task_file(id)) for id in preheated} == {blob.sha256 for blob in files.values()}
    assert size <= content_bytes(origin) <= size * ORIGIN_ALLOWANCE

    for number, daemon in enumerate(dragonfly.daemons):
        known = daemon.tasks()
        load(dragonfly, number, urls, tmp_path, application="stack")
        # The daemons' task ids are those of the preheat, or the bytes could not have come from the seed.
        assert daemon.tasks() - known == preheated
    assert content_bytes(origin) <= size * ORIGIN_ALLOWANCE


def test_tag_and_application_of_job_and_dfget_have_to_agree(
    dragonfly: DragonflyStack, origin: Hub, tmp_path: Path
) -> None:
    path, blob = next(iter(large_files(origin).items()))
    url = f"{base_url(origin)}/{path}"
    names = {"tag": "v1", "application": "modelswarm"}
    job = preheat(dragonfly, [url], **names)
    assert (job["state"], covered_urls(job)) == ("SUCCESS", {url})
    origin.counters.reset()

    daemon = dragonfly.daemons[0]
    with daemon.recorded_tasks() as ids:
        assert dragonfly.dfget(0, url, tmp_path / "out", tag="v1", application="modelswarm").succeeded
    assert ids <= dragonfly.seeds[0].tasks()
    assert sha256(tmp_path / "out") == blob.sha256
    assert content_bytes(origin) <= blob.size * (ORIGIN_ALLOWANCE - 1)
    with daemon.recorded_tasks() as others:
        assert dragonfly.dfget(0, url, tmp_path / "out", tag="v2", application="modelswarm").succeeded
    assert ids.isdisjoint(others)
    assert content_bytes(origin) >= blob.size


def test_job_that_asks_for_a_missing_file_fails_and_names_it(
    dragonfly: DragonflyStack, origin: Hub, missing: int
) -> None:
    job = dragonfly.api.wait_for_job(missing)
    if is_seedless(job):
        job = preheat(dragonfly, [missing_url(origin)])
    assert job["state"] == "FAILURE"
    assert covered_urls(job) == set()
    assert any("404" in failure for failure in failures(job))


def test_without_preheat_two_nodes_share_what_one_has_loaded(
    dragonfly: DragonflyStack, origin: Hub, tmp_path: Path
) -> None:
    """The same files under another application: new tasks, which the first node brings in. It does so by itself if the
    scheduler, which looks for some two seconds, finds that the seed has not begun."""
    files = large_files(origin)
    urls = {f"{base_url(origin)}/{path}": blob for path, blob in files.items()}
    size = sum(blob.size for blob in files.values())
    load(dragonfly, 0, urls, tmp_path, application="cold")
    second = dragonfly.daemons[1]
    before = second.traffic()
    load(dragonfly, 1, urls, tmp_path, application="cold")

    def moved() -> Mapping[str, int] | None:
        grown = second.traffic()
        grown.subtract(before)
        return grown if grown["REMOTE_PEER"] >= size else None

    assert eventually(moved, 20)["BACK_TO_SOURCE"] == 0
    assert size <= content_bytes(origin) <= 2 * size * ORIGIN_ALLOWANCE


def test_manager_comes_back_with_its_tokens_and_jobs(dragonfly: DragonflyStack, origin: Hub) -> None:
    posted = dragonfly.api.preheat([f"{base_url(origin)}/config.json"], bio="before the restart")
    dragonfly.kill_manager()
    assert not dragonfly.api.healthy()
    dragonfly.start_manager()
    jobs = [job for job in dragonfly.api.jobs() if job["id"] == posted["id"]]
    assert [job["bio"] for job in jobs] == ["before the restart"]


def test_dfget_without_its_daemon_fails_at_once_and_the_daemon_keeps_its_tasks(
    dragonfly: DragonflyStack, origin: Hub, tmp_path: Path
) -> None:
    url = f"{base_url(origin)}/{next(iter(large_files(origin)))}"
    assert dragonfly.dfget(0, url, tmp_path / "out").succeeded
    daemon = dragonfly.daemons[0]
    tasks = daemon.tasks()
    daemon.stop()
    download = dragonfly.dfget(0, url, tmp_path / "out", timeout=30)
    assert download.returncode == 1
    assert "Connect Dfdaemon Failed" in download.output
    daemon.start()
    assert daemon.tasks() == tasks
    assert dragonfly.dfget(0, url, tmp_path / "out").succeeded


def test_dfget_is_killed_after_its_time(dragonfly: DragonflyStack, origin: Hub, tmp_path: Path) -> None:
    path = next(iter(large_files(origin)))
    daemon = dragonfly.daemons[1]
    assert daemon.child.pid is not None
    os.kill(daemon.child.pid, signal.SIGSTOP)  # its socket still takes connections, and nobody answers
    try:
        download = dragonfly.dfget(1, f"{base_url(origin)}/{path}", tmp_path / "out", timeout=3)
    finally:
        os.kill(daemon.child.pid, signal.SIGCONT)
    assert download.returncode is None or download.returncode == 1
    assert download.seconds < 15


def test_scheduler_restart_leaves_downloads_working(dragonfly: DragonflyStack, origin: Hub, tmp_path: Path) -> None:
    dragonfly.restart_scheduler()
    urls = {f"{base_url(origin)}/{path}": blob for path, blob in large_files(origin).items()}
    load(dragonfly, 0, urls, tmp_path, application="after the restart")


def test_stopped_stack_leaves_no_process_and_no_file() -> None:
    with DragonflyStack(daemons=1, seeds=0) as stack:
        children = (stack.mariadb, stack.redis, stack.manager, stack.scheduler, stack.daemons[0].child)
        pids = [child.pid for child in children]
        directory = stack.directory
        assert all(child.running for child in children)
    assert [pid for pid in pids if pid is None or Path(f"/proc/{pid}").exists()] == []
    assert not directory.exists()


# Helpers


def base_url(origin: Hub) -> str:
    return f"{origin.url}/{MODEL}/resolve/{origin.repositories[MODEL].head}"


def missing_url(origin: Hub) -> str:
    return f"{base_url(origin)}/missing.safetensors"


def large_files(origin: Hub) -> dict[str, Blob]:
    repository = origin.repositories[MODEL]
    return {path: blob for path, blob in repository.get(repository.head).files.items() if blob.size > SINGLE_PIECE}


def content_bytes(origin: Hub) -> int:
    return origin.counters.total().content


def load(
    dragonfly: DragonflyStack, number: int, urls: Mapping[str, Blob], folder: Path, *, application: str = ""
) -> None:
    """Download everything through one daemon and check every file."""
    for url, blob in urls.items():
        output = folder / f"{number}-{url.rpartition('/')[2]}"
        download = dragonfly.dfget(number, url, output, application=application)
        if not download.succeeded:
            pytest.fail(f"dfget {url}: {download.returncode}\n{download.output}")
        assert sha256(output) == blob.sha256


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
