"""The main job from start to end, on this machine: ``make demo``, or ``python -m dev.demo [--engine E] [--keep]``.

A real Kubernetes API server, an image registry and a stand-in for the model hub come up, and the engine that spreads
the bytes; the operator runs under its own ServiceAccount; an OpenModel and a Playground are applied. The tasks are
shown as ``kubectl get -w`` does, that the Deployment waits for them is checked at every look, and in the end the
Deployment's own init container loads the model on each node into a scratch volume, where every file is compared with
the hub's.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from subprocess import TimeoutExpired

import httpx

from dev.binaries import BinaryUnavailable
from dev.controlplane import ControlPlane, KubectlFailed
from dev.demo_console import Console
from dev.demo_engine import ENGINES, EngineDemo, Stage, Surroundings
from dev.demo_gate import GateWatch, Opened
from dev.demo_load import Loaded, describe, load_on_all
from dev.demo_steps import DemoFailed, Summary
from dev.demo_summary import check_tasks, looks, origin_rows
from dev.dragonfly.packages import PackagesMissing
from dev.hub import Hub, HubThread, Kind, Repository, Slow, make_model
from dev.installation import NAMESPACE, ROOT, SERVICE_ACCOUNT, OperatorProcess, install
from dev.process import StartupFailed, interrupt_on_stop_signals
from dev.registry import Registry

EXAMPLE = "examples/huggingface/playground.yaml"
MODEL = "facebook/opt-125m"
PLAYGROUND = "opt-125m"
SHARDS, SHARD_BYTES = 4, 8 << 20
HUB_ANSWERS_AFTER = float(os.environ.get("DEMO_HUB_SECONDS", "2.5"))
"""Seconds by which the hub's API is late: long enough to look at a task that is not Ready."""
IMAGES = (("vllm/vllm-openai", "v0.7.3"), ("modelswarm/loader", "v0.1.0"))

FAILURES = (
    *(DemoFailed, BinaryUnavailable, PackagesMissing, StartupFailed, KubectlFailed),
    *(httpx.HTTPError, OSError, TimeoutExpired),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description="Show the main job, start to end.")
    parser.add_argument("--engine", choices=tuple(ENGINES), default=next(iter(ENGINES)), help="what spreads the bytes")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C or SIGTERM")
    options = parser.parse_args()
    interrupt_on_stop_signals()
    console = Console()
    demo = Demo(console, ENGINES[options.engine]())
    try:
        with demo.stack:
            demo.run()
            if options.keep:
                demo.keep()
    except FAILURES as error:
        return console.failed(str(error), demo.operator_log)
    except KeyboardInterrupt:
        console.say("stopped; everything is cleaned up")
        return 0 if demo.kept else 130
    return 0


