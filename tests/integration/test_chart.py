"""The chart as helm renders it: equal to config/, and what its values change."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.helm import CHART, HelmFailed, helm, setting, template
from modelswarm.agent.settings import AgentSettings
from modelswarm.settings import OperatorSettings
from tests.documents import shown_objects
from tests.integration.support import Manifest
from tests.integration.support.chart import Grant, container, grants, one, rendered, variables

ROOT = Path(__file__).parents[2]
AS_CONFIG: dict[str, str | int | bool] = {
    "agent__namespace": "ome",
    "agent__peerSecret__create": False,
    "agent__peerSecret__optional": True,
}
OPERATOR, AGENT = "llmaz-system:modelswarm-operator", "ome:ome-model-agent"


def config(*names: str) -> list[Manifest]:
    return [each for name in names for each in yaml.safe_load_all((ROOT / "config" / f"{name}.yaml").read_text())]


def test_lint_finds_nothing() -> None:
    out = helm("lint", "--strict", CHART, *setting(image__registry="registry.test"))
    assert "0 chart(s) failed" in out
    assert "WARNING" not in out


# Rights


RULES = ("operator/rbac", "operator/rbac-agents", "operator/rbac-for-agents", "p2p/model-agent-daemonset")


def test_rights_are_those_of_config() -> None:
    """Besides the list of nodes, which docs/how-to/dragonfly.md tells to give where no platforms are named."""
    values = AS_CONFIG | {"dragonfly__managerUrl": "http://manager.test:8080"}
    nodes = Grant(OPERATOR, "", "", "nodes", "", "list")
    assert grants(rendered(**values)) - grants(config(*RULES)) == {nodes}
    assert grants(config(*RULES)) <= grants(rendered(**values))
    assert grants(rendered("--set", "dragonfly.platforms={linux/amd64}", **values)) == grants(config(*RULES))


def test_without_dragonfly_its_token_cannot_be_read() -> None:
    missing = grants(config(*RULES)) - grants(rendered(**AS_CONFIG))
    assert missing == {Grant(OPERATOR, "llmaz-system", "", "secrets", "dragonfly-token", "get")}


def test_without_agents_there_is_nothing_of_them() -> None:
    objects = rendered(agent__enabled=False)
    assert not [each for each in objects if "ome" in each["metadata"]["name"]]
    token = Grant(OPERATOR, "llmaz-system", "", "secrets", "dragonfly-token", "get")
    assert grants(objects) == grants(config("operator/rbac")) - {token}
    assert "MODELSWARM_AGENT_ROOT" not in variables(objects, "Deployment")


def test_elsewhere_llmaz_is_looked_for_in_its_own_namespace() -> None:
    everywhere = {
        each for each in grants(rendered(namespace="swarm")) if each.resource == "leases" and not each.namespace
    }
    assert everywhere == {
        Grant("swarm:modelswarm-operator", "", "coordination.k8s.io", "leases", "fbb36db9.llmaz.io", "get")
    }


@pytest.mark.parametrize(
    ("namespace", "llmaz", "everywhere"),
    [
        pytest.param("llmaz-system", "team-llmaz", True, id="we are where llmaz usually is, and it is elsewhere"),
        pytest.param("swarm", "team-llmaz", True, id="both are elsewhere"),
        pytest.param("swarm", "swarm", False, id="both are in one namespace"),
        pytest.param("llmaz-system", "", False, id="an empty setting is none"),
    ],
)
def test_a_namespace_of_llmaz_that_is_set_can_be_looked_into(namespace: str, llmaz: str, everywhere: bool) -> None:
    objects = rendered(namespace=namespace, **{"operator__settings__llmaz-namespace": llmaz})
    account, lease = f"{namespace}:modelswarm-operator", "fbb36db9.llmaz.io"
    settings = OperatorSettings.load([], variables(objects, "Deployment"))
    given = grants(objects)
    assert settings.llmaz_namespace == (llmaz or "llmaz-system")
    for where in {"", settings.llmaz_namespace}:
        grant = Grant(account, where, "coordination.k8s.io", "leases", lease, "get")
        assert (grant in given) == (everywhere if not where else where == namespace)


def test_credentials_of_other_namespaces_are_readable_by_name_only() -> None:
    listed = json.dumps([{"name": "team-a", "pullSecrets": ["regcred"]}, {"name": "team-b"}])
    objects = rendered("--set-json", f"credentialNamespaces={listed}", **AS_CONFIG)
    names = ("modelhub-secret", "oss-access-secret", "aws-access-secret")
    expected = {
        *(Grant(OPERATOR, "team-a", "", "secrets", name, "get") for name in (*names, "regcred")),
        Grant(OPERATOR, "team-a", "", "serviceaccounts", "default", "get"),
        *(Grant(AGENT, "team-a", "", "secrets", name, "get") for name in names),
        Grant(AGENT, "team-a", "", "configmaps", "", "get"),
    }
    assert {each for each in grants(objects) if each.namespace == "team-a"} == expected
    assert variables(objects, "Deployment")["MODELSWARM_CREDENTIAL_NAMESPACES"] == "team-a,team-b"


def test_nobody_may_read_secrets_without_a_name() -> None:
    objects = rendered(dragonfly__managerUrl="http://manager.test")
    assert [each for each in grants(objects) if each.resource == "secrets"]
    assert not [each for each in grants(objects) if each.resource in ("secrets", "*") and not each.name]


# Agents


def without_labels(manifest: Manifest) -> Manifest:
    meta = {name: value for name, value in manifest["metadata"].items() if name != "labels"}
    return {**manifest, "metadata": meta}


@pytest.mark.parametrize(
    "kind", ["Service", "ServiceAccount", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]
)
def test_objects_of_the_agents_are_those_of_config(kind: str) -> None:
    [ours] = [
        each for each in rendered(**AS_CONFIG) if each["kind"] == kind and each["metadata"]["name"].startswith("ome")
    ]
    [theirs] = [each for each in config("p2p/headless-service", "p2p/model-agent-daemonset") if each["kind"] == kind]
    assert without_labels(ours) == without_labels(theirs)


def test_the_daemonset_is_that_of_config() -> None:
    ours = one(rendered(**AS_CONFIG), "DaemonSet")
    theirs = one(config("p2p/model-agent-daemonset"), "DaemonSet")
    [mine], [shipped] = ours["spec"]["template"]["spec"]["containers"], theirs["spec"]["template"]["spec"]["containers"]
    assert mine.pop("image") == "registry.test/team/modelswarm/agent:v0.1.0"
    assert shipped.pop("image") == "modelswarm/agent:v0.1.0"
    defaults = [{"name": "P2P_ORIGIN_NODES", "value": ""}, {"name": "MODELSWARM_AGENT_QUOTA", "value": "100%"}]
    mine["env"] = [each for each in mine["env"] if each not in defaults]
    assert ours["spec"] == theirs["spec"]


def test_the_agents_read_their_variables() -> None:
    values: dict[str, str | int | bool] = {
        "agent__quota": "80%",
        "agent__originNodes": 2,
        "agent__maxUploadRate": "100Mi",
        "agent__modelDir": "/data/m",
    }
    objects = rendered(namespace="swarm", **values)
    environ = {**variables(objects, "DaemonSet"), "NODE_NAME": "n", "POD_NAMESPACE": "swarm"}
    settings = AgentSettings.load([], environ)
    assert settings.peers_service == ("ome-peers.swarm.svc.cluster.local",)
    assert (settings.origin_nodes, settings.max_upload_rate, settings.quota.fraction) == (2, 100 << 20, 0.8)
    assert settings.service_name == "ome-peers"
    assert not settings.peer_secret_optional
    operator = OperatorSettings.load([], variables(objects, "Deployment"))
    assert (operator.agent_root, operator.agent_namespace) == (str(settings.model_dir), "swarm")
    policy = one(objects, "ValidatingAdmissionPolicy")
    assert "system:serviceaccount:swarm:ome-model-agent" in policy["spec"]["matchConditions"][0]["expression"]


def test_numbers_of_a_values_file_are_plain_numbers(tmp_path: Path) -> None:
    """Helm reads those as floats, unlike those of --set."""
    file = tmp_path / "values.yaml"
    values = {
        "agent": {"maxUploadRate": 104857600, "maxDownloadRate": 1 << 30, "originNodes": 2},
        "env": {"MODELSWARM_AGENT_RESERVE": 21474836480},
        "operator": {"settings": {"stall-seconds": 1000000}},
        "turnstile": {"originReaders": 3},
    }
    file.write_text(yaml.safe_dump(values))
    objects = rendered("--values", str(file))
    environ = {**variables(objects, "DaemonSet"), "NODE_NAME": "n", "POD_NAMESPACE": "swarm"}
    settings = AgentSettings.load([], environ)
    assert (settings.max_upload_rate, settings.max_download_rate) == (104857600, 1 << 30)
    assert settings.origin_nodes == 2
    assert environ["MODELSWARM_AGENT_RESERVE"] == "21474836480"
    operator = OperatorSettings.load([], variables(objects, "Deployment"))
    assert (operator.stall_seconds, operator.origin_readers) == (1000000, 3)


def test_a_value_that_is_taken_away_is_not_set() -> None:
    environ = variables(rendered(agent__maxUploadRate="null"), "DaemonSet")
    assert environ["P2P_MAX_UPLOAD_RATE"] == ""


def test_the_secret_of_the_peers_is_long_and_random() -> None:
    first, second = (one(rendered(), "Secret", "ome-peers")["data"]["secret"] for _ in range(2))
    assert first != second
    assert len(first) >= 43


# Operator


def test_the_operator_reads_its_variables() -> None:
    values: dict[str, str | int | bool] = {
        "turnstile__originReaders": 4,
        "dragonfly__managerUrl": "http://manager.test:8080",
        "dragonfly__schedulers__1": "scheduler.test:8002",
        "operator__settings__stall-seconds": 600,
        "operator__settings__fallback-after-seconds": "90.5",
        "operator__settings__distribution": False,
        "env__HF_ENDPOINT": "https://mirror.test",
    }
    environ = variables(rendered(**values), "Deployment")
    settings = OperatorSettings.load([], environ)
    assert settings.loader_image == "registry.test/team/modelswarm/loader:v0.1.0"
    assert settings.turnstile_url == "http://modelswarm-operator.llmaz-system:8082"
    assert (settings.origin_readers, settings.stall_seconds, settings.distribution) == (4, 600, False)
    assert settings.fallback_after_seconds == 90.5
    assert settings.dragonfly_schedulers == {1: "scheduler.test:8002"}
    assert environ["HF_ENDPOINT"] == "https://mirror.test"
    known = {f"MODELSWARM_{name.upper()}" for name in OperatorSettings.model_fields} | {"HF_ENDPOINT"}
    assert set(environ) <= known


def test_the_defaults_are_the_programs() -> None:
    """Only where it is and what goes with the agents differs from an operator without any variable."""
    settings = OperatorSettings.load([], variables(rendered(**AS_CONFIG), "Deployment"))
    changed = {"loader_image", "turnstile_url", "agent_root"}
    bare = OperatorSettings()
    assert {name for name in OperatorSettings.model_fields if getattr(settings, name) != getattr(bare, name)} == changed


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("DaemonSet", "MODEL_DIR"),
        ("DaemonSet", "NODE_NAME"),
        ("DaemonSet", "P2P_ORIGIN_NODES"),
        ("Deployment", "MODELSWARM_LOADER_IMAGE"),
        ("Deployment", "POD_NAMESPACE"),
        ("Deployment", "MODELSWARM_STALL_SECONDS"),
        ("Deployment", "SSL_CERT_FILE"),
        ("DaemonSet", "SSL_CERT_FILE"),
    ],
)
def test_a_variable_of_the_users_replaces_ours(kind: str, name: str) -> None:
    """Server-side apply refuses a list with two of one name."""
    given: dict[str, str | int | bool] = {"operator__settings__stall-seconds": 9, "caBundle__configMap": "company"}
    found = container(rendered(**given, **{f"env__{name}": "mine"}), kind)["env"]
    names = [each["name"] for each in found]
    assert len(names) == len(set(names))
    assert [each for each in found if each["name"] == name] == [{"name": name, "value": "mine"}]
    before = {each["name"] for each in container(rendered(**given), kind)["env"]}
    assert before - {name} <= set(names), "and nothing else goes"


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet"])
def test_authorities_of_the_companys_own(kind: str) -> None:
    objects = rendered(caBundle__configMap="company", caBundle__key="root.pem")
    spec = one(objects, kind)["spec"]["template"]["spec"]
    items = [{"key": "root.pem", "path": "root.pem"}]
    assert {"name": "ca-bundle", "configMap": {"name": "company", "items": items}} in spec["volumes"]
    mount = {"name": "ca-bundle", "mountPath": "/etc/modelswarm/ca", "readOnly": True}
    assert mount in container(objects, kind)["volumeMounts"]
    assert variables(objects, kind)["SSL_CERT_FILE"] == "/etc/modelswarm/ca/root.pem"
    assert OperatorSettings.load([], variables(objects, "Deployment")).loader_ca == "company/root.pem"


@pytest.mark.parametrize(("who", "kind"), [("operator", "Deployment"), ("agent", "DaemonSet")])
def test_volumes_and_annotations_of_the_users_own(who: str, kind: str) -> None:
    volume, mount = {"name": "mine", "emptyDir": {}}, {"name": "mine", "mountPath": "/mine"}
    given = {
        "extraVolumes": [volume],
        "extraVolumeMounts": [mount],
        "serviceAccount": {"annotations": {"role": "mine"}},
    }
    objects = rendered("--set-json", f"{who}={json.dumps(given)}")
    assert volume in one(objects, kind)["spec"]["template"]["spec"]["volumes"]
    assert mount in container(objects, kind)["volumeMounts"]
    account = one(objects, kind)["spec"]["template"]["spec"]["serviceAccountName"]
    assert one(objects, "ServiceAccount", account)["metadata"]["annotations"] == {"role": "mine"}


def test_a_volume_of_the_users_cannot_take_the_place_of_ours() -> None:
    with pytest.raises(HelmFailed, match="extraVolumes"):
        rendered("--set-json", 'agent.extraVolumes=[{"name": "models", "emptyDir": {}}]')


@pytest.mark.parametrize("namespace", ["llmaz-system", "default"])
def test_no_object_is_there_twice(namespace: str) -> None:
    listed = f"credentialNamespaces={json.dumps([{'name': namespace}, {'name': 'ome'}])}"
    values: dict[str, str | int | bool] = {"agent__namespace": "ome", "monitoring__serviceMonitor__enabled": True}
    objects = rendered("--include-crds", "--set-json", listed, namespace=namespace, **values)
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(keys) == len(set(keys))


def test_a_digest_can_stand_for_a_tag() -> None:
    digest = "sha256:" + "0" * 64
    assert container(rendered(image__tag=digest), "Deployment")["image"].endswith(f"/modelswarm/operator@{digest}")


def test_ports_are_those_that_the_programs_open() -> None:
    objects = rendered()
    operator = OperatorSettings.load([], variables(objects, "Deployment"))
    agent = AgentSettings.load([], {**variables(objects, "DaemonSet"), "NODE_NAME": "n"})
    opened = {
        "modelswarm-operator": {operator.metrics_port, operator.health_port, operator.turnstile_port},
        "ome-model-agent": {agent.http_port, agent.torrent_port, agent.metainfo_port},
    }
    for name, kind in (("modelswarm-operator", "Deployment"), ("ome-model-agent", "DaemonSet")):
        policy = one(objects, "NetworkPolicy", name)["spec"]
        assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == opened[name]
        assert {port["containerPort"] for port in container(objects, kind)["ports"]} == opened[name]
        labels = one(objects, kind)["spec"]["template"]["metadata"]["labels"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert f":{operator.turnstile_port}" in (operator.turnstile_url or "")


def test_peers_are_let_in_from_agents_only() -> None:
    policy = one(rendered(), "NetworkPolicy", "ome-model-agent")["spec"]
    sources: dict[int, Any] = {port["port"]: rule.get("from") for rule in policy["ingress"] for port in rule["ports"]}
    agents = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "ome-model-agent"}}}]
    assert sources == {6881: agents, 8081: agents, 8080: None}


def test_the_policy_for_agents_without_the_chart_is_the_same() -> None:
    page = shown_objects(ROOT / "docs" / "how-to" / "bittorrent.md")
    [shown] = [each for each in page if each.get("kind") == "NetworkPolicy"]
    ours = one(rendered(**AS_CONFIG), "NetworkPolicy", "ome-model-agent")
    assert (shown["spec"], shown["metadata"]) == (ours["spec"], without_labels(ours)["metadata"])


def test_backend_runtimes_are_the_files_and_stay() -> None:
    files = {
        each["metadata"]["name"]: each
        for path in CHART.glob("backendruntimes/*.yaml")
        for each in [yaml.safe_load(path.read_text())]
    }
    objects = {each["metadata"]["name"]: each for each in rendered() if each["kind"] == "BackendRuntime"}
    assert len(objects) == 6
    assert {name: each["spec"] for name, each in objects.items()} == {
        name: each["spec"] for name, each in files.items()
    }
    policies = {each["metadata"]["annotations"]["helm.sh/resource-policy"] for each in objects.values()}
    assert policies == {"keep"}


def test_monitoring_is_there_when_asked_for() -> None:
    kinds = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert not kinds & {each["kind"] for each in rendered()}
    objects = rendered(
        monitoring__serviceMonitor__enabled=True,
        monitoring__prometheusRule__enabled=True,
        monitoring__prometheusRule__labels__release="prometheus",
    )
    rule = one(objects, "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == yaml.safe_load((CHART / "alerts.yaml").read_text())
    ports = {port["name"] for port in one(objects, "Service", "modelswarm-operator")["spec"]["ports"]}
    assert {each["port"] for each in one(objects, "ServiceMonitor")["spec"]["endpoints"]} <= ports


def test_runbooks_are_where_the_user_publishes_them() -> None:
    values: dict[str, str | int | bool] = {
        "monitoring__prometheusRule__enabled": True,
        "monitoring__prometheusRule__runbookUrl": "https://docs.example.com/runbooks/",
    }
    [group] = one(rendered(**values), "PrometheusRule")["spec"]["groups"]
    found = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in group["rules"]}
    assert found == {alert: f"https://docs.example.com/runbooks/{alert}.md" for alert in found}
    assert len(found) == 10


def test_the_dashboard_is_there_when_asked_for() -> None:
    assert "modelswarm-dashboard" not in {each["metadata"]["name"] for each in rendered()}
    values: dict[str, str | int | bool] = {
        "monitoring__dashboard__enabled": True,
        "monitoring__dashboard__namespace": "monitoring",
        "monitoring__dashboard__labels__team": "models",
        "monitoring__dashboard__annotations__grafana_folder": "models",
    }
    found = one(rendered(**values), "ConfigMap", "modelswarm-dashboard")
    assert found["metadata"]["namespace"] == "monitoring"
    assert {"grafana_dashboard": "1", "team": "models"}.items() <= found["metadata"]["labels"].items()
    assert found["metadata"]["annotations"] == {"grafana_folder": "models"}
    file = CHART / "dashboards" / "modelswarm.json"
    assert json.loads(found["data"]["modelswarm.json"]) == json.loads(file.read_text())


# What is refused


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param(["operator.replicas=3"], "at '/operator/replicas': maximum: got 3, want 2", id="three replicas"),
        pytest.param(["operator.replica=2"], "additional properties 'replica' not allowed", id="a misspelt value"),
        pytest.param(
            ["agent.modelDir=mnt"], "at '/agent/modelDir': 'mnt' does not match pattern", id="a relative path"
        ),
        pytest.param(["agent.quota=lots"], "at '/agent/quota'", id="a quota that is none"),
        pytest.param(["dragonfly.managerUrl=manager:8080"], "at '/dragonfly/managerUrl'", id="a URL without scheme"),
        pytest.param(["operator.settings.stall=1"], "at '/operator/settings'", id="a setting that does not exist"),
        pytest.param(["operator.settings.health-port=1"], "at '/operator/settings'", id="a setting that is fixed"),
        pytest.param(["image.pullPolicy=Sometimes"], "at '/image/pullPolicy'", id="a word that is not one of three"),
        pytest.param(["image.registry=https://r.test"], "at '/image/registry'", id="a registry with a scheme"),
    ],
)
def test_wrong_values_are_refused_with_their_place(values: list[str], words: str) -> None:
    arguments = [part for value in values for part in ("--set", value)]
    with pytest.raises(HelmFailed) as raised:
        template(*setting(image__registry="registry.test"), *arguments)
    assert words in str(raised.value)


def test_without_a_registry_nothing_is_rendered() -> None:
    with pytest.raises(HelmFailed, match=r"image\.registry: say which registry holds your images"):
        template()
