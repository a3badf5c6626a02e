"""The agent's configuration, from environment variables: the seed's names with the seed's defaults, and ours beside.

What cannot work is refused at the start, in one line that names the variable.
"""

import argparse
import re
import textwrap
from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from modelswarm.errors import SettingsError

SERVICE = "ome-peers"
PEERS_SERVICE = f"{SERVICE}.ome.svc.cluster.local"
RATE = 524_288_000
"""Bytes per second, each way."""
MODEL_DIR = "/mnt/models"

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(|[kKMGTP]i?)B?")
_UNITS = {"": 1, **{unit: 1000**power for power, unit in enumerate("KMGTP", 1)}, "k": 1000}
_UNITS |= {f"{unit}i": 1024**power for power, unit in enumerate("KMGTP", 1)} | {"ki": 1024}
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) *%")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class Encryption(StrEnum):
    """Of BitTorrent connections."""

    OFF = "off"
    PREFERRED = "preferred"
    REQUIRED = "required"


def parse_bytes(text: str) -> int:
    """``500Gi``, ``1.5T``, ``1048576``: as in Kubernetes' quantities. Raises ValueError."""
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a number of bytes; write it as 500Gi or 1048576")
    return int(float(found[1]) * _UNITS[found[2]]) if "." in found[1] else int(found[1]) * _UNITS[found[2]]


class Share(BaseModel):
    """A number of bytes, or a part of a file system (0 to 1)."""

    model_config = ConfigDict(frozen=True)

    bytes: int | None = Field(default=None, ge=0)
    fraction: float | None = Field(default=None, ge=0, le=1)

    def of(self, capacity: int) -> int:
        """In bytes, of a file system with so many; never more than it has."""
        wanted = self.bytes if self.bytes is not None else int(capacity * (self.fraction or 0.0))
        return min(wanted, capacity)


def parse_share(text: str) -> Share:
    """``500Gi``, ``80%`` or ``0.8``. Raises ValueError."""
    percent = _PERCENT.fullmatch(text.strip())
    if percent is not None:
        return Share(fraction=_fraction(float(percent[1]) / 100, text))
    if "." in text and text.strip().replace(".", "", 1).isdigit():
        return Share(fraction=_fraction(float(text), text))
    return Share(bytes=parse_bytes(text))


def _fraction(value: float, text: str) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is more than there is; write 80%, 0.8 or a number of bytes such as 500Gi")
    return value


def _part(value: object) -> object:
    if not isinstance(value, str):
        return value
    percent = _PERCENT.fullmatch(value.strip())
    return float(percent[1]) / 100 if percent is not None else value


