"""The operator's configuration: one frozen object, from environment variables that flags override.

Every field ``some_field`` is the variable ``MODELSWARM_SOME_FIELD`` and the flag ``--some-field``. Times are seconds.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Annotated, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelswarm import __version__
from modelswarm.api.p2ptask import Engine
from modelswarm.backends.dragonfly.settings import DragonflySettings
from modelswarm.errors import SettingsError

PREFIX = "MODELSWARM_"

_NEEDED = {Engine.DRAGONFLY: "dragonfly_manager_url", Engine.BITTORRENT: "agent_root"}
"""The setting without which there is no such engine."""


class OperatorSettings(BaseModel):
    """See the field descriptions; ``modelswarm operator --help`` prints them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    namespace: str = Field(default="llmaz-system", description="namespace of the operator and of model tasks")
    llmaz_namespace: str = Field(default="llmaz-system", description="where llmaz's own controllers would run")
    distribution: bool = Field(default=True, description="false: plain llmaz behaviour, no P2PTasks and no gate")
    engine: Engine = Field(
        default=Engine.AUTO,
        description="the engine that Auto tries first; Auto: Dragonfly, then BitTorrent, where they are configured",
    )
    loader_image: str = Field(
        default=f"modelswarm/loader:v{__version__}",
        description="image of the model-loader, unless llmaz-global-config names one",
    )
    loader_ca: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+$",
        description="CONFIGMAP/KEY in Playgrounds' namespaces: the authorities that loaders believe, where it is there",
    )
    credential_namespaces: tuple[str, ...] = Field(
        default=(), description="comma-separated namespaces in which the operator may read the named Secrets"
    )
    registries: dict[str, str] = Field(
        default_factory=dict, description="comma-separated HOST=URL: where to ask for an image registry's manifests"
    )
    dragonfly_manager_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$",
        description="URL of the Dragonfly manager's REST API; empty: engine Dragonfly is not used",
    )
    dragonfly_token_secret: str = Field(
        default="dragonfly-token", description="Secret (key 'token', operator's namespace) with a personal access token"
    )
    dragonfly_clusters: tuple[int, ...] = Field(
        default=(1,), min_length=1, max_length=64, description="comma-separated scheduler clusters that get the bytes"
    )
    dragonfly_seed_count: int = Field(default=1, ge=1, le=200, description="on how many seed peers of a cluster")
    dragonfly_concurrency: int = Field(default=8, ge=1, le=100, description="files that one job downloads at once")
    dragonfly_job_files: int = Field(default=64, ge=1, le=100, description="files in one job, at most")
    dragonfly_job_gib: int = Field(default=100, ge=1, description="GiB in one job, at most (a larger file goes alone)")
    dragonfly_jobs_in_flight: int = Field(default=4, ge=1, description="jobs at once for one task and cluster")
    dragonfly_job_seconds: float = Field(default=2700, ge=60, le=3600, description="how long one job may take")
    dragonfly_tag: str = Field(default="", description="tag of the files of models; nodes must use the same")
    dragonfly_application: str = Field(default="", description="application of the files of models, as the tag")
    dragonfly_image_ids: str = Field(
        default="digest", pattern="^(digest|url)$", description="how the nodes' proxies name layers: digest or url"
    )
    dragonfly_image_hosts: dict[str, str] = Field(
        default_factory=dict,
        description="comma-separated HOST=URL: a registry as the nodes' mirrors name it (docker.io is index.docker.io)",
    )
    dragonfly_platforms: tuple[str, ...] = Field(
        default=(), description="comma-separated platforms of images that name none; empty: those of the nodes"
    )
    dragonfly_allow_gated: bool = Field(
        default=False, description="true: files that need a token go through Dragonfly too, which guards them no more"
    )
    dragonfly_schedulers: dict[int, Annotated[str, Field(pattern=r"^[^/@\s]+:\d{1,5}$")]] = Field(
        default_factory=dict,
        description="comma-separated CLUSTER=HOST:PORT of schedulers (gRPC), for a quicker Ready; empty: manager only",
    )
    dragonfly_check_seconds: float = Field(
        default=1800, ge=0, description="how often to look whether seed peers still have what they had; 0: never"
    )
    agent_root: str | None = Field(
        default=None,
        pattern=r"^/[^/]",
        description="where the node agents keep models on every node (their MODEL_DIR); empty: no engine BitTorrent",
    )
    agent_namespace: str = Field(default="ome", description="namespace of the node agents and their headless Service")
    agent_service: str = Field(default="ome-peers", description="the node agents' headless Service")
    agent_grace_seconds: float = Field(
        default=300, ge=0, description="how long copies wait for an agent that is away before they are made elsewhere"
    )
    origin_readers: int = Field(
        default=2, ge=1, description="loaders that read the origin at once when the engine has failed them"
    )
    turnstile_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/?#@\s]+$",
        description="URL at which loaders reach the turnstile; empty: they read the origin when they like",
    )
    turnstile_port: int = Field(default=8082, ge=0, description="where the turnstile listens, if it has a URL; 0: any")
    no_hostpath_namespaces: tuple[str, ...] = Field(
        default=(),
        description="comma-separated namespaces whose Pod Security refuses hostPath: loaders there read the origin",
    )
    placement_copies: int = Field(default=2, ge=1, description="on how many nodes a model task keeps the bytes")
    stall_seconds: float = Field(default=300, gt=0, description="no newly verified byte for so long: fall back")
    fallback_after_seconds: float = Field(
        default=180, gt=0, description="engine or origin unreachable so long: fall back"
    )
    gate_timeout_seconds: float = Field(default=1800, ge=0, description="a gate without progress opens after; 0: never")
    retry_seconds: float = Field(default=300, gt=0, description="how often a failed source is asked again")
    image_patience_seconds: float = Field(
        default=5,
        gt=0,
        description="an image that no engine brings is waited for no longer than this (fallback: Direct)",
    )
    image_check_seconds: float = Field(
        default=600, gt=0, description="how often a resolved tag is compared with its pin"
    )
    resync_seconds: float = Field(default=600, gt=0, description="how often everything is listed and looked at again")
    workers: int = Field(default=8, ge=1, description="concurrent reconciles per controller")
    leader_elect: bool = Field(default=True, description="false: do not take the Lease (one replica only)")
    lease_seconds: float = Field(default=15, gt=0, description="how long a dead leader's Lease is respected")
    metrics_port: int = Field(default=8080, ge=-1, description="Prometheus metrics; 0: any free port, -1: off")
    health_port: int = Field(default=8081, ge=-1, description="/healthz and /readyz; 0: any free port, -1: off")
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error"
    )
    log_format: str = Field(default="json", pattern="^(json|text)$", description="json or text")

    @classmethod
    def load(cls, argv: Sequence[str], environ: Mapping[str, str]) -> "OperatorSettings":
        """From flags and environment; raises ``SettingsError`` that names the setting and what is wrong with it."""
        parser = argparse.ArgumentParser(
            prog="modelswarm operator",
            usage="%(prog)s [--SETTING VALUE ...]",
            description="Run the controllers.",
            epilog=f"Each --some-setting is the variable {PREFIX}SOME_SETTING too; the flag wins. Times are seconds.",
            allow_abbrev=False,
        )
        for name, field in cls.model_fields.items():
            parser.add_argument(
                f"--{name.replace('_', '-')}", dest=name, help=f"{field.description} (default: {shown(field.default)})"
            )
        given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
        raw: dict[str, object] = {}
        for name, field in cls.model_fields.items():
            # An empty variable is one that is not set: that is how a template writes an option nobody chose.
            value = given.get(name, environ.get(PREFIX + name.upper()) or None)
            if name == "namespace" and value is None:
                value = environ.get("POD_NAMESPACE") or None
            if value is not None:
                raw[name] = _parse(value, get_origin(field.annotation) or field.annotation, name)
        try:
            settings = cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"--{name.replace('_', '-')} / {PREFIX}{name.upper()}: {first['msg']}") from None
        needed = _NEEDED.get(settings.engine)
        if needed is not None and getattr(settings, needed) is None:
            raise SettingsError(f"--engine / {PREFIX}ENGINE: {settings.engine} needs --{needed.replace('_', '-')}")
        return settings

    def is_hostpath_free(self, namespace: str) -> bool:
        """Whether pods of the namespace must not mount anything of the node."""
        return namespace in self.no_hostpath_namespaces

    def dragonfly(self) -> DragonflySettings | None:
        """The settings of engine Dragonfly, if there is one."""
        if self.dragonfly_manager_url is None:
            return None
        return DragonflySettings(
            manager_url=self.dragonfly_manager_url,
            clusters=self.dragonfly_clusters,
            seed_count=self.dragonfly_seed_count,
            concurrency=self.dragonfly_concurrency,
            job_files=self.dragonfly_job_files,
            job_bytes=self.dragonfly_job_gib << 30,
            jobs_in_flight=self.dragonfly_jobs_in_flight,
            job_seconds=self.dragonfly_job_seconds,
            tag=self.dragonfly_tag,
            application=self.dragonfly_application,
            digest_ids=self.dragonfly_image_ids == "digest",
            platforms=self.dragonfly_platforms,
            image_hosts=self.dragonfly_image_hosts,
            allow_gated=self.dragonfly_allow_gated,
            schedulers=self.dragonfly_schedulers,
            check_seconds=self.dragonfly_check_seconds,
        )


def shown(default: object) -> str:
    """A default as a user would write it; ``none`` for no value."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple) and default:
        return ",".join(map(str, default))
    return str(default) if isinstance(default, str | int | float) else "none"


def _parse(value: str, kind: object, name: str) -> object:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if kind is tuple:
        return tuple(parts)
    if kind is dict:
        if not all("=" in part for part in parts):
            raise SettingsError(f"--{name.replace('_', '-')}: write NAME=VALUE[,NAME=VALUE...], not {value!r}")
        return dict(part.split("=", 1) for part in parts)
    return value
