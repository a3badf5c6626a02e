"""Dragonfly over links of a known speed: ``make bench-dragonfly``, or ``python -m dev.bench.dragonfly [--nodes N...]``.

Every node, the seeds and the origin are network namespaces with equal, shaped links; manager and scheduler have one of
their own that is not limited. The same model goes to all nodes at the same time: straight from the origin, through a
cold Dragonfly, and after a preheat, by bare dfget and by our loader. What is compared in one line is from one run of
this program. Needs root, iproute2 and what ``make dragonfly`` needs.
"""

import argparse
import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import httpx

from dev.bench.dragonfly_bed import MODEL, ORIGIN, Bed, Shape, open_bed
from dev.bench.dragonfly_fetch import (
    Command,
    FetchFailed,
    Order,
    Policy,
    arrange,
    bare_dfget,
    fetch_on_all,
    forget,
    loader,
    verify,
)
from dev.bench.dragonfly_ready import NotReady, measure_ready
from dev.bench.dragonfly_report import WAYS, Case, Measured, Report, describe
from dev.binaries import BinaryUnavailable
from dev.controlplane import KubectlFailed
from dev.dragonfly.builds import prepare
from dev.dragonfly.packages import PackagesMissing, ensure_packages
from dev.dragonfly.stack import DragonflyStack
from dev.hub import make_model
from dev.hub.__main__ import parse_size
from dev.netns import NetnsUnavailable, require_netns
from dev.netns_goodput import goodput
from dev.process import StartupFailed

FAILURES = (
    *(NetnsUnavailable, BinaryUnavailable, PackagesMissing, StartupFailed, FetchFailed, NotReady, KubectlFailed),
    *(httpx.HTTPError, TimeoutError, subprocess.TimeoutExpired),
)
SLOWEST = 3.0
"""A way may take so many times what it takes when every node, one after the other, reads a copy of its own."""


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)
    # dfdaemon hangs up on the origin whenever a peer turns out to have the rest.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    report = Report(
        {
            "shards": options.shards,
            "parallel": options.parallel,
            "order": options.order,
            "policy": options.policy,
            "runs": options.runs,
        }
    )
    try:
        require_netns()
        ensure_packages()
        prepare()
        with ExitStack() as stack:
            scratch = Path(tempfile.mkdtemp(prefix="ms-bench-", dir=options.scratch))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            _say(f"making a model of {options.shards} shards, {options.size:,} bytes")
            folder = make_model(scratch / "hub", shards=options.shards, shard_bytes=options.size // options.shards)
            for seeds in options.seeds:
                for nodes in options.nodes:
                    _case(options, Shape(nodes, seeds, options.rate), folder, scratch, report)
    except FAILURES as error:
        print(f"bench FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{report.text()}")
    if options.json:
        options.json.write_text(json.dumps(report.to_json(), indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.bench.dragonfly", description="Measure Dragonfly's engine.")
    add = parser.add_argument
    add("--size", type=parse_size, default=1 << 30, help="of the model, as in 1GiB (default 1GiB)")
    add("--shards", type=int, default=8, help="files that the size is divided into (default %(default)s)")
    add("--nodes", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="numbers of nodes (default 1 2 4)")
    add("--seeds", type=int, nargs="+", default=[1], metavar="N", help="numbers of seeds (default 1)")
    add("--rate", type=int, default=200, help="of every link, Mbit/s each way (default %(default)s)")
    add("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="what to measure (default: all)")
    add("--parallel", type=int, default=4, help="files at a time on each node (default %(default)s)")
    add("--order", type=Order, choices=list(Order), default=Order.SAME, help="of a bare dfget's files")
    add("--policy", type=Policy, choices=list(Policy), default=Policy.ALWAYS, help="of a bare dfget, for small files")
    add("--runs", type=int, default=1, help="of everything, one way after the other (default %(default)s)")
    add("--no-ready", dest="ready", action="store_false", help="do not measure the operator")
    add("--scratch", type=Path, help="directory for all files; a disk must not be slower than the links")
    add("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def _case(options: argparse.Namespace, shape: Shape, folder: Path, scratch: Path, report: Report) -> None:
    with open_bed(shape, folder, scratch) as bed:
        rate = goodput(bed.network, ORIGIN, shape.node_names[0], min(bed.size, 32_000_000))
        case = Case(shape, bed.size, bed.one_copy, rate)
        report.cases.append(case)
        for _ in range(options.runs):
            for way in options.ways:
                measured = _measure(options, bed, way)
                case.runs.setdefault(way, []).append(measured)
                _say(f"{describe(shape)}: {WAYS[way]}: last node after {measured.last:.1f} s")
            if options.ready and shape.nodes == min(options.nodes):
                for ask in (False, True):
                    with bed.dragonfly() as stack:
                        ready = measure_ready(bed, stack, ask_scheduler=ask, timeout=_patience(bed))
                    case.ready.append(ready)
                    _say(f"bytes on the seeds to Ready=True: {ready.ready - ready.on_seed:.1f} s")


def _measure(options: argparse.Namespace, bed: Bed, way: str) -> Measured:
    output = bed.scratch / "nodes"
    try:
        if way == "direct":
            bed.hub.hub.reset()
            return _fetch(bed, {node: _load(options, bed, output / node, None, None) for node in bed.shape.node_names})
        with bed.dragonfly() as stack:
            preheat = None
            if way == "cold":
                stack.wait_preheatable()  # until then there is no seed for anybody
            else:
                preheat = bed.preheat(stack, seeds=bed.shape.seeds, timeout=_patience(bed))
            commands = {}
            for number, (node, daemon) in enumerate(zip(bed.shape.node_names, stack.daemons, strict=True)):
                if way == "loader":
                    commands[node] = _load(options, bed, output / node, stack, number)
                else:
                    files = arrange(bed.files, options.order, number, bed.shape.nodes)
                    commands[node] = bare_dfget(
                        output / node, files, daemon, parallel=options.parallel, policy=options.policy
                    )
            return _fetch(bed, commands, preheat=preheat)
    finally:
        forget(output)


def _fetch(bed: Bed, commands: dict[str, Command], *, preheat: float | None = None) -> Measured:
    before = bed.network.traffic()
    leg = fetch_on_all(bed.network, commands, timeout=_patience(bed))
    after = bed.network.traffic()
    for command in commands.values():
        verify(command.found(), bed.files)
    sent = sum((after[seed] - before[seed]).sent for seed in bed.shape.seed_names)
    return Measured(leg.last, min(leg.seconds), bed.origin_bytes(), sent, preheat)


def _load(
    options: argparse.Namespace, bed: Bed, folder: Path, stack: DragonflyStack | None, number: int | None
) -> Command:
    return loader(
        folder,
        hub=bed.hub.url,
        model=MODEL,
        revision=bed.revision,
        parallel=options.parallel,
        daemon=stack.daemons[number] if stack is not None and number is not None else None,
        dfget=stack.programs.dfget if stack is not None else None,
    )


def _patience(bed: Bed) -> float:
    return 120 + SLOWEST * bed.one_copy * max(bed.shape.nodes, bed.shape.seeds)


_started = time.monotonic()


def _say(text: str) -> None:
    print(f"{time.monotonic() - _started:6.1f}  {text}", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
