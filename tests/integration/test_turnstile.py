"""The operator serves permits to loaders: the leader does, a standby does not."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dev.controlplane import ControlPlane
from dev.installation import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess, install
from dev.process import free_port
from tests.integration.support import eventually

PERMIT = "/permits/0123456789abcdef"


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as running:
        install(running)
        yield running


def test_the_leader_has_permits_and_the_standby_has_not(own_cluster: ControlPlane, tmp_path: Path) -> None:
    kubeconfig = own_cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
    ports = free_port(), free_port()
    first, second = (
        OperatorProcess(
            kubeconfig,
            tmp_path / f"{port}.log",
            arguments=["--turnstile-url=http://modelswarm-turnstile", f"--turnstile-port={port}", "--origin-readers=1"],
        )
        for port in ports
    )
    with contextlib.ExitStack() as running:
        client = running.enter_context(httpx.Client(trust_env=False, timeout=60))
        running.enter_context(first)
        first.wait_leading()
        running.enter_context(second)  # not earlier, or it may lead
        eventually(lambda: second.state() == "standing by", 20)

        def ask(port: int, permit: str = PERMIT, *, holding: bool = False) -> httpx.Response:
            return client.post(f"http://127.0.0.1:{port}{permit}", json={"holding": holding, "waited": 0})

        assert ask(ports[1]).status_code == 503
        assert ask(ports[0], holding=True).json()["granted"], "it reads already"
        answer = ask(ports[0], PERMIT + "-2").json()
        assert (answer["granted"], answer["position"]) == (False, 1)
        assert "modelswarm_origin_readers 1.0" in first.metrics()
        assert "modelswarm_origin_readers_waiting 1.0" in first.metrics()
        assert "modelswarm_origin_readers 0.0" in second.metrics()


def test_without_a_url_nothing_is_served(own_cluster: ControlPlane, tmp_path: Path) -> None:
    kubeconfig = own_cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT)
    port = free_port()
    with OperatorProcess(kubeconfig, tmp_path / "log", arguments=[f"--turnstile-port={port}"]) as operator:
        operator.wait_leading()
        with httpx.Client(trust_env=False) as client, pytest.raises(httpx.ConnectError):
            client.post(f"http://127.0.0.1:{port}{PERMIT}", json={})
        assert "modelswarm_origin_readers" not in operator.metrics()
