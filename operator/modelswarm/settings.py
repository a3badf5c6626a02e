"""The operator's configuration: one frozen object, from environment variables that flags override.

Every field ``some_field`` is the variable ``MODELSWARM_SOME_FIELD`` and the flag ``--some-field``. Times are seconds.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelswarm import __version__
from modelswarm.api.p2ptask import Engine
from modelswarm.errors import SettingsError

PREFIX = "MODELSWARM_"


class OperatorSettings(BaseModel):
    """See the field descriptions; ``modelswarm operator --help`` prints them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    namespace: str = Field(default="llmaz-system", description="namespace of the operator and of model tasks")
    llmaz_namespace: str = Field(default="llmaz-system", description="where llmaz's own controllers would run")
    distribution: bool = Field(default=True, description="false: plain llmaz behaviour, no P2PTasks and no gate")
    engine: Engine = Field(default=Engine.DIRECT, description="what engine Auto means")
    loader_image: str = Field(
        default=f"modelswarm/loader:v{__version__}",
        description="image of the model-loader, unless llmaz-global-config names one",
    )
    credential_namespaces: tuple[str, ...] = Field(
        default=(), description="comma-separated namespaces in which the operator may read the named Secrets"
    )
    registries: dict[str, str] = Field(
        default_factory=dict, description="comma-separated HOST=URL: where to ask for an image registry's manifests"
    )
    placement_copies: int = Field(default=2, ge=1, description="on how many nodes a model task keeps the bytes")
    stall_seconds: float = Field(default=300, gt=0, description="no newly verified byte for so long: fall back")
    fallback_after_seconds: float = Field(
        default=180, gt=0, description="engine or origin unreachable so long: fall back"
    )
    gate_timeout_seconds: float = Field(default=1800, ge=0, description="a gate without progress opens after; 0: never")
    retry_seconds: float = Field(default=300, gt=0, description="how often a failed source is asked again")
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
            prog="modelswarm operator", description="Run the controllers.", allow_abbrev=False
        )
        for name, field in cls.model_fields.items():
            parser.add_argument(
                f"--{name.replace('_', '-')}", dest=name, help=f"{field.description} (default: {_shown(field.default)})"
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
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"--{name.replace('_', '-')} / {PREFIX}{name.upper()}: {first['msg']}") from None


def _shown(default: object) -> str:
    return str(default) if isinstance(default, str | int | float | bool) else "none"


def _parse(value: str, kind: object, name: str) -> object:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if kind is tuple:
        return tuple(parts)
    if kind is dict:
        if not all("=" in part for part in parts):
            raise SettingsError(f"--{name.replace('_', '-')}: write HOST=URL[,HOST=URL...], not {value!r}")
        return dict(part.split("=", 1) for part in parts)
    return value
