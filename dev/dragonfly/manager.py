"""A client of the manager for tests and for setting it up. It shares nothing with the product's own client."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import httpx

from dev.dragonfly.configs import CLUSTER

# The account of every new manager.
ROOT_USER = "root"
ROOT_PASSWORD = "dragonfly"
SIGN_IN_TIMEOUT = 20.0

Json = dict[str, Any]


class Manager:
    """Talks to one manager; ``token`` is a personal access token, which the jobs need."""

    def __init__(self, url: str, token: str = "") -> None:
        self.token = token
        self._session = ""
        # trust_env off: no proxy of the environment gets between a test and its own loopback. Redirects are not
        # followed, because the manager redirects everything that it does not know to its console.
        self._client = httpx.Client(base_url=url, timeout=90, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def healthy(self) -> bool:
        try:
            response = self._client.get("/healthy", timeout=5)
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.OK and response.json() == "OK"

    # With the root account

    def create_token(
        self, name: str, *, scopes: Sequence[str] = ("job", "cluster"), valid: timedelta = timedelta(days=30)
    ) -> str:
        """A new personal access token, which survives restarts of the manager."""
        body = {
            "name": name,
            "bio": "",
            "scopes": list(scopes),
            "expired_at": (datetime.now(UTC) + valid).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "user_id": 1,
        }
        answer = self._client.post("/api/v1/personal-access-tokens", json=body, headers=self._signed_in())
        return str(answer.raise_for_status().json()["token"])

    def schedulers(self) -> list[Json]:
        answer = self._client.get("/api/v1/schedulers", headers=self._signed_in())
        schedulers: list[Json] = answer.raise_for_status().json()
        return schedulers

    def _signed_in(self) -> dict[str, str]:
        # Once, and good for two days, also after a restart: the manager answers 401 to the right password when it has
        # seen two sign-ins within five seconds.
        if not self._session:
            deadline = time.monotonic() + SIGN_IN_TIMEOUT
            credentials = {"name": ROOT_USER, "password": ROOT_PASSWORD}
            while (answer := self._client.post("/api/v1/users/signin", json=credentials)).status_code == 401:
                if time.monotonic() > deadline:
                    break
                time.sleep(1)
            self._session = str(answer.raise_for_status().json()["token"])
        return {"Authorization": f"Bearer {self._session}"}

    # With the token

    def preheat(self, urls: Sequence[str], *, bio: str = "", **arguments: object) -> Json:
        """Post a job for files; ``arguments`` are added to its ``args``."""
        args = {"type": "file", "urls": list(urls), "scope": "all_seed_peers", "count": 1, **arguments}
        return self.post_job({"type": "preheat", "bio": bio, "scheduler_cluster_ids": [CLUSTER], "args": args})

    def post_job(self, body: Mapping[str, object]) -> Json:
        job: Json = self._client.post("/oapi/v1/jobs", json=body, headers=self._bearer()).raise_for_status().json()
        return job

    def job(self, id: int) -> Json:
        job: Json = self._client.get(f"/oapi/v1/jobs/{id}", headers=self._bearer()).raise_for_status().json()
        return job

    def jobs(self, **query: str | int) -> list[Json]:
        """All jobs, the newest first."""
        parameters = {"per_page": 1000, **query}
        answer = self._client.get("/oapi/v1/jobs", params=parameters, headers=self._bearer())
        jobs: list[Json] = answer.raise_for_status().json()
        return jobs

    def wait_for_job(self, id: int, timeout: float = 300.0) -> Json:
        """The job when it has ended. The manager itself looks for its end at 0, 30, 90 and 210 seconds only."""
        deadline = time.monotonic() + timeout
        while (job := self.job(id))["state"] == "PENDING":
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {id} is still pending after {timeout:.0f} s: {job}")
            time.sleep(0.5)
        return job

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def covered_urls(job: Json) -> set[str]:
    """The URLs that some seed has, by the job's own account. A job may succeed without having any."""
    return set(_tasks(job, "success_tasks", lambda task: str(task["url"])))


def failures(job: Json) -> list[str]:
    """What the manager says went wrong."""
    states = (job.get("result") or {}).get("job_states") or []
    errors = [str(state["error"]) for state in states if state.get("error")]
    return errors + _tasks(job, "failure_tasks", lambda task: f"{task['url']}: {task['description']}")


def _tasks(job: Json, kind: str, describe: Callable[[Json], str]) -> list[str]:
    return [
        describe(task)
        for state in (job.get("result") or {}).get("job_states") or []
        for result in state.get("results") or []
        for task in result.get(kind) or []
    ]
