"""What the environment asks for. The names are llmaz's; an explicit option (``command``) wins over its variable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from modelswarm.api.openmodel import HubName, ModelHub, ModelSource
from modelswarm.content.credentials import Credentials
from modelswarm.content.source import HubSource, Provider, StoreSource, parse_source, parse_uri
from modelswarm.errors import InvalidReference, LoadError
from modelswarm.loader.effort import Effort
from modelswarm.loader.outcome import Reason


@dataclass(frozen=True, slots=True)
class DfdaemonSettings:
    """How the node's Dragonfly daemon is asked. ``tag`` and ``application`` are those of the preheat."""

    socket: Path
    program: str = "dfget"
    tag: str = ""
    application: str = ""
    stall: float = 120.0
    """Seconds without a byte written, after which it is taken for hung."""
    slowest: float = 8 << 20
    """Bytes per second of one file; below that it is not worth waiting for."""
    allow_gated: bool = False
    """Whether files that need a token may come from it."""

    def limit(self, size: int) -> float:
        """How long a file of ``size`` bytes may take, in seconds."""
        return self.stall + size / self.slowest


@dataclass(frozen=True, slots=True)
class Settings:
    """What to load, where to, and how. ``stall`` is in seconds."""

    source: HubSource | StoreSource
    credentials: Credentials = field(repr=False)
    root: Path
    manifest_dir: Path | None = None
    check: bool = False
    effort: Effort = field(default_factory=Effort)
    stall: float = 60.0
    dfdaemon: DfdaemonSettings | None = None
    node: Path | None = None
    """Where the node's agent keeps this model, or will."""
    public: bool = False
    """Whether anybody may read the content, though there is a token."""
    turnstile: str | None = None
    """URL of who says when the origin may be read."""


def read_source(environ: Mapping[str, str]) -> HubSource | StoreSource:
    """The source that the variables name; raises ``LoadError`` with a message that names the variable to change."""
    kind = environ.get("MODEL_SOURCE_TYPE", "")
    try:
        match kind:
            case "modelhub":
                return _hub(environ)
            case "objstore":
                return _store(environ)
    except InvalidReference as error:
        raise LoadError(error.reason, error.message) from error
    raise _invalid(f"MODEL_SOURCE_TYPE is {kind!r}; it must be modelhub or objstore")


def read_credentials(environ: Mapping[str, str], source: HubSource | StoreSource) -> Credentials:
    """The secrets of this source, and none of another; empty variables count as absent (optional Secrets)."""

    def value(*names: str) -> str | None:
        return next((text for name in names if (text := environ.get(name, "").strip())), None)

    match source:
        case HubSource(hub=HubName.MODELSCOPE):
            return Credentials(modelscope_token=value("MODELSCOPE_API_TOKEN"))
        case HubSource():
            return Credentials(hub_token=value("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
        case StoreSource(provider=Provider.OSS):
            return Credentials(
                access_key_id=value("OSS_ACCESS_KEY_ID"), access_key_secret=value("OSS_ACCESS_KEY_SECRET")
            )
        case StoreSource():
            return Credentials(
                access_key_id=value("AWS_ACCESS_KEY_ID"), access_key_secret=value("AWS_SECRET_ACCESS_KEY")
            )


def read_dfdaemon(environ: Mapping[str, str]) -> DfdaemonSettings | None:
    """None where the variables name no socket."""

    def value(name: str, default: str = "") -> str:
        return environ.get(name, "").strip() or default

    socket = value("MODELSWARM_DFDAEMON_SOCKET")
    if not socket:
        return None
    usual = DfdaemonSettings(Path(socket))
    return DfdaemonSettings(
        Path(socket),
        program=value("MODELSWARM_DFGET", usual.program),
        tag=value("MODELSWARM_DRAGONFLY_TAG"),
        application=value("MODELSWARM_DRAGONFLY_APPLICATION"),
        stall=read_number(environ, "MODELSWARM_DFDAEMON_STALL_SECONDS", int(usual.stall)),
        slowest=read_number(environ, "MODELSWARM_DFDAEMON_SLOWEST_MIB", int(usual.slowest) >> 20) << 20,
        allow_gated=read_switch(environ, "MODELSWARM_DRAGONFLY_ALLOW_GATED"),
    )


def read_turnstile(environ: Mapping[str, str]) -> str | None:
    """None where the variable names no URL: no engine spreads this model, so the origin is read by choice."""
    url = environ.get("MODELSWARM_ORIGIN_TURNSTILE", "").strip()
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise _invalid("MODELSWARM_ORIGIN_TURNSTILE is not a URL; it must be http://HOST[:PORT]")
    return url.rstrip("/")


def read_switch(environ: Mapping[str, str], name: str) -> bool:
    """``true`` or ``false``; absent is false."""
    text = environ.get(name, "").strip().lower()
    if text not in ("", "true", "false"):
        raise _invalid(f"{name} is {text!r}; it must be true or false")
    return text == "true"


def read_node(environ: Mapping[str, str]) -> Path | None:
    """None where no agent of the node keeps the model."""
    directory = environ.get("MODELSWARM_NODE_MODEL", "").strip()
    return Path(directory) if directory else None


def read_number(environ: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of at least 1."""
    text = environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise _invalid(f"{name} is {text!r}; it must be a whole number of at least 1")
    return int(text)


def _hub(environ: Mapping[str, str]) -> HubSource:
    name = environ.get("MODEL_HUB_NAME") or HubName.HUGGINGFACE
    try:
        hub = HubName(name)
    except ValueError:
        raise _invalid(f"MODEL_HUB_NAME is {name!r}; it must be one of {', '.join(HubName)}") from None
    if not environ.get("MODEL_ID"):
        raise _invalid("MODEL_ID is not set; it names the model at the hub, as in ORGANISATION/NAME")
    source = parse_source(
        ModelSource(
            model_hub=ModelHub(
                name=hub,
                model_id=environ["MODEL_ID"],
                revision=environ.get("REVISION") or "main",
                filename=environ.get("MODEL_FILENAME") or None,
                allow_patterns=_patterns(environ.get("MODEL_ALLOW_PATTERNS")),
                ignore_patterns=_patterns(environ.get("MODEL_IGNORE_PATTERNS")),
            )
        )
    )
    assert isinstance(source, HubSource)
    return source


def _store(environ: Mapping[str, str]) -> StoreSource:
    name = environ.get("PROVIDER", "").upper()
    if name not in Provider.__members__:
        raise _invalid(f"PROVIDER is {name!r}; it must be one of {', '.join(Provider)}")
    provider = Provider(name)
    required = ["BUCKET", "MODEL_PATH", *(["ENDPOINT"] if provider is Provider.OSS else [])]
    for variable in required:
        if not environ.get(variable):
            raise _invalid(f"{variable} is not set; an object store needs {', '.join(required)}")
    host = environ["BUCKET"] + (f".{environ['ENDPOINT']}" if provider is Provider.OSS else "")
    source = parse_uri(f"{provider.lower()}://{host}/{environ['MODEL_PATH'].strip('/')}")
    assert isinstance(source, StoreSource)
    return source


def _patterns(text: str | None) -> tuple[str, ...] | None:
    return tuple(pattern for pattern in text.split(",") if pattern) or None if text else None


def _invalid(message: str) -> LoadError:
    return LoadError(Reason.INVALID_SETTINGS, message)
