"""Requests that are not about our kinds: the server's version, its clock, reviews of rights, a pod's own port."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from pydantic_core import from_json, to_json

from modelswarm.api.meta import JsonObject
from modelswarm.errors import Unavailable
from modelswarm.kube.answers import error_for
from modelswarm.kube.auth import auth_headers
from modelswarm.kube.client import JSON, KubeClient


@dataclass(frozen=True, slots=True)
class Answer:
    """``date`` is the server's clock when it answered, to the second."""

    status: int
    body: bytes
    date: datetime | None = None

    def json(self) -> JsonObject:
        """The body, if it is a JSON object; else an empty one."""
        try:
            found = from_json(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


class DirectClient(KubeClient):
    """A ``KubeClient`` that can also ask for any path. Nothing is tried twice."""

    async def fetch(self, path: str, *, seconds: float = 5.0) -> Answer:
        """GET; any HTTP status is an answer. ``path`` begins with ``/``. Raises Unavailable where none comes."""
        return await self._exchange("GET", path, None, seconds)

    async def review(self, obj: JsonObject) -> JsonObject:
        """Create a review (``authorization.k8s.io``), which is not stored; the server's verdict is in its status.

        Raises KubeError.
        """
        plural = f"{str(obj['kind']).lower()}s"
        answer = await self._exchange("POST", f"/apis/{obj['apiVersion']}/{plural}", to_json(obj), self._timeout)
        if answer.status not in range(200, 300):
            raise error_for(answer.status, {}, answer.body)
        return answer.json()

    async def _exchange(self, method: str, path: str, data: bytes | None, seconds: float) -> Answer:
        headers = await auth_headers(self._configuration)
        if data is not None:
            headers["Content-Type"] = JSON
        try:
            async with self._session.request(
                method,
                self._host + path,
                data=data,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds),
                **self._connection,
            ) as response:
                return Answer(response.status, await response.read(), _date(response.headers.get("Date", "")))
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"no answer from the API server ({type(error).__name__})") from None


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return None
