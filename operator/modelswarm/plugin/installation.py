"""What is installed in the cluster, as far as the user may see it: operator, agents, and what they were told. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from modelswarm.api.meta import JsonObject
from modelswarm.errors import SettingsError
from modelswarm.kube.kinds import Kind
from modelswarm.kube.objects import key_of
from modelswarm.settings import OperatorSettings

DAEMONSET = Kind("apps", "v1", "DaemonSet", "daemonsets", True)
OPERATOR = "modelswarm-operator"
AGENT = "ome-model-agent"
AGENT_NAMESPACE = "ome"
AGENT_SERVICE = "ome-peers"
OPERATOR_NAMESPACE = "llmaz-system"
"""Where the operator and model tasks live, unless the cluster says otherwise."""
MIRRORS = (
    "HF_ENDPOINT",
    "MODELSCOPE_ENDPOINT",
    "MODELSCOPE_DOMAIN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "OSS_ENDPOINT_URL",
    "STORAGE_EMULATOR_HOST",
)
"""Variables that say where origins are."""


@dataclass(frozen=True, slots=True)
class PeerSecret:
    """``optional``: agents start without it, and then trust whoever reaches them."""

    name: str = AGENT_SERVICE
    optional: bool = True


@dataclass(frozen=True, slots=True)
class Installation:
    """``operator`` and ``agents`` are None where they are not there, or may not be read (``seen`` False)."""

    operator: JsonObject | None = None
    agents: JsonObject | None = None
    seen: bool = True
    namespace: str = OPERATOR_NAMESPACE
    agent_namespace: str = AGENT_NAMESPACE
    settings: OperatorSettings = field(default_factory=OperatorSettings)
    environment: Mapping[str, str] = field(default_factory=dict)
    """The operator's variables, as far as they are plain."""
    agent_environment: Mapping[str, str] = field(default_factory=dict)
    peer_secret: PeerSecret = PeerSecret()


def installation_of(operator: JsonObject | None, agents: JsonObject | None, *, seen: bool = True) -> Installation:
    """From the operator's Deployment and the agents' DaemonSet."""
    environment, agent_environment = variables(operator), variables(agents)
    return Installation(
        operator,
        agents,
        seen,
        namespace=key_of(operator).namespace if operator is not None else OPERATOR_NAMESPACE,
        agent_namespace=key_of(agents).namespace if agents is not None else AGENT_NAMESPACE,
        settings=_settings(environment),
        environment=environment,
        agent_environment=agent_environment,
        peer_secret=_peer_secret(agents),
    )


def variables(workload: JsonObject | None) -> dict[str, str]:
    """The environment of the first container, without what comes from elsewhere (Secrets, fields of the pod)."""
    first = next(_entries(_pod_spec(workload), "containers"), {})
    return {
        str(each["name"]): str(each["value"]) for each in _entries(first, "env") if "name" in each and "value" in each
    }


def _peer_secret(agents: JsonObject | None) -> PeerSecret:
    """Which Secret the agents mount, by the name that the volume has in chart and config/p2p."""
    for volume in _entries(_pod_spec(agents), "volumes"):
        secret = volume.get("secret")
        if volume.get("name") == "peer-secret" and isinstance(secret, dict):
            return PeerSecret(str(secret.get("secretName") or AGENT_SERVICE), secret.get("optional") is True)
    return PeerSecret()


def _pod_spec(workload: JsonObject | None) -> JsonObject:
    found = workload or {}
    for key in ("spec", "template", "spec"):
        below = found.get(key)
        found = below if isinstance(below, dict) else {}
    return found


def _entries(found: JsonObject, key: str) -> Iterator[JsonObject]:
    entries = found.get(key)
    yield from (each for each in (entries if isinstance(entries, list) else []) if isinstance(each, dict))


def _settings(environment: Mapping[str, str]) -> OperatorSettings:
    try:
        return OperatorSettings.load((), environment)
    except SettingsError:
        return OperatorSettings()  # of another version; what we need of them has sensible defaults
