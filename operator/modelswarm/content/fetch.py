"""One HTTP question to an origin: bounded in time, size and attempts; failures become typed errors.

What every origin has in common is decided here: no answer and 5xx are ``SourceUnavailable``, 429 is ``RateLimited``.
What a 401 or 404 means differs between origins and is theirs to say.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import tenacity

from modelswarm.errors import RateLimited, SourceUnavailable

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
"""Seconds for each read, write and wait for a connection of the pool; for connecting."""
TOTAL_SECONDS = 60.0
"""For one attempt, however the bytes trickle in."""
ATTEMPTS = 3
MAX_BYTES = 64 << 20
"""Of one answer, decompressed; a listing of 3,000 files has about 1 MiB."""
LONGEST_RETRY_AFTER = 3600.0
"""Seconds. Nobody is left alone for longer because of one answer, whatever it says."""

_RATE_LIMIT = re.compile(r'"[^"]*"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)')


def no_cookies() -> CookieJar:
    """For a client that many share: it accepts none, so nobody is recognised by a session of somebody else's log-in."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that arrived whole."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> object:
        """The body as JSON; ``SourceUnavailable`` when it is none (a captive portal, a proxy's error page)."""
        try:
            value: object = json.loads(self.body)
        except ValueError:
            raise SourceUnavailable(
                f"{self.url.host} answered something that is not JSON; check the endpoint and any proxy in between"
            ) from None
        return value

    def json_object(self) -> Mapping[str, object]:
        """The body as a JSON object; ``SourceUnavailable`` when it is none."""
        value = self.json()
        if not isinstance(value, dict):
            raise SourceUnavailable(f"{self.url.host} answered JSON of an unexpected form; check the endpoint")
        return value


async def fetch(
    http: httpx.AsyncClient,
    method: str,
    url: str | httpx.URL,
    *,
    headers: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    follow_redirects: bool = True,
    max_bytes: int = MAX_BYTES,
    attempts: int = ATTEMPTS,
) -> Reply:
    """Ask, and again up to twice within about two seconds if the connection fails or the answer is 5xx.

    An ``Authorization`` header does not follow a redirect to another origin (httpx drops it there). Answers below 500
    are returned as they are, save 429.

    Raises ``SourceUnavailable`` and ``RateLimited``; both carry ``retry_after`` where the origin named it. A 429 is
    never slept on: the caller has a queue for that.
    """
    client_auth = httpx.BasicAuth(*auth) if auth else None
    try:
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=1.0),
            retry=tenacity.retry_if_exception_type((httpx.TransportError, _ServerError)),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                request = http.build_request(method, url, headers=headers, data=data, timeout=TIMEOUT)
                reply = await _send(http, request, client_auth, follow_redirects, max_bytes)
                if reply.status >= 500 or reply.status == 408:
                    raise _ServerError(reply)
    except _ServerError as error:
        reply = error.reply
        raise SourceUnavailable(
            f"{reply.url.host} answers with HTTP {reply.status}", retry_after=retry_after(reply.headers)
        ) from None
    except httpx.TimeoutException as error:
        raise SourceUnavailable(f"{_host(url)} does not answer in time") from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise SourceUnavailable(f"{_host(url)} cannot be reached ({type(error).__name__})") from error
    if reply.status == 429:
        wait = retry_after(reply.headers)
        raise RateLimited(
            f"{reply.url.host} limits how often it may be asked; it will be asked again when it allows"
            " (a token usually raises the limit)",
            retry_after=wait,
        )
    return reply


async def _send(
    http: httpx.AsyncClient,
    request: httpx.Request,
    auth: httpx.BasicAuth | None,
    follow_redirects: bool,
    max_bytes: int,
) -> Reply:
    try:
        async with asyncio.timeout(TOTAL_SECONDS):
            response = await http.send(request, auth=auth, follow_redirects=follow_redirects, stream=True)
            try:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > max_bytes:
                        raise SourceUnavailable(
                            f"{response.url.host} answers with more than {max_bytes >> 20} MiB; check the endpoint"
                        )
            finally:
                await response.aclose()
    except TimeoutError:
        raise httpx.ReadTimeout("the whole answer took too long", request=request) from None
    return Reply(response.status_code, response.headers, bytes(body), response.url)


class _ServerError(Exception):
    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def _host(url: str | httpx.URL) -> str:
    try:
        return httpx.URL(url).host
    except httpx.InvalidURL:
        return "the origin"


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds after which the origin wants to be asked again, or None if it does not say.

    ``Retry-After`` as seconds or as a date (RFC 9110), and the ``RateLimit`` header of the IETF draft that Hugging
    Face sends (``"resolvers";r=0;t=55``), where only an exhausted quota (``r=0``) counts. The longest wins,
    up to an hour.
    """
    waits = [float(match) for match in _RATE_LIMIT.findall(headers.get("ratelimit", ""))]
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        waits.append(float(value))
    elif value:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            at = None
        if at is not None:
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            waits.append(max(0.0, (at - (now or datetime.now(UTC))).total_seconds()))
    return min(max(waits), LONGEST_RETRY_AFTER) if waits else None


def text(record: Mapping[str, object], name: str) -> str | None:
    """A field of a JSON object if it is text and not empty."""
    value = record.get(name)
    return value if isinstance(value, str) and value else None


def number(record: Mapping[str, object], name: str) -> int | None:
    """A field of a JSON object if it is a whole number that can be a size."""
    value = record.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
