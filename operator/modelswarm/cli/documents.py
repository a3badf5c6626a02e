"""Reading OpenModels, Playgrounds, BackendRuntimes and P2PTasks from YAML files, as ``kubectl apply -f`` would."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import ValidationError

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.meta import Resource
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground

STDIN = "-"
UID = "<uid>"
"""Stands for what the API server gives an object when it is created."""

_SUFFIXES = (".yaml", ".yml", ".json")
_DEFAULT_NAMESPACE = "default"

Report = Callable[[str], None]


@dataclass(slots=True)
class Documents:
    """What was read, in the order of the files. ``failed``: something could not be read; it has been reported."""

    models: dict[str, OpenModel] = field(default_factory=dict)
    playgrounds: dict[tuple[str, str], Playground] = field(default_factory=dict)
    runtimes: dict[str, BackendRuntime] = field(default_factory=dict)
    tasks: dict[tuple[str, str], P2PTask] = field(default_factory=dict)
    failed: bool = False


RENDERED: tuple[type[Resource], ...] = (OpenModel, Playground, BackendRuntime)
"""What workloads are made from."""


def read_documents(
    files: Sequence[str],
    report: Report,
    *,
    kinds: Sequence[type[Resource]] = RENDERED,
    namespace: str = _DEFAULT_NAMESPACE,
) -> Documents:
    """Everything of these kinds in the files and directories (``-``: standard input).

    ``report`` takes a line per problem or note; ``namespace`` is that of objects that name none.
    """
    documents = Documents()
    for file in files:
        for path in _expand(file):
            try:
                text = sys.stdin.read() if path == STDIN else Path(path).read_text(encoding="utf-8")
                loaded = [item for document in yaml.safe_load_all(text) for item in _items(document)]
            except (OSError, UnicodeDecodeError) as error:
                report(f"cannot read {path}: {error.strerror if isinstance(error, OSError) else error}")
                documents.failed = True
                continue
            except yaml.YAMLError as error:
                report(f"{_title(path)} is not YAML: {' '.join(str(error).split())}")
                documents.failed = True
                continue
            for item in loaded:
                _read(item, _title(path), documents, report, kinds, namespace)
    return documents


def _expand(file: str) -> Iterable[str]:
    if file != STDIN and Path(file).is_dir():
        return sorted(str(path) for path in Path(file).rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    return (file,)


def _title(path: str) -> str:
    return "standard input" if path == STDIN else path


def _items(document: object) -> Iterator[object]:
    """The objects of one document: none in an empty one, several in a ``List``."""
    if document is None:
        return
    items = document.get("items") if isinstance(document, dict) else None
    if isinstance(document, dict) and document.get("kind") == "List" and isinstance(items, list):
        yield from items
    else:
        yield document


def _read(
    item: object, title: str, documents: Documents, report: Report, kinds: Sequence[type[Resource]], namespace: str
) -> None:
    kind = item.get("kind") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(kind, str):
        report(f"{title}: a document is not a Kubernetes object (it has no kind)")
        documents.failed = True
        return
    version = item.get("apiVersion")
    metadata = item.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    type_ = next((known for known in kinds if kind == known.KIND), None)
    if type_ is None or version != type_.api_version_of_kind():
        report(f"{title}: {kind} {name or ''} ({version}) is passed by")
        return
    if not name:
        report(f"{title}: {kind} without metadata.name")
        documents.failed = True
        return
    try:
        resource = type_.model_validate(item)
    except ValidationError as error:
        report(f"{title}: {kind} {name}: {_first(error)}")
        documents.failed = True
        return
    _keep(resource, title, documents, report, namespace)


def _keep(resource: Resource, title: str, documents: Documents, report: Report, default: str) -> None:
    namespace = (resource.metadata.namespace or default) if resource.NAMESPACED else ""
    metadata = resource.metadata.model_copy(
        update={"uid": resource.metadata.uid or UID, "namespace": namespace},
    )
    resource = resource.model_copy(update={"metadata": metadata})
    twice = False
    match resource:
        case OpenModel():
            twice = metadata.name in documents.models
            documents.models[metadata.name] = resource
        case BackendRuntime():
            twice = metadata.name in documents.runtimes
            documents.runtimes[metadata.name] = resource
        case Playground():
            twice = (namespace, metadata.name) in documents.playgrounds
            documents.playgrounds[namespace, metadata.name] = resource
        case P2PTask():
            twice = (namespace, metadata.name) in documents.tasks
            documents.tasks[namespace, metadata.name] = resource
    if twice:
        report(f"{title}: {resource.KIND} {metadata.name} has been read before; the last one counts")


def _first(error: ValidationError) -> str:
    """``spec.source: Field required``, for the first few of what is wrong."""
    found = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
    return "; ".join(found[:3])
