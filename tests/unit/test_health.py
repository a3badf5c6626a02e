from collections.abc import AsyncIterator

import httpx
import pytest

from modelswarm.health import STUCK_SECONDS, Health


class Probe:
    """A running server, asked as the kubelet does."""

    def __init__(self) -> None:
        self.age = 0.0
        self.health = Health(lambda: self.age)
        self.port = 0

    async def get(self, path: str) -> tuple[int, str]:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"http://127.0.0.1:{self.port}{path}")
        return answer.status_code, answer.text


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    made = Probe()
    made.port = await made.health.start(0, "127.0.0.1")
    yield made
    await made.health.stop()


async def test_any_free_port_is_told(probe: Probe) -> None:
    assert probe.port > 0


@pytest.mark.parametrize(
    ("age", "status", "text"),
    [
        pytest.param(0, 200, "ok\n", id="idle"),
        pytest.param(STUCK_SECONDS, 200, "ok\n", id="a long reconcile"),
        pytest.param(STUCK_SECONDS + 1, 500, "a reconcile has been running for 301 s\n", id="a stuck reconcile"),
    ],
)
async def test_alive(probe: Probe, age: float, status: int, text: str) -> None:
    probe.age = age
    assert await probe.get("/healthz") == (status, text)


async def test_alive_says_nothing_about_being_ready(probe: Probe) -> None:
    assert (await probe.get("/healthz"))[0] == 200
    assert (await probe.get("/readyz"))[0] == 503


@pytest.mark.parametrize(
    ("ready", "state", "expected"),
    [
        pytest.param(False, "starting", (503, "starting\n"), id="starting"),
        pytest.param(True, "standing by", (200, "standing by\n"), id="a standby is ready"),
        pytest.param(True, "leading", (200, "leading\n"), id="leading"),
        pytest.param(False, "stopping", (503, "stopping\n"), id="stopping"),
    ],
)
async def test_ready(probe: Probe, ready: bool, state: str, expected: tuple[int, str]) -> None:
    probe.health.ready, probe.health.state = ready, state
    assert await probe.get("/readyz") == expected


async def test_nothing_else_is_served(probe: Probe) -> None:
    assert (await probe.get("/"))[0] == 404


async def test_stopping_what_never_started_is_fine() -> None:
    await Health(lambda: 0.0).stop()


async def test_a_stopped_server_is_gone() -> None:
    probe = Probe()
    probe.port = await probe.health.start(0, "127.0.0.1")
    await probe.health.stop()
    with pytest.raises(httpx.ConnectError):
        await probe.get("/healthz")
