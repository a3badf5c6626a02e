"""Which P2PTasks belong to an OpenModel and to a Playground: their names and their content."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from modelswarm.api import labels
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import ModelSource, OpenModel
from modelswarm.api.p2ptask import P2PTask, P2PTaskSpec
from modelswarm.api.playground import Playground
from modelswarm.content.image import parse_reference
from modelswarm.content.source import identity, is_distributable, parse_source, slug
from modelswarm.errors import InvalidReference
from modelswarm.workload.choice import skips_loader
from modelswarm.workload.fingerprint import written_source

DEFAULT_COPIES = 2
_NAME_LENGTH = 63
_DIGEST_LENGTH = 8


def model_task_name(model: OpenModel) -> str:
    """``model-<word>-<hash>``; the hash is over what is distributed and for whom.

    A task has one controller, so two OpenModels with the same source have two tasks (the engine still fetches the bytes
    once). Another source is another name: a changed OpenModel gets a new task beside the old one.
    Raises ``InvalidReference`` for a source that cannot be read.
    """
    source = parse_source(model.spec.source)
    return _name("model", slug(source), identity(source), model.metadata.name)


def private_task_name(model: OpenModel, playground: Playground) -> str:
    """``model-<word>-<hash>`` in the Playground's namespace: one task per Playground and what it wants of the model.

    Raises ``InvalidReference`` for a source that cannot be read.
    """
    source = parse_source(model.spec.source)
    return _name("model", slug(source), identity(source), model.metadata.name, playground.metadata.name)


def image_task_name(playground: Playground, image: str) -> str:
    """``image-<word>-<hash>``; one task per Playground and image."""
    return _name("image", image.rpartition("/")[2], _meant_image(image), playground.metadata.name)


def model_task(
    model: OpenModel,
    *,
    namespace: str,
    credentials_secret: str | None = None,
    placement_copies: int | Literal["All"] = DEFAULT_COPIES,
) -> JsonObject | None:
    """The task that distributes the model; None when there is nothing to distribute (``ollama://``, ``host://``).

    Raises ``InvalidReference`` for a source that cannot be read.
    """
    if not is_distributable(parse_source(model.spec.source)):
        return None
    placement: JsonObject = {"copies": placement_copies, "minReady": 1}
    if selector := common_node_selector(model):
        placement = {"nodeSelector": {**selector}, **placement}
    spec: JsonObject = {"model": {"source": written_source(model.spec.source)}, "placement": placement}
    if credentials_secret is not None:
        spec["credentialsSecretRef"] = {"name": credentials_secret}
    owned = {labels.MODEL_NAME: model.metadata.name}
    return _task(model_task_name(model), namespace, owned, model.owner_reference(), spec)


def image_task(
    playground: Playground, image: str, *, platforms: Sequence[str] = (), pull_secrets: Sequence[str] = ()
) -> JsonObject:
    """The task that brings an image near the Playground's nodes. ``pull_secrets`` are names in its namespace."""
    target: JsonObject = {"reference": image}
    if platforms:
        target["platforms"] = [*platforms]
    if pull_secrets:
        target["pullSecrets"] = [{"name": name} for name in pull_secrets]
    owned = {labels.PLAYGROUND: playground.metadata.name}
    name = image_task_name(playground, image)
    return _task(name, playground.metadata.namespace, owned, playground.owner_reference(), {"image": target})


def wanted_copies(model_name: str, playgrounds: Iterable[Playground], at_least: int = DEFAULT_COPIES) -> int:
    """On how many nodes a model lies: ``at_least``, or as many as its largest Playground may have pods."""
    wanted = [at_least]
    for playground in playgrounds:
        loads = not skips_loader(playground)
        if loads and any(ref.name == model_name for ref in playground.model_refs):
            elastic = playground.spec.elastic_config
            wanted.append(max(playground.spec.replicas, elastic.max_replicas if elastic is not None else 0))
    return max(wanted)


def common_node_selector(model: OpenModel) -> dict[str, str]:
    """The labels that the node selectors of all flavors agree on.

    A model belongs on the nodes of *any* flavor, and one node selector cannot say "these or those"; the pairs that all
    flavors share are the narrowest selector that still leaves none of them out.
    """
    selectors = [flavor.node_selector or {} for flavor in model.flavors]
    if not selectors:
        return {}
    first, *others = selectors
    return {key: value for key, value in sorted(first.items()) if all(other.get(key) == value for other in others)}


def respelled(wanted: JsonObject, live: JsonObject) -> JsonObject:
    """``wanted`` with its source or reference as ``live`` writes it, where both mean the same.

    The name of a task is over what is meant, but what is written cannot change: without this, another spelling of the
    same thing would be refused.
    """
    spec, before = wanted["spec"], live["spec"]
    assert isinstance(spec, dict)
    assert isinstance(before, dict)
    new, old = P2PTaskSpec.model_validate(spec), P2PTaskSpec.model_validate(before)
    if new.model is not None and old.model is not None:
        meant = _meant_source(new.model.source)
        if meant is not None and meant == _meant_source(old.model.source):
            return {**wanted, "spec": {**spec, "model": before["model"]}}
    if new.image is not None and old.image is not None:
        image = spec["image"]
        assert isinstance(image, dict)
        if _meant_image(new.image.reference) == _meant_image(old.image.reference):
            return {**wanted, "spec": {**spec, "image": {**image, "reference": old.image.reference}}}
    return wanted


def brings_same_model(new: P2PTask, old: P2PTask) -> bool:
    """Whether both tasks are for the same files of the same OpenModel."""
    if new.spec.model is None or old.spec.model is None:
        return False
    meant = _meant_source(new.spec.model.source)
    same = new.metadata.labels.get(labels.MODEL_NAME) == old.metadata.labels.get(labels.MODEL_NAME)
    return same and meant is not None and meant == _meant_source(old.spec.model.source)


def _meant_source(source: ModelSource) -> str | None:
    try:
        return identity(parse_source(source))
    except InvalidReference:
        return None


def _meant_image(image: str) -> str:
    try:
        return parse_reference(image).canonical
    except InvalidReference:
        return image  # the task will say what is wrong with it


def _task(name: str, namespace: str, owned: dict[str, str], owner: JsonObject, spec: JsonObject) -> JsonObject:
    return {
        "apiVersion": P2PTask.api_version_of_kind(),
        "kind": P2PTask.KIND,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {labels.MANAGED_BY: labels.MANAGER, **owned},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def _name(prefix: str, word: str, *identities: str) -> str:
    """A DNS label: prefix, as much of the word as fits, and 8 hex digits over the identities."""
    digest = hashlib.sha256("\n".join(identities).encode()).hexdigest()[:_DIGEST_LENGTH]
    room = _NAME_LENGTH - len(prefix) - _DIGEST_LENGTH - 2
    readable = re.sub(r"[^a-z0-9]+", "-", word.lower())[:room].strip("-")
    return f"{prefix}-{readable}-{digest}" if readable else f"{prefix}-{digest}"
