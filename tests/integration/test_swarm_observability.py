"""What real agents log in JSON and export while they bring a model to their nodes."""

import json

from prometheus_client.parser import text_string_to_metric_families

from dev.installation import NAMESPACE
from dev.reference.exported import OURS, of_agent
from tests.integration.support.fleet import Swarm, Swarms


def test_agents_say_what_they_do_and_count_it(swarms: Swarms) -> None:
    with swarms(2, MODELSWARM_AGENT_LOG_FORMAT="json") as swarm:
        model = swarm.publish()
        task = swarm.distribute(model)
        swarm.succeeded(task)
        size = swarm.size(model)
        received: dict[str, float] = {}
        for node in swarm.nodes:
            samples = exported(swarm, node)
            for source in ("origin", "peers"):
                name = f'modelswarm_agent_received_bytes_total{{source="{source}"}}'
                received[source] = received.get(source, 0) + samples[name]
        assert received == {"origin": size, "peers": size}
        for node in swarm.nodes:
            lines = [json.loads(line) for line in swarm.logged(node).splitlines()]
            assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
            [ready] = [line for line in lines if "is ready" in line["message"]]
            assert (ready["controller"], ready["object"]) == ("p2ptask", f"{NAMESPACE}/{task}")
            same = [line for line in lines if line.get("reconcile_id") == ready["reconcile_id"]]
            assert {(line["object"], line["model_hash"]) for line in same} == {(ready["object"], ready["model_hash"])}


def exported(swarm: Swarm, node: str) -> dict[str, float]:
    """Values by name and labels; all of them are on the reference page, with the same labels."""
    documented, found = of_agent(), dict[str, float]()
    for family in text_string_to_metric_families(swarm.agent(node).metrics()):
        for sample in family.samples:
            if not family.name.startswith(OURS) or sample.name.endswith("_created"):
                continue
            name = next(name for name in (sample.name, sample.name.rpartition("_")[0]) if name in documented)
            assert set(sample.labels) - {"le"} == set(documented[name].labels), sample.name
            labels = ",".join(f'{label}="{value}"' for label, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
