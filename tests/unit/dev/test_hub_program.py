"""The stand-in as a program of its own, driven over HTTP."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

import httpx
import pytest

from dev.hub import make_model
from dev.hub.__main__ import find_repositories, parse_arguments, parse_size

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("text", "size"),
    [("5MB", 5_000_000), ("64KiB", 65_536), ("1.5G", 1_500_000_000), ("42", 42), ("2mib", 2 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_size_that_is_none() -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_size("fast")


def test_folders_are_repositories(tmp_path: Path) -> None:
    for file in ("org/one/config.json", "org/two/config.json", "plain/config.json", ".hidden/x/config.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("{}")
    assert [id for id, _ in find_repositories(tmp_path)] == ["org/one", "org/two", "plain"]


def test_arguments() -> None:
    options = parse_arguments(["--root", ".", "--rate", "5MB", "--token", "a=org/*", "--token", "b"])
    assert (options.rate, options.token, options.host) == (5_000_000, ["a=org/*", "b"], "127.0.0.1")


async def test_a_server_in_another_process(tmp_path: Path) -> None:
    make_model(tmp_path / "org" / "model", shards=2, shard_bytes=4000)
    arguments = ["-m", "dev.hub", "--root", str(tmp_path), "--gated", "org/model", "--token", "hf_a=org/*"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=PROJECT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        ready = json.loads(await process.stdout.readline())
        await drive(ready)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def drive(ready: dict[str, str | dict[str, str]]) -> None:
    heads = ready["repositories"]
    assert isinstance(heads, dict)
    token = {"Authorization": "Bearer hf_a"}
    async with httpx.AsyncClient(base_url=str(ready["url"]), headers=token) as client:
        assert (await client.get("/api/models/org/model")).json()["sha"] == heads["org/model"]
        file = "/org/model/resolve/main/config.json"
        assert (await client.get(file)).status_code == 200

        rule = {"fault": "server-error", "status": 500, "path": "config.json", "times": 1}
        assert (await client.post("/_faults", json=rule)).status_code == 200
        assert (await client.get(file)).status_code == 500
        assert (await client.get("/_faults")).json()["faults"][0]["hits"] == 1
        assert (await client.post("/_faults", json={"fault": "gremlin"})).status_code == 400
        assert (await client.delete("/_faults")).json() == {"faults": []}

        move = {"repository": "org/model", "revision": "main", "files": {"config.json": "[]"}}
        moved = (await client.post("/_move", json=move)).json()
        assert (await client.get(file)).text == "[]"
        assert (await client.get("/_repositories")).json() == {"org/model": {"main": moved["commit"]}}
        back = {"repository": "org/model", "revision": heads["org/model"]}
        assert (await client.post("/_move", json=back)).json()["commit"] == heads["org/model"]
        assert (await client.post("/_move", json={**back, "repository": "org/absent"})).status_code == 404
        assert (await client.get("/_nonsense")).status_code == 404

        stats = (await client.get("/_stats")).json()
        assert stats["kinds"]["resolve"]["requests"] == 3, "administration is not counted"
        assert stats["leaked_tokens"] == 0
        await client.post("/_reset")
        assert (await client.get("/_stats")).json()["total"]["requests"] == 0
        assert (await client.delete("/_links")).status_code == 200
