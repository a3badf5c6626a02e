"""``helm install`` on real nodes: every pod gets Ready, and what the chart promises about them is so."""

from dev.cluster.cluster import Cluster
from tests.e2e.support import Release
from tests.e2e.support.release import AGENTS, NAMESPACE, OPERATOR
from tests.integration.support import Api, kubectl_json


def read(cluster: Cluster, workload: str, path: str) -> str:
    """A file in a container that has no program but Python."""
    program = f"print(open({path!r}).read())"
    return cluster.plane.kubectl("-n", NAMESPACE, "exec", workload, "--", "python3", "-c", program)


def process(cluster: Cluster, workload: str) -> dict[str, str]:
    """What the kernel says about the container's first process."""
    return dict(
        line.split(":\t", 1) for line in read(cluster, workload, "/proc/1/status").splitlines() if ":\t" in line
    )


def test_every_pod_is_ready_and_none_has_restarted(release: Release, cluster: Cluster) -> None:
    print(f"helm install until every pod was Ready: {release.seconds:.1f} s")
    pods = kubectl_json(cluster.plane, "-n", NAMESPACE, "get", "pods")["items"]
    agents = {pod["spec"]["nodeName"] for pod in pods if "ome-model-agent" in pod["metadata"]["name"]}
    assert agents == set(cluster.nodes)
    assert len(pods) == len(agents) + 1
    for pod in pods:
        assert [each["restartCount"] for each in pod["status"]["containerStatuses"]] == [0], pod["metadata"]["name"]


def test_the_charts_own_test_passes(release: Release) -> None:
    assert "Phase:          Succeeded" in release.helm("test")


def test_the_operator_is_as_restricted_as_it_says(release: Release, cluster: Cluster) -> None:
    """What runs, and not what was asked for: user, capabilities, root file system."""
    facts = process(cluster, OPERATOR)
    assert facts["Uid"].split() == ["65532"] * 4
    assert {facts[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    mounts = read(cluster, OPERATOR, "/proc/mounts")
    root = next(line.split() for line in mounts.splitlines() if line.split()[1] == "/")
    assert root[3].startswith("ro")


def test_an_agent_is_root_without_capabilities_and_writes_its_directory_only(
    release: Release, cluster: Cluster
) -> None:
    facts = process(cluster, AGENTS)
    assert facts["Uid"].split() == ["0"] * 4
    assert {facts[name] for name in ("CapPrm", "CapEff", "CapBnd")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"


def test_each_node_reports_what_it_has(release: Release, cluster: Cluster, api: Api) -> None:
    caches = {each["metadata"]["name"]: each for each in api.all("NodeCache")}
    assert set(caches) == set(cluster.nodes)
    for cache in caches.values():
        assert cache["metadata"]["ownerReferences"][0]["kind"] == "Node"


def test_the_quick_starts_commands_work(release: Release, cluster: Cluster) -> None:
    """The three of the notes that look; the one that applies an example needs GPUs."""
    cluster.plane.kubectl("-n", NAMESPACE, "rollout", "status", OPERATOR, "--timeout=60s")
    cluster.plane.kubectl("-n", NAMESPACE, "rollout", "status", AGENTS, "--timeout=60s")
    cluster.plane.kubectl("get", "openmodels,playgrounds,p2ptasks", "-A")
