"""Environment variables: the engine's, and what the model-loader is told about one model.

Environment lists are list-maps by name in the API, so a name must never occur twice; every function here keeps that.
"""

from collections.abc import Iterable, Sequence

from modelswarm.api import labels
from modelswarm.api.meta import JsonObject
from modelswarm.api.openmodel import HubName
from modelswarm.content.source import HostSource, HubSource, OllamaSource, Provider, Source, StoreSource

MANIFEST_DIRECTORY = "/etc/modelswarm/manifest"
MANIFEST_VARIABLE = "MODELSWARM_MANIFEST_DIR"
PUBLIC_VARIABLE = "MODELSWARM_CONTENT_PUBLIC"
"""``true``: the model can be read without the token that the loader may have, so it may come from anybody's cache."""

_HUB_TOKENS = ("HUGGING_FACE_HUB_TOKEN", "HF_TOKEN")
"""Two names of one credential: programs read either."""

_LOADER_OWNS = frozenset(
    {
        "MODEL_SOURCE_TYPE",
        "MODEL_ID",
        "MODEL_HUB_NAME",
        "MODEL_FILENAME",
        "REVISION",
        "MODEL_ALLOW_PATTERNS",
        "MODEL_IGNORE_PATTERNS",
        "PROVIDER",
        "ENDPOINT",
        "BUCKET",
        "MODEL_PATH",
        MANIFEST_VARIABLE,
        PUBLIC_VARIABLE,
    }
)
"""What tells the loader which model to load comes from the OpenModel alone; an engine's variable that happens to have
such a name (text-generation-inference has ``MODEL_ID``) stays the engine's and is not copied to the loader."""


def merge_envs(*layers: Iterable[JsonObject]) -> tuple[JsonObject, ...]:
    """Each name once: a later value replaces an earlier one in its place, new names go last, in the order given."""
    merged: dict[str, JsonObject] = {}
    for layer in layers:
        for env in layer:
            merged[_name(env)] = env
    return tuple(merged.values())


def with_credentials(envs: Sequence[JsonObject], source: Source) -> tuple[JsonObject, ...]:
    """The variables plus the credentials that the source's origin may ask for; what is set already wins.

    The references are optional: a namespace without the Secret gets a pod without the credential.
    """
    return _append(envs, credential_envs(source, envs))


def credential_envs(source: Source, present: Sequence[JsonObject] = ()) -> tuple[JsonObject, ...]:
    """References to llmaz's well-known Secrets in the pod's namespace.

    The hub's token has two names. Who sets one of them in ``present`` means both, so the other gets the same value and
    not the Secret's: otherwise it would depend on the program which of two tokens is used. llmaz gives Hugging Face's
    for every hub; ModelScope's own comes beside it.
    """
    match source:
        case HubSource():
            explicit = next((env for env in present if _name(env) in _HUB_TOKENS), None)
            if explicit is not None:
                tokens = tuple({**explicit, "name": name} for name in _HUB_TOKENS)
            else:
                tokens = tuple(_secret(name, labels.HUB_SECRET, labels.HUB_SECRET_KEY) for name in _HUB_TOKENS)
            if source.hub is not HubName.MODELSCOPE:
                return tokens
            key = labels.MODELSCOPE_SECRET_KEY
            return (*tokens, _secret(key, labels.HUB_SECRET, key))
        case StoreSource(provider=Provider.OSS):
            return tuple(_secret(key, labels.OSS_SECRET, key) for key in labels.OSS_SECRET_KEYS)
        case StoreSource():
            return tuple(_secret(key, labels.AWS_SECRET, key) for key in labels.AWS_SECRET_KEYS)
        case OllamaSource() | HostSource():
            return ()


def loader_envs(
    source: HubSource | StoreSource,
    runner_envs: Sequence[JsonObject],
    *,
    revision: str | None,
    manifest: bool,
    public: bool = False,
) -> tuple[JsonObject, ...]:
    """The loader's environment: a copy of the engine's (proxies, ``HF_ENDPOINT``), then the model, then credentials.

    ``revision`` is the commit that the source was pinned to; without one the loader gets the revision as written.
    """
    copied = [env for env in runner_envs if _name(env) not in _LOADER_OWNS]
    address = _hub_address(source, revision) if isinstance(source, HubSource) else _store_address(source)
    envs = _append((*copied, *address), credential_envs(source, copied))
    if public:
        envs = (*envs, _plain(PUBLIC_VARIABLE, "true"))
    return (*envs, _plain(MANIFEST_VARIABLE, MANIFEST_DIRECTORY)) if manifest else envs


def _hub_address(source: HubSource, revision: str | None) -> list[JsonObject]:
    envs = [
        _plain("MODEL_SOURCE_TYPE", "modelhub"),
        _plain("MODEL_ID", source.model_id),
        _plain("MODEL_HUB_NAME", source.hub),
    ]
    if source.filename:
        envs.append(_plain("MODEL_FILENAME", source.filename))
    envs.append(_plain("REVISION", revision or source.revision))
    if source.allow_patterns:
        envs.append(_plain("MODEL_ALLOW_PATTERNS", ",".join(source.allow_patterns)))
    if source.ignore_patterns:
        envs.append(_plain("MODEL_IGNORE_PATTERNS", ",".join(source.ignore_patterns)))
    return envs


def _store_address(source: StoreSource) -> list[JsonObject]:
    envs = [_plain("MODEL_SOURCE_TYPE", "objstore"), _plain("PROVIDER", source.provider)]
    if source.endpoint:
        envs.append(_plain("ENDPOINT", source.endpoint))
    return [*envs, _plain("BUCKET", source.bucket), _plain("MODEL_PATH", source.path)]


def _append(envs: Sequence[JsonObject], more: Iterable[JsonObject]) -> tuple[JsonObject, ...]:
    """``envs`` with those of ``more`` whose name is new."""
    present = {_name(env) for env in envs}
    return (*envs, *(env for env in more if _name(env) not in present))


def _name(env: JsonObject) -> str:
    return str(env.get("name", ""))


def _plain(name: str, value: str) -> JsonObject:
    return {"name": name, "value": str(value)}


def _secret(name: str, secret: str, key: str) -> JsonObject:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
