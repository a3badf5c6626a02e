"""Run by ``test_ipv6``: agents on IPv6 addresses, in a network of this process alone. Prints the outcome as JSON."""

import json
import subprocess
import sys
from pathlib import Path

from dev.controlplane import ControlPlane
from dev.hub import Hub, HubThread
from dev.installation import NAMESPACE, ROOT, SERVICE_ACCOUNT, OperatorProcess, install
from dev.private_network import PrivateNetworkUnavailable, enter_private_network
from tests.integration.support import Api
from tests.integration.support.fleet import LABEL, Swarms

HOSTS = [f"fd00:6f6d:65::{number}" for number in (1, 2, 3)]
MANIFESTS = ("p2p/headless-service", "p2p/model-agent-daemonset", "operator/rbac-agents", "operator/rbac-for-agents")


def main(folder: Path) -> None:
    try:
        enter_private_network()
    except PrivateNetworkUnavailable as error:
        raise SystemExit(f"unavailable: {error}") from None
    for host in HOSTS:
        command = ["ip", "-6", "address", "add", f"{host}/128", "dev", "lo", "nodad"]
        added = subprocess.run(command, capture_output=True, text=True)
        if added.returncode:
            raise SystemExit(f"unavailable: no IPv6 here: {added.stderr.strip()}")
    with ControlPlane(scheduler=False) as cluster, HubThread(Hub()) as hub, Api(cluster) as api:
        install(cluster)
        for manifest in MANIFESTS:
            cluster.apply(ROOT / "config" / f"{manifest}.yaml")
        operator = OperatorProcess(
            cluster.service_account_kubeconfig(NAMESPACE, SERVICE_ACCOUNT),
            folder / "operator.log",
            arguments=["--agent-root=/mnt/models", "--agent-grace-seconds=3"],
            environment={"HF_ENDPOINT": hub.url},
        )
        swarms = Swarms(cluster, api, hub, operator, folder)
        with operator, swarms(0, PEERS_SERVICE=",".join(HOSTS)) as swarm:
            operator.wait_leading()
            for number, host in enumerate(HOSTS, start=1):
                swarm.fleet.add(f"n{number}", host, labels={LABEL: swarm.name})
            swarm.fleet.start("n1", "n2", seconds=90)
            model = swarm.publish()
            task = swarm.distribute(model)
            content = swarm.succeeded(task, 2)["resolved"]["digest"]
            # And one that comes late, to the torrent of the whole model.
            swarm.fleet.start("n3", seconds=90)
            swarm.succeeded(task, 3)
            swarm.is_right(model, content, swarm.nodes)
            print(json.dumps({"sent": swarm.sent(model), "size": swarm.size(model)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
