"""The manager's Open API: jobs, and nothing else. The only module that speaks to the manager.

Every failure is a ``DragonflyError`` with a typed reason. Whether a job was made is never guessed: a lost answer to a
POST is ``OutcomeUnknown`` and is not tried again here, because each POST makes a job.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import datetime

import httpx
import tenacity
from pydantic import JsonValue, TypeAdapter, ValidationError

from modelswarm.backends.dragonfly.answers import Job, classify, error_text, shown
from modelswarm.backends.dragonfly.reasons import DragonflyError, DragonflyReason, JobRefused, OutcomeUnknown
from modelswarm.backends.dragonfly.requests import GetTask, Preheat

TokenSource = Callable[[], Awaitable[str]]
"""Reads the personal access token from where it is kept (a Secret). Raises ``EngineError``."""

TIMEOUT = httpx.Timeout(45.0, connect=5.0)
"""An image's manifest is fetched within the POST; a reconcile has 60 seconds in all."""
ATTEMPTS = 3
REST_SECONDS = 10.0
"""After no answer the manager is left alone for so long: many tasks that wait for a dead host would hold up others."""
PER_PAGE = 100
MAX_PAGES = 200
_GATEWAY = frozenset({502, 503, 504})
_JOBS = TypeAdapter(list[Job])


