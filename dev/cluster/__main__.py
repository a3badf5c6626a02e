"""``python -m dev.cluster``: three nodes until Ctrl-C. Prints how to reach them from another terminal."""

import argparse
import shlex
import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from dev.binaries import BinaryUnavailable
from dev.cluster.cluster import Cluster, kubeconfig_for
from dev.cluster.doorway import Doorway
from dev.cluster.programs import PREREQUISITE_MISSING, ClusterUnavailable
from dev.controlplane import KubectlFailed
from dev.hub import Hub, Repository, make_model
from dev.netns import NetnsUnavailable
from dev.process import LOOPBACK, StartupFailed, interrupt_on_stop_signals

MODEL = "facebook/opt-125m"
_SHARDS, _SHARD_BYTES = 4, 8 << 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.cluster", description="Run a cluster of real nodes.")
    parser.add_argument("--nodes", type=int, default=3, choices=range(1, 9), metavar="N", help="1 to 8, default 3")
    options = parser.parse_args()
    interrupt_on_stop_signals()
    try:
        with ExitStack() as stack:
            _run(stack, options.nodes)
    except (ClusterUnavailable, NetnsUnavailable) as error:
        print(error, file=sys.stderr)
        return PREREQUISITE_MISSING
    except (BinaryUnavailable, StartupFailed, KubectlFailed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; everything is removed")
    return 0


def _run(stack: ExitStack, nodes: int) -> None:
    started = time.monotonic()
    # Outside, before the cluster takes this thread in.
    doorway = stack.enter_context(Doorway())
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelswarm-cluster-")))
    cluster = stack.enter_context(Cluster(nodes=nodes))
    folder = make_model(scratch / "model", shards=_SHARDS, shard_bytes=_SHARD_BYTES)
    hub = Hub(Repository.from_folder(folder, id=MODEL), host=cluster.origin_address)
    running = stack.enter_context(cluster.serve(hub))
    inside = urlsplit(cluster.plane.server)
    doorway.open(lambda: socket.create_connection((inside.hostname or "", inside.port or 0), timeout=10))
    config = kubeconfig_for(cluster.plane, f"https://{LOOPBACK}:{doorway.port}", scratch / "kubeconfig")
    print(cluster.plane.kubectl("get", "nodes", "-o", "wide").rstrip())
    print(
        f"up after {time.monotonic() - started:.0f} s; in another terminal:\n\n"
        f"  export KUBECONFIG={shlex.quote(str(config))}\n\n"
        f"registry {cluster.registry.host} (plain HTTP), stand-in engine {cluster.images.standin}\n"
        f"hub {running.url} with {MODEL}; logs and disks in {cluster.directory}\n"
        f"Ctrl-C stops it and removes everything",
        flush=True,
    )
    threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