class Demo:
    """The steps in their order. ``stack`` holds everything that has to be given back."""

    def __init__(self, console: Console, engine: EngineDemo) -> None:
        self.console = console
        self._engine = engine
        self.stack = ExitStack()
        self.kept = False
        self.operator_log = ""
        self._summary = Summary()

    def run(self) -> None:
        say, summary = self.console.say, self._summary
        self._engine.prepare()
        self.console.restart()  # what had to be built first is no part of the story
        self._scratch = Path(tempfile.mkdtemp(prefix="modelswarm-demo-"))
        self.stack.callback(shutil.rmtree, self._scratch, ignore_errors=True)
        self._start_surroundings()
        operator = self._start_operator()
        with GateWatch(self.cluster, operator, self.console, PLAYGROUND, self._engine.patience) as gate:
            say(f"$ kubectl apply -f {EXAMPLE}")
            with summary.stage("P2PTasks ready"):
                self.console.lines(self.cluster.apply(ROOT / EXAMPLE))
                opened = gate.wait()
        say(f"Deployment {PLAYGROUND} created {opened.gap * 1000:.0f} ms after the last task's Ready; {looks(opened)}")
        tasks = json.loads(self.cluster.kubectl("get", "p2ptasks", "-A", "-o", "json"))["items"]
        check_tasks(tasks, self._engine.expected)
        loaded = self._load(opened)
        origin = self.hub.hub.counters.total(name=f"{MODEL}/*").content
        encore = self._engine.encore(self.hub, MODEL)
        self.console.table("summary", self._rows(opened, loaded, origin, encore))

    def _start_surroundings(self) -> None:
        say, summary = self.console.say, self._summary
        folder = make_model(self._scratch / "hub", shards=SHARDS, shard_bytes=SHARD_BYTES)
        self._files = folder
        repository = Repository.from_folder(folder, id=MODEL)
        say(f"model {MODEL}: {SHARDS} shards of {SHARD_BYTES >> 20} MiB, config, tokenizer (random numbers)")
        self._engine.start(Stage(self.console, summary, self.stack, self._scratch))
        with summary.stage("control plane up"):
            self.cluster = self.stack.enter_context(ControlPlane())
            install(self.cluster)
        say(f"Kubernetes at {self.cluster.server}: {', '.join(self.cluster.pids)}; CRDs, rights, BackendRuntimes")
        self._registry = self.stack.enter_context(Registry(address=self._engine.registry_address))
        for image, tag in IMAGES:
            self._registry.push_image(image, tag)
        self.hub = self.stack.enter_context(HubThread(Hub(repository)))
        self.hub.hub.fail("*", Slow(first_byte_delay=HUB_ANSWERS_AFTER), times=1, on=Kind.API)
        say(
            f"image registry at {self._registry.host}, hub at {self.hub.url} (first answer after {HUB_ANSWERS_AFTER} s)"
        )

    def _start_operator(self) -> OperatorProcess:
        environment = self._engine.connect(Surroundings(self.cluster, self.hub.url, self._registry.url))
        operator = OperatorProcess(
            self.cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT),
            self._scratch / "operator.log",
            arguments=["--log-format=text", f"--registries=docker.io={self._registry.url}"],
            environment={"HF_ENDPOINT": self.hub.url, **environment},
        )
        # Read before the log's directory is removed, whatever happens.
        self.stack.callback(self._read_log, operator)
        with self._summary.stage("operator leading"):
            self.stack.enter_context(operator)
            operator.wait_leading()
        self.console.say(f"operator leads, as ServiceAccount {NAMESPACE}/{SERVICE_ACCOUNT}")
        return operator

    def _read_log(self, operator: OperatorProcess) -> None:
        self.operator_log = operator.child.log_tail(15)

    def _load(self, opened: Opened) -> list[Loaded]:
        nodes = self._engine.nodes()
        self.console.say("its init container:")
        self.console.lines(describe(opened.deployment))
        where = f" on {len(nodes)} nodes at once" if len(nodes) > 1 else ""
        self.console.say(
            f"$ modelswarm load{where}        # its environment and manifest, as the image's entrypoint would"
        )
        with self._summary.stage("model loaded, verified"):
            loaded = load_on_all(
                nodes,
                self.cluster,
                opened.deployment,
                hub=self.hub.url,
                files=self._files,
                scratch=self._scratch / "pods",
            )
        for each in loaded:
            prefix = f"{each.node}: " if len(nodes) > 1 else ""
            self.console.lines("\n".join(prefix + line for line in each.output.splitlines()))
        return loaded

    def _rows(
        self, opened: Opened, loaded: list[Loaded], origin: int, encore: list[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        return [
            *((name, f"{seconds:.1f} s") for name, seconds in self._summary.stages),
            ("task Ready to Deployment", f"{opened.gap * 1000:.0f} ms"),
            ("gate", looks(opened)),
            *origin_rows(origin, loaded, self._engine.expected),
            *encore,
            ("total", f"{self.console.elapsed():.1f} s"),
            ("result", "OK"),
        ]

    def keep(self) -> None:
        """Wait for a signal, which ends the program."""
        self.kept = True
        kubeconfig = shlex.quote(str(self.cluster.kubeconfig))
        way_in = self._engine.way_in()
        print(
            f"\nleft running; in another terminal:\n\n  export KUBECONFIG={kubeconfig}\n"
            f"  {way_in}{' ' if way_in else ''}kubectl get om,pl,p2pt,deploy -A\n"
            f"\nCtrl-C, or kill {os.getpid()}, stops it and removes everything",
            flush=True,
        )
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
