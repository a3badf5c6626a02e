"""The operator under load: ``make bench-operator``, or ``python -m dev.bench.operator [--models N] [--json FILE]``.

Runs a control plane, a registry, the hub stand-in and the operator on this machine, all on the same cores; so do the
requests of the benchmark. Three questions: how long from nothing to everything (with distribution on and off), how long
from a task's Ready to the Deployment, and what is written when nothing happens.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import httpx

from dev.bench import objects, readings
from dev.bench.api import Api, RequestFailed
from dev.bench.converge import Convergence, DidNotConverge, converge, wait_quiet
from dev.bench.latency import measure
from dev.bench.objects import Sizes
from dev.bench.report import Idle, Report
from dev.binaries import BinaryUnavailable
from dev.controlplane import ControlPlane, KubectlFailed
from dev.hub import Hub, HubThread
from dev.installation import NAMESPACE, ROOT, SERVICE_ACCOUNT, OperatorProcess, install
from dev.process import Child, StartupFailed
from dev.registry import Registry


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)
    sizes = Sizes(options.models, options.playgrounds, options.runtimes, options.repositories)
    report = Report(sizes)
    try:
        if "on" in options.distribution:
            _with_distribution(options, report)
        if "off" in options.distribution:
            _without_distribution(options, report)
    except (DidNotConverge, RequestFailed, BinaryUnavailable, StartupFailed, KubectlFailed) as error:
        print(f"bench FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{report.text()}")
    if options.json:
        options.json.write_text(json.dumps(report.to_json(), indent=2) + "\n")
    return 1 if report.missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.bench.operator", description="Measure the operator.")
    for name, default, meaning in _NUMBERS:
        text = f"{meaning} (default %(default)s)"
        parser.add_argument(f"--{name}", type=type(default), default=default, metavar="N", help=text)
    parser.add_argument("--distribution", nargs="+", choices=("on", "off"), default=("on", "off"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="operator under cProfile, to FILE.on and FILE.off")
    return parser


_NUMBERS = (
    ("models", 1000, "OpenModels"),
    ("playgrounds", 1000, "Playgrounds"),
    ("runtimes", 10, "BackendRuntimes"),
    ("repositories", 50, "repositories of the hub"),
    ("concurrency", 16, "creates at once"),
    ("timeout", 600.0, "seconds to converge"),
    ("idle", 60.0, "seconds to watch it idle; 0: do not"),
    ("held", 300, "tasks to measure the latency with; 0: do not"),
    ("rate", 10.0, "of them a second"),
)


def _with_distribution(options: argparse.Namespace, report: Report) -> None:
    with _surroundings(options, distribution=True) as (cluster, operator, hub):
        asyncio.run(_measure_all(options, report, cluster, operator, hub))


async def _measure_all(
    options: argparse.Namespace, report: Report, cluster: ControlPlane, operator: OperatorProcess, hub: Hub
) -> None:
    report.on = await _converge(options, report, cluster, operator, distribution=True)
    if options.idle:
        _say(f"idle for {options.idle:g} s")
        report.idle = await _idle(cluster, operator, options.idle)
    if options.held:
        _say(f"letting {options.held} tasks go, {options.rate:g} a second")
        report.latency = await measure(
            cluster, operator, hub, count=options.held, rate=options.rate, runtimes=options.runtimes
        )


def _without_distribution(options: argparse.Namespace, report: Report) -> None:
    with _surroundings(options, distribution=False) as (cluster, operator, _):
        report.off = asyncio.run(_converge(options, report, cluster, operator, distribution=False))


async def _converge(
    options: argparse.Namespace, report: Report, cluster: ControlPlane, operator: OperatorProcess, *, distribution: bool
) -> Convergence:
    sizes = report.sizes
    _say(f"creating {sizes.models} OpenModels and {sizes.playgrounds} Playgrounds")
    async with Api(cluster) as api:
        await api.create_all((objects.RUNTIMES, runtime) for runtime in objects.runtimes(sizes))
    return await converge(
        cluster,
        operator,
        sizes,
        distribution=distribution,
        concurrency=options.concurrency,
        timeout=options.timeout,
    )


async def _idle(cluster: ControlPlane, operator: OperatorProcess, seconds: float) -> Idle:
    pid = operator.child.pid
    assert pid is not None
    await wait_quiet(operator, 10.0)
    before, cpu = readings.requests(cluster), readings.cpu_seconds(pid)
    await asyncio.sleep(seconds)
    return Idle(seconds, readings.requests(cluster) - before, readings.cpu_seconds(pid) - cpu)


@contextmanager
def _surroundings(
    options: argparse.Namespace, *, distribution: bool
) -> Iterator[tuple[ControlPlane, OperatorProcess, Hub]]:
    """A leading operator on an empty cluster. No kube-controller-manager: its work is not what is measured."""
    sizes = Sizes(options.models, options.playgrounds, options.runtimes, options.repositories)
    _say(f"starting, distribution {'on' if distribution else 'off'}")
    with (
        tempfile.TemporaryDirectory(prefix="modelswarm-bench-") as scratch,
        ControlPlane(controllers=False, scheduler=False, audit_log=True) as cluster,
        Registry() as registry,
        HubThread(Hub(*objects.repositories(Path(scratch, "hub"), sizes))) as hub,
    ):
        install(cluster)
        registry.push_image(objects.LOADER_IMAGE, objects.LOADER_TAG)
        for index in range(sizes.runtimes):
            registry.push_image(objects.engine_image(index), "v1")
        operator = _Operator(
            cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT),
            Path(scratch, "operator.log"),
            profile=options.profile and options.profile.with_suffix(f".{'on' if distribution else 'off'}"),
            arguments=[
                f"--registries=docker.io={registry.url}",
                f"--loader-image={objects.LOADER_IMAGE}:{objects.LOADER_TAG}",
                f"--distribution={str(distribution).lower()}",
            ],
            environment={"HF_ENDPOINT": hub.url},
        )
        with operator:
            operator.wait_leading()
            try:
                yield cluster, operator, hub.hub
            except (DidNotConverge, httpx.HTTPError) as error:
                running = "" if operator.child.running else "the operator ended; "
                raise DidNotConverge(f"{running}{error}; the end of its log:\n{operator.child.log_tail(20)}") from None


class _Operator(OperatorProcess):
    """The operator, on demand under cProfile."""

    def __init__(
        self, kubeconfig: Path, log: Path, *, profile: Path | None, arguments: list[str], environment: dict[str, str]
    ) -> None:
        super().__init__(kubeconfig, log, arguments=arguments, environment=environment)
        if profile is not None:
            self.child = Child(
                "operator",
                [
                    *(sys.executable, "-m", "dev.bench.profiled", str(profile.absolute()), "operator"),
                    f"--namespace={NAMESPACE}",
                    f"--health-port={self.health_port}",
                    f"--metrics-port={self.metrics_port}",
                    *arguments,
                ],
                log=log,
                env={
                    "KUBECONFIG": str(kubeconfig),
                    "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
                    "NO_PROXY": "127.0.0.1,localhost",
                    **environment,
                },
            )


_started = time.monotonic()


def _say(text: str) -> None:
    print(f"{time.monotonic() - _started:6.1f}  {text}", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
