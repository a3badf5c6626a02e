"""The swarm on a network of known speed: ``make bench-swarm``, or ``python -m dev.bench.swarm --help``.

Every node, and the origin, is a namespace of its own whose link is shaped both ways. Nodes run the real agent, above
them the operator and an API server; in the same run every node downloads everything over plain HTTP, for comparison.
``--programs swarm`` runs the agent's data plane alone. All files of all nodes are hashed afterwards, outside the
timing.
"""

import argparse
import contextlib
import hashlib
import json
import shutil
import socket
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import httpx
from aiohttp import web

from dev.bench import swarm_unshaped
from dev.bench.swarm_agents import CONTROL, agents_on, usage
from dev.bench.swarm_plan import MIB, MODELS, NodeResult, Plan, Program
from dev.bench.swarm_report import Run, table, to_json, verdicts
from dev.bench.swarm_unshaped import BareFailed, Speed, measure
from dev.installation import ROOT
from dev.netns import MBIT, NetnsUnavailable, Network, Traffic, require_netns
from dev.process import Child
from modelswarm.agent.swarm.settings import DISK_THREADS

ORIGIN = "origin"
ORIGIN_PORT = 80


class BenchFailed(RuntimeError):
    """A node ended without a result, or has other bytes than the origin."""


def main() -> int:
    options = _parser().parse_args()
    if options.unshaped:
        return _unshaped(options)
    try:
        require_netns()
    except NetnsUnavailable as error:
        print(f"SKIPPED: {error}", file=sys.stderr)
        return 1
    runs: list[Run] = []
    try:
        with tempfile.TemporaryDirectory(prefix="modelswarm-swarm-", dir=options.scratch) as scratch:
            for model in options.models:
                source = _make_model(Path(scratch, model), MODELS[model])
                for rate in options.rates:
                    for nodes in options.nodes:
                        for program in options.programs:
                            runs.append(_run(options, source, model, rate, nodes, Program(program)))
                            print(table(runs[-1:]), flush=True)
                shutil.rmtree(source)
    except (BenchFailed, NetnsUnavailable) as error:
        print(f"bench FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{table(runs)}\n")
    found = verdicts(runs)
    print("\n".join(found) or "no run counts: the machine was too busy, or there were not eight nodes")
    if options.json:
        options.json.write_text(json.dumps(to_json(runs), indent=2) + "\n")
    return 1 if any("MISSED" in line for line in found) else 0


def _unshaped(options: argparse.Namespace) -> int:
    speeds: list[Speed] = []
    with tempfile.TemporaryDirectory(prefix="modelswarm-swarm-", dir=options.scratch) as scratch:
        source = _make_model(Path(scratch, "model"), MODELS[options.models[0]])
        for nodes in options.nodes:
            try:
                speeds += measure(
                    source, MODELS[options.models[0]], max(nodes - 1, 1), options.rounds, options.disk_threads
                )
            except BareFailed as error:
                print(f"bench FAILED: {error}", file=sys.stderr)
                return 1
            print(f"{swarm_unshaped.table(speeds)}\n", flush=True)
    found = swarm_unshaped.verdicts(speeds)
    print("\n".join(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(speed) for speed in speeds], indent=2) + "\n")
    return 1 if any("MISSED" in line for line in found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.bench.swarm", description="Measure the swarm.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N")
    parser.add_argument("--rates", type=int, nargs="+", default=[50, 100, 200], metavar="MBIT", help="0: unshaped")
    parser.add_argument("--origin-factor", type=float, default=1.0, help="the origin's link, in multiples of a node's")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=["270MB"])
    parser.add_argument("--programs", nargs="+", choices=[each.value for each in Program], default=["agents", "http"])
    parser.add_argument("--segment", type=float, default=1.0, metavar="MIB", help="read from the origin at a time")
    parser.add_argument("--unshaped", action="store_true", help="on loopback, as fast as it goes, against libtorrent")
    parser.add_argument("--rounds", type=int, default=3, help="with --unshaped: how often (default %(default)s)")
    parser.add_argument("--disk-threads", type=int, default=DISK_THREADS, help="not of agents (default %(default)s)")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds for one run (default %(default)s)")
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"), help="directory for all nodes' files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def _run(options: argparse.Namespace, source: Path, model: str, mbit: int, count: int, program: Program) -> Run:
    names = [f"n{number}" for number in range(1, count + 1)]
    rate = mbit * MBIT or None
    origin_rate = int(rate * options.origin_factor) if rate else None
    scratch = Path(tempfile.mkdtemp(prefix="run-", dir=source.parent))
    with Network([ORIGIN, CONTROL, *names], rates={ORIGIN: origin_rate, **dict.fromkeys(names, rate)}) as net:
        plan = Plan(
            program,
            [(name, net.address(name)) for name in names],
            MODELS[model],
            f"http://{net.address(ORIGIN)}:{ORIGIN_PORT}",
            scratch,
            int(options.segment * MIB),
            options.disk_threads,
        )
        spread = _spread_by_agents if program is Program.AGENTS else _spread
        results, traffic, share, body, sending = spread(net, plan, source, options.timeout)
    shutil.rmtree(scratch)
    times = [result.finished - result.began for result in results]
    return Run(
        program=program,
        model=model,
        total=plan.total,
        nodes=count,
        rate=rate,
        origin_rate=origin_rate,
        first=min(times),
        last=max(times),
        origin_bytes=body,
        upload=max(traffic[name].sent for name in names),
        cpu=sum(result.cpu for result in results),
        loop_cpu=sum(result.loop_cpu for result in results),
        origin_cpu=sending,
        busy=share,
        memory=max(result.memory for result in results),
        windows=max(result.windows for result in results),
        troubles=sum(len(result.troubles) for result in results),
    )


