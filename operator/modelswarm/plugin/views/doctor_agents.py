"""Checks of the nodes' agents: that they run, find each other, reach each other, and read the same origins. Pure."""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from modelswarm.api.meta import JsonObject
from modelswarm.kube.objects import metadata
from modelswarm.plugin.installation import AGENT_SERVICE, MIRRORS
from modelswarm.plugin.units import duration, size
from modelswarm.plugin.views.check import Check, ok, problem, unknown
from modelswarm.plugin.views.doctor_cluster import moment
from modelswarm.plugin.views.facts import Facts

PORTS: Mapping[str, int] = {"P2P_TORRENT_PORT": 6881, "P2P_METAINFO_PORT": 8081}
STALE_SECONDS = 300.0
"""After its Lease has run out, a successor takes a model over within seconds."""
FULL = 0.95
NAMED = 3


def check_agents(facts: Facts) -> Iterator[Check]:
    installation, snapshot = facts.installation, facts.snapshot
    namespace = installation.agent_namespace
    if installation.agents is None and not snapshot.caches:
        if installation.settings.agent_root is not None:
            look = f"See the DaemonSet: `kubectl get daemonsets -n {namespace}`."
            yield problem("agents", "the operator expects agents on the nodes, and there is none", look)
        else:
            yield ok("agents", "engine BitTorrent is not installed")
        return
    if installation.agents is not None:
        status = _mapping(installation.agents.get("status"))
        wanted, ready = _number(status.get("desiredNumberScheduled")), _number(status.get("numberReady"))
        words = f"DaemonSet {namespace}/{metadata(installation.agents).get('name')}: {ready} of {wanted} are ready"
        if ready < wanted:
            yield problem("agents", words, f"See their pods: `kubectl get pods -n {namespace} -o wide`.")
        else:
            yield ok("agents", words)
    if snapshot.live is None:
        yield unknown("agents", "you may not list EndpointSlices, so it cannot be said which agents are ready")
    else:
        away = [cache.metadata.name for cache in snapshot.caches if cache.metadata.name not in snapshot.live]
        if away:
            look = f"See their pods: `kubectl get pods -n {namespace} -o wide`."
            yield problem("agents", f"no ready agent on {_listed(away)}", look)
        elif snapshot.caches:
            yield ok("agents", f"the agents of {len(snapshot.caches)} nodes are ready")
    for asked in facts.agents:
        if asked.status not in (0, 200):
            look = f"See its log: `kubectl logs -n {namespace} {asked.pod}`."
            yield problem("agents", f"the agent of {asked.node} says: {asked.text or asked.status}", look)


def check_dns(facts: Facts) -> Iterator[Check]:
    if not facts.snapshot.caches and facts.installation.agents is None:
        return
    namespace = facts.installation.agent_namespace
    if facts.service is None:
        yield problem(
            "dns", f"there is no Service {AGENT_SERVICE}, by which agents find each other",
            "Apply config/p2p/headless-service.yaml, or upgrade the chart.",
        )  # fmt: skip
        return
    if _mapping(facts.service.get("spec")).get("clusterIP") != "None":
        words = f"Service {AGENT_SERVICE} is not headless, so DNS names one address instead of all agents"
        yield problem("dns", words, "Delete it and apply config/p2p/headless-service.yaml, or upgrade the chart.")
    told = facts.installation.agent_environment.get("PEERS_SERVICE", "")
    where = str(metadata(facts.service).get("namespace"))
    if told and not told.startswith(f"{AGENT_SERVICE}.{where}."):
        words = f"agents look for {told}, and the Service is {AGENT_SERVICE} in {where}"
        yield problem("dns", words, "Correct PEERS_SERVICE of the agents, or upgrade the chart.")
    live = len(facts.snapshot.live or ())
    blind = [f"{each.node} ({each.peers} of {live - 1})" for each in facts.agents if _is_blind(each.peers, live)]
    if blind:
        look = f"Ask there: `kubectl exec -n {namespace} POD -- nslookup {AGENT_SERVICE}.{namespace}`; see CoreDNS."
        yield problem("dns", f"agents find too few others by DNS: {_listed(blind)}", look)
    elif any(each.peers is not None for each in facts.agents):
        yield ok("dns", f"agents find all {live - 1} others by {AGENT_SERVICE}")
    else:
        problems = [each.problem for each in facts.agents if each.problem]
        words = f"agents could not be asked whom they find{f': {problems[0]}' if problems else ''}"
        if facts.agents and not problems:
            words = "agents tell whom they find when they have a model, and none has one"
        yield unknown("dns", f"Service {AGENT_SERVICE} is there; {words}")


