"""A Dragonfly manager with a scheduler and seed peers behind it, as an ``httpx.MockTransport`` handler.

It speaks as manager v2.5.1 does: states that lag behind (the manager looks at 0, 30, 90, 210, 450... seconds), jobs
that a restart orphans, SUCCESS without downloads, error bodies of every kind, arguments repeated with their secrets.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx

from modelswarm.backends.dragonfly.taskid import digest_task_id, url_task_id

URL = "http://manager:8080"
TOKEN = "pat-1"
LOOKS = (0, 30, 90, 210, 450)


class Crash(Exception):
    """The operator dies here."""


@dataclass
class Record:
    """A row of the manager's table, and what really goes on behind it."""

    id: int
    body: dict[str, Any]
    created: datetime
    updated: datetime
    over_after: float
    urls: list[str]
    state: str = "PENDING"
    result: dict[str, Any] | None = None
    polled: int = 0
    orphan: bool = False

    @property
    def args(self) -> dict[str, Any]:
        args: dict[str, Any] = self.body["args"]
        return args


@dataclass
class FakeManager:
    clock: Callable[[], datetime]
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    schedulers: set[int] = field(default_factory=lambda: {1, 2})
    seeds: bool = True
    knows_digest_ids: bool = False
    seconds: float = 1.0
    """How long a job takes."""
    slow: dict[str, float] = field(default_factory=dict)
    """URL → seconds, where longer than the others."""
    errors: dict[str, str] = field(default_factory=dict)
    """URL → what the seed peer says instead of downloading it."""
    silent: set[str] = field(default_factory=set)
    """URLs that are not downloaded, without anybody saying so."""
    blobs: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(manifest URL, platform) → blob URLs."""
    answer: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
    """Answers instead of the manager where it likes."""
    crash_at: tuple[int, str] | None = None
    """Die at the n-th request, 'before' or 'after' the manager has worked on it."""
    jobs: dict[int, Record] = field(default_factory=dict)
    made: list[Record] = field(default_factory=list)
    """Every preheat job that was ever made and could bring something."""
    requests: list[httpx.Request] = field(default_factory=list)
    nobody: set[int] = field(default_factory=set)
    """Jobs for addresses that no seed peer has."""
    cached: set[str] = field(default_factory=set)
    next_id: int = 1

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))

    def restart(self) -> None:
        """Whatever is pending stays so for ever."""
        for record in self.jobs.values():
            record.orphan = record.state == "PENDING"

    def has(self, task_id: str) -> bool:
        """What a seed peer would say of itself just now."""
        for job in self.jobs.values():
            if self._is_preheat(job):
                self._outcome(job, (self.clock() - job.created).total_seconds())
        return task_id in self.cached

    def live(self) -> list[Record]:
        return [record for record in self.jobs.values() if record.state == "PENDING" and self._is_preheat(record)]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        number = len(self.requests)
        if self.crash_at == (number, "before"):
            raise Crash
        response = self.answer(request) or self._respond(request)
        if self.crash_at == (number, "after"):
            raise Crash
        return response

    def _respond(self, request: httpx.Request) -> httpx.Response:
        parts = request.url.path.strip("/").split("/")
        if parts[:3] != ["oapi", "v1", "jobs"]:
            return httpx.Response(301, headers={"Location": "/"}, text="<html></html>")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return httpx.Response(401, json={"message": "Unauthorized"})
        for record in self.jobs.values():
            self._poll(record)
        if len(parts) == 4:
            return self._one(request.method, int(parts[3]))
        return self._make(json.loads(request.content)) if request.method == "POST" else self._list(request.url.params)

    def _one(self, method: str, number: int) -> httpx.Response:
        record = self.jobs.get(number)
        if record is None:
            return httpx.Response(404, json={"message": "record not found"})
        if method == "DELETE":
            del self.jobs[number]
            return httpx.Response(200)
        return httpx.Response(200, json=self._show(record))

    def _list(self, query: httpx.QueryParams) -> httpx.Response:
        size, page = int(query.get("per_page", "10")), int(query.get("page", "1"))
        kind = query.get("type")
        found = [record for record in self.jobs.values() if kind is None or record.body["type"] == kind]
        found.sort(key=lambda record: (record.created, record.id), reverse=True)
        shown = found[(page - 1) * size : page * size]
        return httpx.Response(200, json=[self._show(record) for record in shown])

    def _make(self, body: dict[str, Any]) -> httpx.Response:
        args, clusters = body["args"], body["scheduler_cluster_ids"]
        if not isinstance(args.get("timeout"), int):
            return httpx.Response(422, text='{"errors":"cannot unmarshal string"}{"errors":"again"}')
        if len(body["bio"]) > 1024:
            return httpx.Response(500, json={"message": "Internal Server Error"})
        if not self.schedulers.intersection(clusters):
            return httpx.Response(500, json={"message": "candidate schedulers not found"})
        urls = list(args.get("urls", []))
        if args.get("type") == "image":
            key = (args["url"], args["platform"])
            if key not in self.blobs:
                message = f"no matching manifest for platform {args['platform']}"
                return httpx.Response(500, json={"message": message})
            urls = self.blobs[key]
        if not self.knows_digest_ids:
            args = {k: v for k, v in args.items() if k != "enable_task_id_based_blob_digest"}
        if args.get("ips"):
            self.nobody.add(self.next_id)
        now = self.clock()
        seconds = max([self.seconds, *(self.slow.get(url, 0.0) for url in urls)])
        record = Record(self.next_id, {**body, "args": args}, now, now, seconds, urls)
        self.next_id += 1
        self.jobs[record.id] = record
        if self._is_preheat(record) and record.id not in self.nobody:
            self.made.append(record)
        shown = self._show(record)
        self._poll(record)
        return httpx.Response(200, json=shown)

    @staticmethod
    def _is_preheat(record: Record) -> bool:
        return bool(record.body["type"] == "preheat")

    def _show(self, record: Record) -> dict[str, Any]:
        return {
            **record.body,
            "id": record.id,
            "created_at": record.created.isoformat(),
            "updated_at": record.updated.isoformat(),
            "is_del": 0,
            "task_id": f"group_{record.id}",
            "state": record.state,
            "result": record.result,
            "user_id": 0,
            "scheduler_clusters": None,
        }

    def _poll(self, record: Record) -> None:
        """The manager's looks at this job that are due."""
        age = (self.clock() - record.created).total_seconds()
        while record.state == "PENDING" and not record.orphan and (look := self._look(record.polled)) <= age:
            record.polled += 1
            record.updated = record.created + timedelta(seconds=look)
            state, states = self._outcome(record, look)
            record.state, record.result = state, {"state": state, "group_uuid": "group_x", "job_states": states}

    @staticmethod
    def _look(number: int) -> float:
        return LOOKS[number] if number < len(LOOKS) else LOOKS[-1] + 300 * (number - len(LOOKS) + 1)

    def _outcome(self, record: Record, age: float) -> tuple[str, list[dict[str, Any]]]:
        if not self._is_preheat(record):
            return self._found(record, age)
        if record.id in self.nobody:
            return "FAILURE", [self._failure("no peer found for ips")]
        done = [url for url in record.urls if self.seeds and age >= max(self.seconds, self.slow.get(url, 0.0))]
        done = [url for url in done if url not in self.errors and url not in self.silent]
        self.cached.update(self._ids(record, done))
        if age < record.over_after:
            return "PENDING", [{"state": "STARTED", "error": "", "results": None}]
        failed = [url for url in record.urls if url in self.errors]
        if not self.seeds:
            return "FAILURE", [self._failure("cluster 1 scheduler 10.0.0.2 no available seed peer")]
        if failed and record.args["scope"] == "all_seed_peers":
            # One seed peer: its failure takes all its successes along.
            number = self._ids(record, failed)[0]
            error = f"task {number} failed: rpc error: code = Internal desc = {self.errors[failed[0]]}"
            nobody = "00000000-0000-0000-0000-000000000000"
            prefix = f"all peers preheat failed: group_{nobody} task_{nobody} 10.0.0.3 seed-0"
            return "FAILURE", [self._failure(f"{prefix} {error}")]
        success = [{"url": url, "hostname": "seed-0", "ip": "10.0.0.3"} for url in done]
        results = [{"scheduler_cluster_id": 1, "success_tasks": success or None, "failure_tasks": None}]
        return "SUCCESS", [{"state": "SUCCESS", "error": "", "results": results}]

    def _found(self, record: Record, age: float) -> tuple[str, list[dict[str, Any]]]:
        held = self.has(record.args["task_id"])
        if age < 1:
            return "PENDING", []
        peer = {"id": "x", "host_type": "super", "IsFinished": held}
        return "SUCCESS", [{"state": "SUCCESS", "error": "", "results": [{"peers": [peer]}]}]

    @staticmethod
    def _failure(error: str) -> dict[str, Any]:
        return {"state": "FAILURE", "error": error, "results": None}

    def _ids(self, record: Record, urls: list[str]) -> list[str]:
        digest = record.args.get("enable_task_id_based_blob_digest")
        names = {"tag": record.args.get("tag", ""), "application": record.args.get("application", "")}
        return [(digest_task_id(url) if digest else None) or url_task_id(url, **names) for url in urls]
