"""What ``prefetch`` is asked for: a model or an image, where to, and the P2PTask that says so. Pure."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Literal

from modelswarm.api.labels import MANAGED_BY
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import HubName, ModelHub, ModelSource
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.content.image import parse_reference
from modelswarm.content.source import is_distributable, parse_source, slug
from modelswarm.errors import InvalidReference
from modelswarm.plugin.exits import usage

MANAGER = "kubectl-swarm"
_HUBS = {"hf": HubName.HUGGINGFACE, "huggingface": HubName.HUGGINGFACE, "modelscope": HubName.MODELSCOPE}
_WORD = 40
"""Characters of the content's name in the task's."""

Kind = Literal["model", "image"]


@dataclass(frozen=True, slots=True)
class Wish:
    """``selector`` are Node labels; ``copies`` None: two, or all nodes that the selector matches."""

    content: str
    kind: Kind | None = None
    selector: tuple[tuple[str, str], ...] = ()
    copies: int | Literal["All"] | None = None
    revision: str | None = None
    engine: Engine = Engine.AUTO
    pin: bool = False
    secret: str | None = None
    name: str | None = None


def task_for(wish: Wish, namespace: str) -> JsonObject:
    """The task. Equal wishes have equal names. Raises CommandError (usage) for what names nothing."""
    if (wish.kind or kind_of(wish.content)) == "image":
        word, spec = _image(wish)
    else:
        word, spec = _model(wish)
    if wish.engine is not Engine.AUTO:
        spec["engine"] = str(wish.engine)
    if wish.pin:
        spec["pin"] = True
    placement: JsonObject = {"copies": wish.copies or ("All" if wish.selector else 2), "minReady": 1}
    if wish.selector:
        placement["nodeSelector"] = dict(wish.selector)
    spec["placement"] = placement
    return {
        "apiVersion": P2PTask.api_version_of_kind(),
        "kind": P2PTask.KIND,
        "metadata": {
            "name": wish.name or _name(word, spec),
            "namespace": namespace,
            "labels": {MANAGED_BY: MANAGER},
        },
        "spec": spec,
    }


def kind_of(text: str) -> Kind:
    """A model, unless it is written as only an image is: with a tag, a digest, or a registry.

    ``org/name`` is a model; ``docker.io/org/name``, ``org/name:tag`` and ``name@sha256:...`` are images.
    """
    if "://" in text:
        return "model"
    first, slash, _ = text.partition("/")
    name = text.partition("@")[0]
    has_registry = bool(slash) and ("." in first or first == "localhost")
    return "image" if ":" in text or name.count("/") > 1 or has_registry else "model"


def source_of(text: str, revision: str | None = None) -> ModelSource:
    """``ORG/NAME[@REVISION]`` of Hugging Face, ``modelscope://ORG/NAME``, or the URI of an object store."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme not in _HUBS:
        if revision is not None:
            raise usage("--revision is for models of hubs only")
        return ModelSource(uri=text)
    model_id, _, named = (rest if separator else text).partition("@")
    hub = _HUBS[scheme] if separator else HubName.HUGGINGFACE
    return ModelSource(model_hub=ModelHub(name=hub, model_id=model_id, revision=revision or named or "main"))


def selector_of(text: str) -> tuple[tuple[str, str], ...]:
    """``key=value,key=value``, as a nodeSelector understands it. Raises CommandError (usage)."""
    pairs: list[tuple[str, str]] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        key, equals, value = part.partition("=")
        value = value.removeprefix("=")
        if not equals or not key or key.endswith("!"):
            raise usage(f"--nodes {text!r}: write LABEL=VALUE[,LABEL=VALUE...]")
        pairs.append((key, value))
    return tuple(sorted(pairs))


def copies_of(text: str) -> int | Literal["All"]:
    """A number of nodes, or ``All``."""
    if text.lower() == "all":
        return "All"
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise usage(f"--copies {text!r}: write a number from 1 on, or All")
    return int(text)


def _model(wish: Wish) -> tuple[str, JsonObject]:
    source = source_of(wish.content, wish.revision)
    try:
        parsed = parse_source(source)
    except InvalidReference as error:
        raise usage(error.message) from None
    if not is_distributable(parsed):
        raise usage(f"{wish.content} has nothing to bring to nodes: the engine or the node has it by itself")
    spec: JsonObject = {"model": {"source": source.to_json()}}
    if wish.secret is not None:
        spec["credentialsSecretRef"] = {"name": wish.secret}
    return slug(parsed), spec


def _image(wish: Wish) -> tuple[str, JsonObject]:
    if wish.revision is not None:
        raise usage("--revision is for models of hubs only; an image has its tag or digest")
    try:
        reference = parse_reference(wish.content)
    except InvalidReference as error:
        raise usage(error.message) from None
    image: JsonObject = {"reference": wish.content}
    if wish.secret is not None:
        image["pullSecrets"] = [{"name": wish.secret}]
    return reference.repository.rpartition("/")[2], {"image": image}


def _name(word: str, spec: JsonObject) -> str:
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", word.lower())[:_WORD].strip("-")
    return f"prefetch-{readable}-{digest}"