def check_ports(facts: Facts) -> Iterator[Check]:
    snapshot = facts.snapshot
    if not snapshot.caches:
        return
    environment = facts.installation.agent_environment
    wanted = {int(environment.get(name) or default) for name, default in PORTS.items()}
    offered = {_number(_mapping(port).get("port")) for each in facts.slices for port in _items(each.get("ports"))}
    if facts.slices and not wanted <= offered:
        absent = ", ".join(map(str, sorted(wanted - offered)))
        yield problem("ports", f"Service {AGENT_SERVICE} does not have the ports {absent}", "Upgrade the chart.")
    for reason, look in (
        ("PeerUnavailable", "Let agents reach each other on these ports: NetworkPolicies, firewalls between nodes."),
        ("PeerRefused", "Give all agents the same peer Secret (restart them), and keep the nodes' clocks together."),
    ):
        nodes = [
            cache.metadata.name
            for cache in snapshot.caches
            if any(model.reason == reason and model.state != "Ready" for model in cache.status.models)
        ]
        if nodes:
            ports = ", ".join(map(str, sorted(wanted)))
            yield problem("ports", f"{reason} (ports {ports}) is what these nodes report: {_listed(nodes)}", look)
            return
    yield ok("ports", f"no node complains of others ({', '.join(map(str, sorted(wanted)))})")


def check_secret(facts: Facts) -> Iterator[Check]:
    if facts.installation.agents is None:
        return
    namespace, secret = facts.installation.agent_namespace, facts.installation.peer_secret
    match facts.peer_secret:
        case None:
            yield unknown("secret", "you may not see whether the agents' peer Secret is there")
        case True:
            yield ok("secret", f"agents know each other by Secret {namespace}/{secret.name}")
        case False:
            make = (
                f"kubectl -n {namespace} create secret generic {secret.name} "
                '--from-literal=secret="$(openssl rand -hex 32)"'
            )
            result = "any pod that reaches port 8081 is a peer" if secret.optional else "agents do not start without it"
            then = ", and restart the agents" if secret.optional else ""
            yield problem(
                "secret", f"there is no Secret {namespace}/{secret.name}: {result}", f"Make it{then}: `{make}`."
            )


def check_model_leases(facts: Facts) -> Iterator[Check]:
    now = facts.server_time or facts.here
    stale: list[str] = []
    for lease in facts.model_leases:
        spec, labels = _mapping(lease.get("spec")), _mapping(metadata(lease).get("labels"))
        renewed = moment(spec.get("renewTime"))
        complete = labels.get("ome.io/status") == "complete"
        if complete or not spec.get("holderIdentity") or renewed is None:
            continue
        late = (now - renewed).total_seconds() - _number(spec.get("leaseDurationSeconds"), 120)
        if late > STALE_SECONDS:
            stale.append(f"{metadata(lease).get('name')} of {spec.get('holderIdentity')}, {duration(late)} ago")
    if stale:
        look = "See the agents' logs; `kubectl delete lease NAME` does no harm."
        yield problem("leases", f"models whose coordinator has gone without a successor: {_listed(stale)}", look)
    elif facts.model_leases:
        yield ok("leases", f"{len(facts.model_leases)} models have a coordinator or are complete")


def check_mirrors(facts: Facts) -> Iterator[Check]:
    operator, agents = facts.installation.environment, facts.installation.agent_environment
    if facts.installation.operator is None:
        yield unknown("mirrors", "the operator's settings cannot be seen")
        return
    apart = [
        f"{name} is {_shown(operator.get(name))} for the operator and {_shown(agents.get(name))} for the agents"
        for name in MIRRORS
        if facts.installation.agents is not None and operator.get(name, "") != agents.get(name, "")
    ]
    wrong = [name for name in MIRRORS if operator.get(name) and not _is_url(name, operator[name])]
    if wrong:
        yield problem(
            "mirrors", f"{', '.join(wrong)}: not a URL", "Write https://HOST[:PORT] (value env of the chart)."
        )
    if apart:
        yield problem("mirrors", "; ".join(apart), "Set them once for both: value env of the chart.")
    if not wrong and not apart:
        used = [f"{name}={_shown(operator.get(name))}" for name in MIRRORS if operator.get(name)]
        used += [f"{host}={_shown(url)}" for host, url in sorted(facts.installation.settings.registries.items())]
        yield ok("mirrors", ", ".join(used) or "none: the public services are used")


def check_disks(facts: Facts) -> Iterator[Check]:
    full = [
        f"{cache.metadata.name} ({size(cache.status.free_bytes)} of {size(cache.status.capacity_bytes)} free)"
        for cache in facts.snapshot.caches
        if cache.status.capacity_bytes and cache.status.used_bytes > FULL * cache.status.capacity_bytes
    ]
    if full:
        look = "Give them larger disks or quotas, or fewer models: `kubectl swarm cache`."
        yield problem("disks", f"almost full: {_listed(full)}", look)
    elif facts.snapshot.caches:
        free = sum(cache.status.free_bytes for cache in facts.snapshot.caches)
        yield ok("disks", f"{size(free)} are free on {len(facts.snapshot.caches)} nodes")


def _is_blind(peers: int | None, live: int) -> bool:
    return peers is not None and peers < live - 1


def _shown(url: str | None) -> str:
    """Without user and password, if somebody put them there."""
    if not url:
        return "not set"
    return url.rpartition("@")[2] if "@" in url else url


def _is_url(name: str, value: str) -> bool:
    parsed = urlsplit(value if "://" in value else f"https://{value}")
    bare_host_is_fine = name in ("MODELSCOPE_DOMAIN", "STORAGE_EMULATOR_HOST")
    return bool(parsed.hostname) and (parsed.scheme in ("http", "https")) and ("://" in value or bare_host_is_fine)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[JsonObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _number(value: object, default: int = 0) -> int:
    return value if isinstance(value, int) else default