class ManagerClient:
    """For use within one event loop. ``http`` is the caller's; ``token`` is read once, and again when it is refused."""

    def __init__(
        self, http: httpx.AsyncClient, url: str, token: TokenSource, *, rest_seconds: float = REST_SECONDS
    ) -> None:
        self._http = http
        self._base = f"{url.rstrip('/')}/oapi/v1/jobs"
        self._token_source = token
        self._token: str | None = None
        self._rest_seconds = rest_seconds
        self._resting: tuple[float, DragonflyError] | None = None

    async def submit(self, request: Preheat | GetTask) -> Job:
        """Make a job.

        Raises ``JobRefused`` (there is none), ``OutcomeUnknown`` (there may be one), ``DragonflyError``.
        """
        about_image = isinstance(request, Preheat) and request.args.type == "image"
        return self._job(await self._ask("POST", self._base, body=request.to_json(), about_image=about_image))

    async def job(self, number: int) -> Job | None:
        """The job, or None where the manager does not know it. Raises ``DragonflyError``."""
        response = await self._ask("GET", f"{self._base}/{number}", or_missing=True)
        return None if response.status_code == 404 else self._job(response)

    async def delete(self, number: int) -> None:
        """Remove the job's record. The download goes on. One that is gone is fine. Raises ``DragonflyError``."""
        await self._ask("DELETE", f"{self._base}/{number}", or_missing=True)

    async def preheats(self, *, since: datetime) -> list[Job]:
        """All preheat jobs that were made since then, newest first, whoever made them. Raises ``DragonflyError``."""
        found: dict[int, Job] = {}
        for page in range(1, MAX_PAGES + 1):
            query = {"type": "preheat", "page": str(page), "per_page": str(PER_PAGE)}
            response = await self._ask("GET", self._base, query=query)
            try:
                jobs = _JOBS.validate_json(response.content)
            except ValidationError:
                raise self._rest(self._not_a_manager("a list of an unexpected form")) from None
            found.update((job.id, job) for job in jobs if job.created_at >= since)
            if len(jobs) < PER_PAGE or min(job.created_at for job in jobs) < since:
                return list(found.values())
        raise DragonflyError(
            DragonflyReason.MANAGER_UNREACHABLE,
            f"the manager lists more than {MAX_PAGES * PER_PAGE} jobs; ours cannot be found among them",
        )

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        query: dict[str, str] | None = None,
        body: JsonValue = None,
        or_missing: bool = False,
        about_image: bool = False,
    ) -> httpx.Response:
        """Ask with the token at hand, and once more with a newly read one if it is refused."""
        self._check_rest()
        response = await self._send(method, url, query, body)
        if response.status_code in (401, 403):
            before, self._token = self._token, None
            if await self._read_token() != before:
                response = await self._send(method, url, query, body)
        if 200 <= response.status_code < 300 or (or_missing and response.status_code == 404):
            return response
        raise self._refusal(method, response, about_image)

    async def _send(self, method: str, url: str, query: dict[str, str] | None, body: JsonValue) -> httpx.Response:
        headers = {"Authorization": f"Bearer {await self._read_token()}"}
        # A job is made by each POST that arrives: only one that certainly did not may be sent again.
        again: tuple[type[Exception], ...] = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
        if method != "POST":
            again = (*again, httpx.TransportError, _Gateway)
        try:
            async for attempt in tenacity.AsyncRetrying(
                stop=tenacity.stop_after_attempt(ATTEMPTS) | tenacity.stop_after_delay(4.0),
                wait=tenacity.wait_random_exponential(multiplier=0.2, max=1.0),
                retry=tenacity.retry_if_exception_type(again),
                reraise=True,
            ):
                with attempt:
                    response = await self._http.request(
                        method,
                        url,
                        params=query,
                        json=body,
                        headers=headers,
                        timeout=TIMEOUT,
                        follow_redirects=False,
                    )
                    if response.status_code in _GATEWAY:
                        raise _Gateway(response.status_code)
            return response
        except _Gateway as error:
            raise self._rest(self._unanswered(method, f"answers with HTTP {error.status}")) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.InvalidURL) as error:
            raise self._rest(self._unreachable(f"cannot be reached ({type(error).__name__})")) from error
        except httpx.TimeoutException as error:
            slow = self._unanswered(method, "does not answer in time")
            if isinstance(slow, OutcomeUnknown):
                slow.late = True
            raise self._rest(slow) from error
        except httpx.HTTPError as error:
            raise self._rest(self._unanswered(method, f"breaks off its answer ({type(error).__name__})")) from error

    async def _read_token(self) -> str:
        if self._token is None:
            self._token = (await self._token_source()).strip()
        return self._token

    def _refusal(self, method: str, response: httpx.Response, about_image: bool) -> DragonflyError:
        status, text = response.status_code, error_text(response.content)
        if 300 <= status < 400:
            return self._rest(self._not_a_manager(f"a redirect (HTTP {status})"))
        if status in (401, 403):
            return self._rest(
                DragonflyError(
                    DragonflyReason.UNAUTHORIZED,
                    f"the manager refuses the personal access token: {shown(text) or status}; it needs the scope 'job'",
                )
            )
        if status == 429:
            return DragonflyError(
                DragonflyReason.RATE_LIMITED,
                "the manager answers 429: too many jobs, a scheduler cluster that does not exist, or no Redis",
            )
        reason = classify(text)
        if reason is DragonflyReason.NO_SCHEDULER or (status == 404 and method == "POST"):
            return DragonflyError(DragonflyReason.NO_SCHEDULER, f"no active scheduler: {shown(text)}")
        if status < 500:
            return JobRefused(DragonflyReason.REFUSED, f"the manager answers HTTP {status}: {shown(text)}")
        # An image's registry is asked within the POST: what it said arrives as a 500 too.
        registry_said_so = about_image and text not in ("", "Internal Server Error") and "redis" not in text.lower()
        if method == "POST" and (registry_said_so or "invalid params" in text):
            return JobRefused(reason or DragonflyReason.REFUSED, f"the manager answers HTTP {status}: {shown(text)}")
        return self._unreachable(f"answers with HTTP {status}: {shown(text) or 'no reason given'}")

    def _job(self, response: httpx.Response) -> Job:
        try:
            return Job.model_validate(json.loads(response.content))
        except ValueError:  # of JSON, or pydantic's; neither is chained: both quote the document
            raise self._rest(self._not_a_manager("something that is not a job")) from None

    def _unreachable(self, what: str) -> DragonflyError:
        return DragonflyError(DragonflyReason.MANAGER_UNREACHABLE, f"the Dragonfly manager {what}")

    def _unanswered(self, method: str, what: str) -> DragonflyError:
        kind = OutcomeUnknown if method == "POST" else DragonflyError
        return kind(DragonflyReason.MANAGER_UNREACHABLE, f"the Dragonfly manager {what}")

    def _not_a_manager(self, what: str) -> DragonflyError:
        return self._unreachable(f"answers with {what}; check the manager's URL and what stands in between")

    def _rest(self, error: DragonflyError) -> DragonflyError:
        self._resting = (asyncio.get_running_loop().time() + self._rest_seconds, error)
        return error

    def _check_rest(self) -> None:
        if self._resting is None:
            return
        until, error = self._resting
        if asyncio.get_running_loop().time() < until:
            raise DragonflyError(error.reason, error.message)
        self._resting = None


class _Gateway(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