def _words(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _address(value: object) -> object:
    return str(ip_address(value.strip("[] "))) if isinstance(value, str) and value else value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Bytes = Annotated[int, BeforeValidator(lambda value: parse_bytes(value) if isinstance(value, str) else value)]
Part = Annotated[float, BeforeValidator(_part), Field(gt=0, le=1)]
ShareText = Annotated[Share, BeforeValidator(lambda value: parse_share(value) if isinstance(value, str) else value)]
Port = Annotated[int, Field(ge=0, le=65535)]


class AgentSettings(BaseModel):
    """See the descriptions; ``modelswarm agent --help`` prints them with their variables."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, allow_inf_nan=False)

    # The seed's.
    p2p_enabled: bool = Field(
        default=True,
        validation_alias="P2P_ENABLED",
        description="false: no peers; every node downloads from the origin by itself",
    )
    peers_service: Words = Field(
        default=(PEERS_SERVICE,),
        min_length=1,
        validation_alias="PEERS_SERVICE",
        description="DNS name of the headless Service of the agents; or several names or addresses, comma-separated",
    )
    torrent_port: Port = Field(
        default=6881, validation_alias="P2P_TORRENT_PORT", description="BitTorrent, the same on all nodes"
    )
    metainfo_port: Port = Field(
        default=8081, validation_alias="P2P_METAINFO_PORT", description="metainfo server, the same on all nodes"
    )
    max_download_rate: Bytes = Field(
        default=RATE,
        ge=0,
        validation_alias="P2P_MAX_DOWNLOAD_RATE",
        description="bytes/s from peers; 100Mi is understood, too; 0: unlimited",
    )
    max_upload_rate: Bytes = Field(
        default=RATE,
        ge=0,
        validation_alias="P2P_MAX_UPLOAD_RATE",
        description="bytes/s to peers; 100Mi is understood, too; 0: unlimited",
    )
    encryption_enabled: bool = Field(
        default=False, validation_alias="P2P_ENCRYPTION_ENABLED", description="encrypt BitTorrent where the peer does"
    )
    encryption_required: bool = Field(
        default=False,
        validation_alias="P2P_ENCRYPTION_REQUIRED",
        description="talk to no peer that does not encrypt; implies P2P_ENCRYPTION_ENABLED",
    )
    download_timeout: float = Field(
        default=3600,
        gt=0,
        validation_alias="P2P_DOWNLOAD_TIMEOUT",
        description="seconds without progress from peers after which a node goes to the origin",
    )
    origin_nodes: int | None = Field(
        default=None,
        ge=1,
        validation_alias="P2P_ORIGIN_NODES",
        description="how many nodes may read one model from the origin at once (1: one reads all); "
        "empty: as many as help",
    )
    node_name: str = Field(min_length=1, max_length=253, validation_alias="NODE_NAME", description="this node")
    pod_name: str = Field(default="", validation_alias="POD_NAME", description="this pod; empty: the node's name")
    pod_namespace: str = Field(
        default="ome", min_length=1, validation_alias="POD_NAMESPACE", description="where Leases and Service are"
    )
    pod_ip: Annotated[str, BeforeValidator(_address)] = Field(
        default="", validation_alias="POD_IP", description="address that the agent listens on; empty: all of them"
    )
    model_dir: Path = Field(
        default=Path(MODEL_DIR), validation_alias="MODEL_DIR", description="directory on the node that models go to"
    )

    # Ours.
    service: str = Field(
        default="",
        validation_alias="MODELSWARM_AGENT_SERVICE",
        description="headless Service whose ready endpoints are the live agents; empty: the one in PEERS_SERVICE",
    )
    http_port: Port = Field(
        default=8080, validation_alias="MODELSWARM_AGENT_HTTP_PORT", description="metrics and health; 0: any free port"
    )
    quota: ShareText = Field(
        default=Share(fraction=1.0),
        validation_alias="MODELSWARM_AGENT_QUOTA",
        description="space that models may take: 500Gi, or 80% of the file system",
    )
    high_watermark: Part = Field(
        default=0.9,
        validation_alias="MODELSWARM_AGENT_HIGH_WATERMARK",
        description="part of the quota above which unused models are evicted, least recently used first",
    )
    low_watermark: Part = Field(
        default=0.8, validation_alias="MODELSWARM_AGENT_LOW_WATERMARK", description="... until so little is taken"
    )
    reserve: ShareText = Field(
        default=Share(bytes=1 << 30),
        validation_alias="MODELSWARM_AGENT_RESERVE",
        description="space that is left free on the file system, whatever the quota: 1Gi, or 5%",
    )
    peer_secret_file: Path | None = Field(
        default=None,
        validation_alias="MODELSWARM_AGENT_PEER_SECRET_FILE",
        description="file with the secret that agents prove to each other that they know, one a line "
        "(the first one signs), read again when it changes; empty: anybody is a peer",
    )
    peer_secret_optional: bool = Field(
        default=False,
        validation_alias="MODELSWARM_AGENT_PEER_SECRET_OPTIONAL",
        description="true: where that file does not exist at the start there is no secret; false: then nothing starts",
    )
    task_namespaces: Words = Field(
        default=(),
        validation_alias="MODELSWARM_AGENT_TASK_NAMESPACES",
        description="comma-separated namespaces whose P2PTasks count; empty: all",
    )
    lease_seconds: float = Field(
        default=120,
        ge=3,
        validation_alias="MODELSWARM_AGENT_LEASE_SECONDS",
        description="how long the Lease of a dead coordinator is respected; renewed four times in it",
    )
    label_limit: int = Field(
        default=100,
        ge=0,
        le=1000,
        validation_alias="MODELSWARM_AGENT_NODE_LABELS",
        description="at most so many content labels on the Node, most recently completed first",
    )
    log_level: str = Field(
        default="info",
        pattern="^(debug|info|warning|error)$",
        validation_alias=AliasChoices("MODELSWARM_AGENT_LOG_LEVEL", "LOG_LEVEL"),
        description="debug, info, warning or error",
    )
    log_format: str = Field(
        default="json",
        pattern="^(json|text)$",
        validation_alias="MODELSWARM_AGENT_LOG_FORMAT",
        description="json or text",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        # With port 0 each listener finds a free one for itself.
        ports = [port for port in (self.torrent_port, self.metainfo_port, self.http_port) if port]
        if len(set(ports)) != len(ports):
            raise ValueError("P2P_TORRENT_PORT, P2P_METAINFO_PORT and MODELSWARM_AGENT_HTTP_PORT must differ")
        if self.low_watermark > self.high_watermark:
            raise ValueError("MODELSWARM_AGENT_LOW_WATERMARK must not be above MODELSWARM_AGENT_HIGH_WATERMARK")
        if not self.model_dir.is_absolute():
            raise ValueError(f"MODEL_DIR: {str(self.model_dir)!r} is not an absolute path")
        if self.service and not _SERVICE_NAME.fullmatch(self.service):
            raise ValueError(f"MODELSWARM_AGENT_SERVICE: {self.service!r} is not the name of a Service")
        return self

    @classmethod
    def load(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "AgentSettings":
        """From the environment; ``argv`` may ask for ``--help``. Raises SettingsError that names the variable.

        An empty variable is one that is not set: that is how a template writes an option nobody chose.
        """
        _parser().parse_args(argv)
        known = {variable for field in cls.model_fields.values() for variable in variables_of(field)}
        try:
            found = cls.model_validate({name: environ[name] for name in known if environ.get(name, "").strip()})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "".join(f"{part}: " for part in first["loc"][:1])
            raise SettingsError(f"{where}{first['msg'].removeprefix('Value error, ')}") from None
        if found.peer_secret_optional and found.peer_secret_file is not None and not found.peer_secret_file.exists():
            return found.model_copy(update={"peer_secret_file": None})
        return found

    @property
    def encryption(self) -> Encryption:
        if self.encryption_required:
            return Encryption.REQUIRED
        return Encryption.PREFERRED if self.encryption_enabled else Encryption.OFF

    @property
    def service_name(self) -> str:
        """The headless Service in our namespace whose ready endpoints are the live agents."""
        first = self.peers_service[0].partition(".")[0]
        return self.service or (first if _SERVICE_NAME.fullmatch(first) else SERVICE)

    @property
    def identity(self) -> str:
        """What this process calls itself in Events."""
        return self.pod_name or self.node_name


def variables_of(field: FieldInfo) -> tuple[str, ...]:
    """The names of a setting's variable; the first one is its own."""
    alias = field.validation_alias
    return tuple(str(each) for each in alias.choices) if isinstance(alias, AliasChoices) else (str(alias),)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modelswarm agent",
        description="Fetch, spread and keep models on this node. Settings are environment variables:",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    lines = []
    for field in AgentSettings.model_fields.values():
        default = "required" if field.is_required() else f"default: {shown(field.default)}"
        text = textwrap.fill(f"{field.description} ({default})", 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
        lines.append(f"  {' or '.join(variables_of(field))}\n{text}")
    parser.epilog = "\n".join(lines) + "\n\nand HF_ENDPOINT and the like for mirrors, see docs/reference/settings.md"
    return parser


def shown(default: object) -> str:
    """A default as a user would write it; ``none`` for no value."""
    match default:
        case Share(bytes=int(amount)):
            return f"{amount >> 30}Gi" if amount % (1 << 30) == 0 else str(amount)
        case Share(fraction=part):
            return f"{(part or 0) * 100:g}%"
        case tuple():
            return ",".join(map(str, default)) or "none"
        case None | "":
            return "none"
        case bool():
            return str(default).lower()
    return str(default)
