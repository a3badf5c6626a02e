"""``modelswarm render``: print every object that the operator would create, once all that it waits for is there.

It contacts no cluster and no hub: for reviews in Git, and for tests. What resolution would fill in reads ``<pinned>``,
what the API server would give reads ``<uid>``.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.playground import Playground
from modelswarm.cli.documents import Documents, read_documents
from modelswarm.content.source import HubSource, is_distributable, parse_source
from modelswarm.errors import ContentError, RenderError
from modelswarm.settings import OperatorSettings
from modelswarm.workload.pod import PinnedModel
from modelswarm.workload.render import OperatorPart, render_workload
from modelswarm.workload.tasks import image_task, model_task, wanted_copies

PINNED = "<pinned>"

_DEFAULTS = OperatorSettings()
_SHIPPED = Path(__file__).resolve().parents[3] / "charts" / "modelswarm" / "backendruntimes"
_FIRST_KEYS = ("apiVersion", "kind", "metadata", "spec")


def main(argv: Sequence[str]) -> int:
    """Exit code 1 when something could not be rendered; everything else is printed all the same."""
    options = _parser().parse_args(argv)
    failed = False

    def report(line: str) -> None:
        print(f"modelswarm render: {line}", file=sys.stderr)

    documents = read_documents(options.filename, report)
    operator = OperatorPart(loader_image=options.loader_image, scheduler_name=options.scheduler_name)
    runtimes = _Runtimes(documents, options.runtimes)
    objects: list[JsonObject] = []
    for model in documents.models.values():
        try:
            objects.extend(_for_model(model, documents, options.namespace))
        except ContentError as error:
            report(f"OpenModel {model.metadata.name}: {error.message}")
            failed = True
    for (namespace, name), playground in documents.playgrounds.items():
        try:
            objects.extend(_for_playground(playground, documents, runtimes, operator))
        except (ContentError, RenderError, _Missing) as error:
            report(f"Playground {namespace}/{name}: {error.message}")
            failed = True
    sys.stdout.write(_print(objects, options.output))
    return 1 if failed or documents.failed else 0


class _Missing(Exception):
    """Something that a Playground refers to is not in the input."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class _Runtimes:
    """BackendRuntimes of the input first, then those of a directory, which is read only when one is needed."""

    def __init__(self, documents: Documents, directory: str | None) -> None:
        self._given = documents.runtimes
        self._directory = directory or (str(_SHIPPED) if _SHIPPED.is_dir() else None)
        self._shipped: Documents | None = None
        self._problems: list[str] = []

    def get(self, name: str) -> BackendRuntime:
        if name in self._given:
            return self._given[name]
        if self._shipped is None:
            directory = [self._directory] if self._directory else []
            self._shipped = read_documents(directory, self._problems.append)
        if name not in self._shipped.runtimes:
            place = f"nor in {self._directory}" if self._directory else "and --runtimes names no directory"
            raise _Missing(
                f"BackendRuntime {name} is not in the input, {place}; "
                f"add its YAML to the input or name its directory with --runtimes DIR"
                + "".join(f" ({problem})" for problem in self._problems)
            )
        return self._shipped.runtimes[name]


def _for_model(model: OpenModel, documents: Documents, namespace: str) -> Iterator[JsonObject]:
    copies = wanted_copies(model.metadata.name, documents.playgrounds.values())
    task = model_task(model, namespace=namespace, placement_copies=copies)
    if task is not None:
        yield task


def _for_playground(
    playground: Playground, documents: Documents, runtimes: _Runtimes, operator: OperatorPart
) -> list[JsonObject]:
    names = [ref.name for ref in playground.model_refs]
    if missing := [name for name in names if name not in documents.models]:
        raise _Missing(f"OpenModel {', '.join(missing)} is not in the input")
    models = [documents.models[name] for name in names]
    workload = render_workload(
        playground, runtimes.get(playground.backend_name), models, operator, [_pin(model) for model in models]
    )
    objects = [image_task(playground, image) for image in workload.images]
    objects += [workload.deployment, workload.service]
    return [*objects, workload.autoscaler] if workload.autoscaler is not None else objects


def _pin(model: OpenModel) -> PinnedModel | None:
    source = parse_source(model.spec.source)
    if not is_distributable(source):
        return None
    return PinnedModel(revision=PINNED if isinstance(source, HubSource) else None, manifests=(PINNED,))


class _Dumper(yaml.SafeDumper):
    """Block style, lists indented as kubectl prints them, no anchors (an object may occur in several places)."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def to_yaml(objects: Sequence[JsonObject]) -> str:
    """The objects as YAML documents: apiVersion, kind, metadata and spec first, everything else in its order."""
    return "---\n".join(
        yaml.dump(_ordered(each), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000) for each in objects
    )


def _print(objects: Sequence[JsonObject], output: str) -> str:
    if output == "yaml":
        return to_yaml(objects)
    listed = {"apiVersion": "v1", "kind": "List", "items": [_ordered(each) for each in objects]}
    return json.dumps(listed, indent=2, ensure_ascii=False) + "\n"


def _ordered(item: JsonObject) -> JsonObject:
    first = {key: item[key] for key in _FIRST_KEYS if key in item}
    return {**first, **{key: value for key, value in item.items() if key not in first}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelswarm render",
        description="Print every object that the operator would create for the OpenModels and Playgrounds in FILE "
        "once all is ready: P2PTasks, Deployments, Services, HorizontalPodAutoscalers. Contacts no cluster and no hub; "
        "what only they know reads <pinned> or <uid>.",
    )
    parser.add_argument(
        "-f",
        "--filename",
        action="extend",
        nargs="+",
        required=True,
        metavar="FILE",
        help="YAML with OpenModels, Playgrounds and BackendRuntimes; a directory; or - for standard input",
    )
    parser.add_argument("-o", "--output", choices=("yaml", "json"), default="yaml", help="default: yaml")
    parser.add_argument(
        "--namespace",
        default=_DEFAULTS.namespace,
        help=f"the operator's namespace, where model tasks live (default: {_DEFAULTS.namespace})",
    )
    parser.add_argument(
        "--runtimes",
        metavar="DIR",
        help="where BackendRuntimes are looked up that the input does not have (default: those of the chart, in a "
        "checkout of the repository)",
    )
    parser.add_argument("--loader-image", default=_DEFAULTS.loader_image, help="default: %(default)s")
    parser.add_argument("--scheduler-name", help="as scheduler-name in llmaz-global-config (default: none)")
    return parser
