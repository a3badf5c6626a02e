"""What was asked and sent, so that a test can say how often the origin was read."""

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dev.hub.answers import JsonValue, Kind


@dataclass(slots=True)
class Tally:
    """Sums over requests.

    `bytes` are body bytes handed to the socket; `content` are those among them that are bytes of a
    repository's files and not JSON, redirects or error pages. `errors` are statuses of 400 and above.
    """

    requests: int = 0
    ranges: int = 0
    bytes: int = 0
    content: int = 0
    errors: int = 0

    def add(self, other: "Tally") -> None:
        self.requests += other.requests
        self.ranges += other.ranges
        self.bytes += other.bytes
        self.content += other.content
        self.errors += other.errors

    def to_json(self) -> dict[str, JsonValue]:
        return {
            "requests": self.requests,
            "ranges": self.ranges,
            "bytes": self.bytes,
            "content": self.content,
            "errors": self.errors,
        }

    def sent(self, count: int, *, content: bool) -> None:
        """Add `count` body bytes."""
        self.bytes += count
        if content:
            self.content += count


@dataclass(slots=True)
class Flight:
    """One response with bytes of a file: which (``first`` to before ``stop``), and from when to when (monotonic)."""

    name: str
    first: int
    stop: int
    began: float
    ended: float | None = None

    def shares(self, other: "Flight", now: float) -> tuple[int, float]:
        """Bytes that both were about, and for how many seconds at once."""
        count = min(self.stop, other.stop) - max(self.first, other.first)
        ends = (now if flight.ended is None else flight.ended for flight in (self, other))
        return max(0, count), max(0.0, min(ends) - max(self.began, other.began))


class Counters:
    """Tallies by kind, file and client; safe to read while the server runs in another thread.

    A file's name is its repository and path, the same on the hub and on the CDN; other requests go by
    their path. A client is what it calls itself in `X-Client`, else its address.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[tuple[Kind, str, str], Tally] = {}
        self._flights: list[Flight] = []
        self._active = 0
        self._peak = 0

    def open(self, kind: Kind, name: str, client: str, *, ranged: bool, error: bool) -> Tally:
        """Count a request and return the tally its bytes go to; `close` it when the response is over."""
        with self._lock:
            tally = self._tallies.setdefault((kind, name, client), Tally())
            tally.add(Tally(requests=1, ranges=int(ranged), errors=int(error)))
            self._active += 1
            self._peak = max(self._peak, self._active)
            return tally

    def close(self) -> None:
        with self._lock:
            self._active -= 1

    def take_off(self, name: str, window: range) -> Flight:
        """Bytes of a file are going out; ``land`` it when no more will."""
        flight = Flight(name, window.start, window.stop, time.monotonic())
        with self._lock:
            self._flights.append(flight)
        return flight

    @staticmethod
    def land(flight: Flight) -> None:
        flight.ended = time.monotonic()

    def twice_at_once(self, name: str = "*", *, seconds: float = 0.5) -> list[tuple[Flight, Flight]]:
        """Pairs of responses that were about the same bytes at the same time, for longer than ``seconds``.

        A connection that its client has left counts until the server has noticed.
        """
        now = time.monotonic()
        with self._lock:
            flights = sorted(
                (flight for flight in self._flights if fnmatchcase(flight.name, name)), key=lambda each: each.name
            )
        found: list[tuple[Flight, Flight]] = []
        for _, group in itertools.groupby(flights, key=lambda each: each.name):
            for one, other in itertools.combinations(group, 2):
                count, together = one.shares(other, now)
                if count and together > seconds:
                    found.append((one, other))
        return found

    @property
    def active(self) -> int:
        """Responses under way."""
        return self._active

    @property
    def peak(self) -> int:
        """The most responses that were ever under way at once."""
        return self._peak

    def total(self, kind: Kind | str | None = None, name: str = "*", client: str = "*") -> Tally:
        """The sum over all requests of a kind whose file name and client fit the shell patterns."""
        result = Tally()
        with self._lock:
            for (its_kind, its_name, its_client), tally in self._tallies.items():
                if kind in (None, its_kind) and fnmatchcase(its_name, name) and fnmatchcase(its_client, client):
                    result.add(tally)
        return result

    def reset(self) -> None:
        with self._lock:
            self._tallies.clear()
            self._flights.clear()
            self._peak = self._active

    def to_json(self) -> dict[str, JsonValue]:
        kinds: dict[str, JsonValue] = {kind: self.total(kind).to_json() for kind in Kind}
        rows: Sequence[JsonValue]
        with self._lock:
            rows = [
                {"kind": kind, "name": name, "client": client, **tally.to_json()}
                for (kind, name, client), tally in sorted(self._tallies.items(), key=lambda item: item[0])
            ]
        return {
            "total": self.total().to_json(),
            "peak": self.peak,
            "active": self.active,
            "kinds": kinds,
            "files": rows,
        }
