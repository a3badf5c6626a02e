"""An HTTP proxy in front of a real manager that goes wrong on demand, and remembers what was asked.

with FaultProxy(stack.manager_url) as proxy:
    proxy.fail(Route.SUBMIT, lose_answer(), mentions="org/model", times=1)     # the job exists, nobody knows
    proxy.fail(Route.ANY, answer(301, headers={"Location": "/"}))
    proxy.count(Route.SUBMIT, mentions="org/model")

What is not told to go wrong goes to the manager and back unchanged. Where the manager cannot be reached the proxy
breaks the connection off; ``close`` and ``open`` are for a manager that refuses connections.
"""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import httpx

from dev.process import LOOPBACK, free_port

_LONGEST_HOLD = 120.0
_PASSED_ON = frozenset({"authorization", "content-type", "accept"})
_JOB = re.compile(r"/oapi/v1/jobs/(\d+)$")


class Route(StrEnum):
    """What is asked of a manager, as far as anybody here asks it."""

    SUBMIT = "POST preheat"
    PROBE = "POST get_task"
    JOB = "GET job"
    LIST = "GET jobs"
    DELETE = "DELETE job"
    OTHER = "other"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of one request. Without a ``status`` the manager's own answer is given, where there is one."""

    forward: bool = True
    """Whether the manager gets the request."""
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before anything happens."""
    cut: bool = False
    """The connection is closed instead of an answer."""
    hold: threading.Event | None = None
    """Set by whoever lets the answer go out."""
    before: Callable[[], object] | None = None
    """Called when the request is there and the manager does not know of it."""
    after: Callable[[], object] | None = None
    """Called when the manager has answered and nobody knows of it."""


def answer(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Fault:
    """This, and the manager never hears of the request."""
    return Fault(forward=False, status=status, body=body, headers=headers or {})


def cut() -> Fault:
    """The connection is closed, and the manager never hears of the request."""
    return Fault(forward=False, cut=True)


def lose_answer() -> Fault:
    """The manager does what is asked, and the connection is closed instead of its answer."""
    return Fault(cut=True)


def slow(seconds: float) -> Fault:
    return Fault(delay=seconds)


def held(until: threading.Event) -> Fault:
    """The manager does what is asked, and its answer waits."""
    return Fault(hold=until)


def garbage() -> Fault:
    """A success that is no answer of a manager."""
    return answer(200, b"<html><body>It works!</body></html>", {"Content-Type": "text/html"})


@dataclass(slots=True)
class Rule:
    """A fault and the requests that it strikes: of a route, about jobs that mention a text, the first ``times``."""

    route: Route
    fault: Fault
    mentions: str = ""
    times: int | None = None
    hits: int = 0

    def strikes(self, seen: "Seen") -> bool:
        fits = self.route in (Route.ANY, seen.route) and self.mentions in seen.about
        return fits and (self.times is None or self.hits < self.times)


@dataclass(slots=True)
class Seen:
    """A request. ``about`` is the body of the POST that made the job which is asked about, or its own body."""

    route: Route
    path: str
    about: str
    forwarded: bool = False
    status: int | None = None
    """What the manager said."""


class FaultProxy:
    """The proxy on a loopback port that stays the same; a context manager."""

    def __init__(self, manager_url: str) -> None:
        self._target = manager_url
        self._port = free_port()
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._seen: list[Seen] = []
        self._about: dict[str, str] = {}
        self._server: _Server | None = None
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=0)
        self._client = httpx.Client(timeout=90, trust_env=False, limits=limits)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()
        self._client.close()

    def open(self) -> None:
        if self._server is None:
            self._server = _Server((LOOPBACK, self._port), _handler(self))
            threading.Thread(target=self._server.serve_forever, args=(0.05,), name="fault-proxy", daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on. Harmless when closed."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    # Going wrong

    def fail(self, route: Route, fault: Fault, *, mentions: str = "", times: int | None = None) -> Rule:
        """The first rule that strikes decides; rules that are used up are passed over."""
        rule = Rule(route, fault, mentions, times)
        with self._lock:
            self._rules.append(rule)
        return rule

    def heal(self, rule: Rule | None = None) -> None:
        """Take back one rule, or all."""
        with self._lock:
            self._rules = [other for other in self._rules if rule is not None and other is not rule]

    # What was asked

    def seen(self, route: Route = Route.ANY, *, mentions: str = "") -> list[Seen]:
        with self._lock:
            return [seen for seen in self._seen if route in (Route.ANY, seen.route) and mentions in seen.about]

    def count(self, route: Route = Route.ANY, *, mentions: str = "") -> int:
        return len(self.seen(route, mentions=mentions))

    def made(self, *, mentions: str = "") -> list[Seen]:
        """The preheat jobs that the manager made, whoever got to know of them."""
        return [seen for seen in self.seen(Route.SUBMIT, mentions=mentions) if seen.status == httpx.codes.OK]

    # One request

    def _serve(self, request: "_Request") -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        seen = Seen(_route(request.command, request.path, body), request.path, self._subject(request.path, body))
        with self._lock:
            self._seen.append(seen)
            rule = next((rule for rule in self._rules if rule.strikes(seen)), None)
            if rule is not None:
                rule.hits += 1
        fault = rule.fault if rule is not None else Fault()
        if fault.delay:
            threading.Event().wait(fault.delay)
        if fault.before is not None:
            fault.before()
        answered = self._forward(request, body, seen) if fault.forward else None
        if fault.after is not None:
            fault.after()
        if fault.hold is not None:
            fault.hold.wait(_LONGEST_HOLD)
        if fault.cut or (fault.status is None and answered is None):
            request.close_connection = True
        elif fault.status is not None:
            request.reply(fault.status, fault.body, fault.headers)
        elif answered is not None:
            headers = {
                name: answered.headers[name] for name in ("Content-Type", "Location") if name in answered.headers
            }
            request.reply(answered.status_code, answered.content, headers)

    def _forward(self, request: "_Request", body: bytes, seen: Seen) -> httpx.Response | None:
        headers = {name: value for name, value in request.headers.items() if name.lower() in _PASSED_ON}
        seen.forwarded = True
        try:
            answered = self._client.request(
                request.command, f"{self._target}{request.path}", content=body, headers=headers
            )
        except httpx.HTTPError:
            return None
        seen.status = answered.status_code
        if request.command == "POST" and answered.status_code == httpx.codes.OK:
            with self._lock:
                self._about[str(answered.json()["id"])] = seen.about
        return answered

    def _subject(self, path: str, body: bytes) -> str:
        match = _JOB.match(path)
        with self._lock:
            return self._about.get(match[1], "") if match else body.decode(errors="replace")


def _route(method: str, path: str, body: bytes) -> Route:
    plain = path.partition("?")[0]
    match method, bool(_JOB.match(plain)):
        case "GET", True:
            return Route.JOB
        case "DELETE", True:
            return Route.DELETE
        case "GET", False if plain == "/oapi/v1/jobs":
            return Route.LIST
        case "POST", False if plain == "/oapi/v1/jobs":
            with contextlib.suppress(ValueError):
                return Route.PROBE if json.loads(body).get("type") == "get_task" else Route.SUBMIT
    return Route.OTHER


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, as a killed operator does, is nothing to tell of."""


class _Request(BaseHTTPRequestHandler):
    # One request per connection, so that a closed proxy has no connection left that still works.
    protocol_version = "HTTP/1.0"
    proxy: FaultProxy

    def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _serve(self) -> None:
        self.proxy._serve(self)

    do_GET = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests ask for what was seen."""


def _handler(proxy: FaultProxy) -> type[_Request]:
    return type("_BoundRequest", (_Request,), {"proxy": proxy})
