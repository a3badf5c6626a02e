"""What the chart renders, as objects, and the rights among them as facts that can be compared."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import yaml

from dev.helm import setting, template
from tests.integration.support import Manifest


class Grant(NamedTuple):
    """One thing that a ServiceAccount may do. An empty namespace: everywhere; an empty name: any object."""

    account: str
    namespace: str
    group: str
    resource: str
    name: str
    verb: str


def rendered(*arguments: str, namespace: str = "llmaz-system", **values: str | int | bool) -> list[Manifest]:
    """The objects for these values (``agent__enabled`` is ``agent.enabled``), with an image registry."""
    text = template(*setting(image__registry="registry.test/team", **values), *arguments, namespace=namespace)
    return [document for document in yaml.safe_load_all(text) if document]


def one(objects: Iterable[Manifest], kind: str, name: str | None = None) -> Manifest:
    found = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]


def container(objects: Iterable[Manifest], kind: str) -> dict[str, Any]:
    [found] = one(objects, kind)["spec"]["template"]["spec"]["containers"]
    return dict(found)


def variables(objects: Iterable[Manifest], kind: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(objects, kind)["env"] if "value" in each}


def grants(objects: Iterable[Manifest]) -> set[Grant]:
    """What all bindings together give, whatever roles and bindings are called."""
    every = list(objects)
    roles = {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each["rules"]
        for each in every
        if each["kind"] in ("Role", "ClusterRole")
    }
    found: set[Grant] = set()
    for binding in every:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        where = binding["metadata"].get("namespace", "")
        reference = binding["roleRef"]
        rules = roles[reference["kind"], where if reference["kind"] == "Role" else "", reference["name"]]
        for subject in binding["subjects"]:
            account = f"{subject['namespace']}:{subject['name']}"
            for rule in rules:
                found |= {
                    Grant(account, where, group, resource, name, verb)
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                    for name in rule.get("resourceNames", [""])
                    for verb in rule["verbs"]
                }
    return found