Spread = tuple[list[NodeResult], dict[str, Traffic], float, int, float | None]
"""What the nodes say, what their links carried, the share of the machine that was busy, the origin's body bytes, and
its CPU seconds (of the server below; not of the hub stand-in, which does more than to send)."""


def _spread_by_agents(net: Network, plan: Plan, source: Path, timeout: float) -> Spread:
    nodes = [name for name, _ in plan.nodes]
    with agents_on(net, ORIGIN, nodes, source, plan.directory) as agents:
        before, busy = net.traffic(), _machine()
        try:
            results = agents.spread(timeout)
        except TimeoutError as error:
            raise BenchFailed(str(error)) from error
        share = _busy_share(busy, _machine())
        traffic = {name: counted - before[name] for name, counted in net.traffic().items()}
        body = _body_bytes(net, plan)
        _verify(source, agents.directories(), plan.files)
    return results, traffic, share, body, None


def _spread(net: Network, plan: Plan, source: Path, timeout: float) -> Spread:
    scratch = plan.directory
    (scratch / "plan.json").write_text(plan.dump())
    python: list[str | Path] = [sys.executable, "-m"]
    environment = {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
    origin: list[str | Path] = [*python, "dev.bench.swarm", "serve", source, net.address(ORIGIN)]
    server = net.popen(ORIGIN, origin, log=scratch / "origin.log", env=environment)
    _wait_listening(net, server)
    before, busy, sending = net.traffic(), _machine(), usage(server).cpu
    children: dict[Path, Child] = {}
    for name, _ in plan.nodes:
        result = scratch / f"{name}.json"
        argv = [*python, "dev.bench.swarm_node", scratch / "plan.json", name, result]
        children[result] = net.popen(name, argv, log=scratch / f"{name}.log", env=environment)
    _wait(children, timeout)
    share, sending = _busy_share(busy, _machine()), usage(server).cpu - sending
    traffic = {name: counted - before[name] for name, counted in net.traffic().items()}
    body = _body_bytes(net, plan)
    _verify(source, [scratch / name for name, _ in plan.nodes], plan.files)
    results = [NodeResult(**json.loads((scratch / f"{name}.json").read_text())) for name, _ in plan.nodes]
    return results, traffic, share, body, sending


def _body_bytes(net: Network, plan: Plan) -> int:
    """The bytes of files that the origin has sent, as the hub stand-in counts them, and the server below."""
    with net.entered(CONTROL):
        found = httpx.get(f"{plan.origin}/_stats", timeout=30, trust_env=False).raise_for_status().json()
    return int(found["total"]["content"])


def _wait_listening(net: Network, server: Child) -> None:
    end = time.monotonic() + 30
    with net.entered(ORIGIN):
        while True:
            with contextlib.suppress(OSError), socket.create_connection((net.address(ORIGIN), ORIGIN_PORT), timeout=1):
                return
            if not server.running or time.monotonic() > end:
                raise BenchFailed(f"the origin does not listen:\n{server.log_tail(20)}")
            time.sleep(0.05)


def _wait(children: dict[Path, Child], timeout: float) -> None:
    """Until every child has left its result; a child that ended without one ends the wait."""
    end = time.monotonic() + timeout
    while waiting := {result: child for result, child in children.items() if child.running or not result.exists()}:
        for child in waiting.values():
            if not child.running or time.monotonic() > end:
                raise BenchFailed(f"{child.name} has no result:\n{child.log_tail(20)}")
        time.sleep(0.1)


def _make_model(directory: Path, files: dict[str, int]) -> Path:
    directory.mkdir()
    with open("/dev/urandom", "rb") as random:
        for name, size in files.items():
            with (directory / name).open("wb") as file:
                for at in range(0, size, 16 * MIB):
                    file.write(random.read(min(16 * MIB, size - at)))
    return directory


def _verify(source: Path, directories: list[Path], files: dict[str, int]) -> None:
    for name in files:
        right = _digest(source / name)
        for directory in directories:
            if _digest(directory / name) != right:
                raise BenchFailed(f"{directory.name} has other bytes in {name} than the origin")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _machine() -> tuple[int, int]:
    """All and idle time of the machine, in ticks."""
    ticks = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


def _busy_share(before: tuple[int, int], after: tuple[int, int]) -> float:
    return 1 - (after[1] - before[1]) / max(after[0] - before[0], 1)


def _serve(directory: Path, address: str) -> None:
    """The origin: files with Range, sent by the kernel."""
    sent = 0

    async def stats(request: web.Request) -> web.Response:
        return web.json_response({"total": {"content": sent}})

    async def count(request: web.Request, response: web.StreamResponse) -> None:
        nonlocal sent
        if request.path != "/_stats":
            sent += response.content_length or 0

    app = web.Application()
    app.on_response_prepare.append(count)
    app.router.add_get("/_stats", stats)
    app.router.add_static("/", directory)
    web.run_app(app, host=address, port=ORIGIN_PORT, access_log=None, print=None)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _serve(Path(sys.argv[2]), sys.argv[3])
    else:
        sys.exit(main())
