"""A model's Lease as an object: its name, what stands in it where, and the way back. Pure.

Labels and names are the seed's; what people may want to know besides stands in annotations.
"""

from modelswarm.agent.election import DURATION, Record
from modelswarm.api.meta import JsonObject
from modelswarm.kube.kinds import LEASE
from modelswarm.kube.objects import metadata

NAME_PREFIX = "ome-model-"
TYPE_LABEL, TYPE = "ome.io/type", "model-download"
STATUS_LABEL, COMPLETE = "ome.io/status", "complete"
HASH_LABEL = "ome.io/model-hash"
"""The first 63 digits of the model's hash: a label's value may not be longer."""

_ANNOTATION = "modelswarm.io/"
COORDINATOR = _ANNOTATION + "coordinator"
SEGMENT_BYTES = _ANNOTATION + "segment-bytes"
READERS = _ANNOTATION + "origin-readers"
REPO = _ANNOTATION + "repo"
COMMIT = _ANNOTATION + "commit"
MANIFEST = _ANNOTATION + "manifest"
MODELS = _ANNOTATION + "models"
"""UIDs of the BaseModels for which the branch was pinned: one that is made again later gets a pin of its own."""
MOST_MODELS = 100
"""That are named."""
EPOCH = _ANNOTATION + "epoch"


def lease_name(model_hash: str) -> str:
    return NAME_PREFIX + model_hash[:16]


def render(record: Record, *, name: str, namespace: str, model_hash: str, onto: JsonObject | None) -> JsonObject:
    """The Lease as an object; what others put on it stays."""
    meta = dict(metadata(onto)) if onto is not None else {"name": name, "namespace": namespace}
    meta.pop("managedFields", None)
    labels = {**_strings(meta.get("labels")), TYPE_LABEL: TYPE, HASH_LABEL: model_hash[:63]}
    labels.pop(STATUS_LABEL, None)
    if record.complete:
        labels[STATUS_LABEL] = COMPLETE
    ours = {
        COORDINATOR: record.coordinator,
        SEGMENT_BYTES: str(record.segment_bytes or ""),
        READERS: ",".join(record.readers),
        REPO: record.repo,
        COMMIT: record.commit,
        MANIFEST: record.manifest,
        MODELS: ",".join(record.models),
        EPOCH: str(record.epoch or ""),
    }
    annotations = {key: value for key, value in _strings(meta.get("annotations")).items() if key not in ours}
    annotations.update((key, value) for key, value in ours.items() if value)
    spec: JsonObject = {
        "leaseDurationSeconds": max(1, round(record.duration)),
        "acquireTime": record.acquired,
        "renewTime": record.renewed,
        "leaseTransitions": record.transitions,
    }
    if record.holder:
        spec["holderIdentity"] = record.holder
    return {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {**meta, "labels": {**labels}, "annotations": {**annotations}},
        "spec": spec,
    }


def read(lease: JsonObject) -> Record:
    """The record in a Lease, whoever wrote it: what makes no sense is as if it were not there."""
    meta, spec = metadata(lease), lease.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    annotations, labels = _strings(meta.get("annotations")), _strings(meta.get("labels"))
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Record(
        holder=str(spec.get("holderIdentity") or ""),
        duration=float(duration) if isinstance(duration, int) and duration > 0 else DURATION,
        renewed=str(spec.get("renewTime") or ""),
        acquired=str(spec.get("acquireTime") or ""),
        transitions=transitions if isinstance(transitions, int) else 0,
        complete=labels.get(STATUS_LABEL) == COMPLETE,
        coordinator=str(annotations.get(COORDINATOR) or ""),
        segment_bytes=_number(annotations.get(SEGMENT_BYTES)),
        readers=_names(annotations.get(READERS)),
        repo=str(annotations.get(REPO) or ""),
        commit=str(annotations.get(COMMIT) or ""),
        manifest=str(annotations.get(MANIFEST) or ""),
        models=_names(annotations.get(MODELS)),
        epoch=_number(annotations.get(EPOCH)),
    )


def _strings(found: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _names(text: object) -> tuple[str, ...]:
    return tuple(filter(None, text.split(","))) if isinstance(text, str) else ()


def _number(text: object) -> int:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 19 else 0
