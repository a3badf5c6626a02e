"""Platforms of images, compared as containerd compares them (github.com/containerd/platforms)."""

from collections.abc import Mapping
from dataclasses import dataclass

from modelswarm.content.fetch import text
from modelswarm.errors import InvalidReference

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7", "amd64": "v1"}


@dataclass(frozen=True, slots=True)
class Platform:
    """``os/architecture[/variant]``, normalised: names as Go has them, a variant that is the default left out."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def satisfies(self, wanted: "Platform") -> bool:
        """Whether an image for this platform is what is meant by ``wanted``."""
        return self == wanted


def parse_platform(value: str) -> Platform:
    """``linux/amd64``, ``linux/arm/v7``. Raises ``InvalidReference``."""
    parts = value.strip().lower().split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidReference(
            f"the platform {value!r} is not of the form OS/ARCHITECTURE[/VARIANT], as in linux/amd64"
        )
    return _normalise(*parts)


def describe(record: object) -> Platform | None:
    """The platform of an index entry or an image config; None if it names none (``unknown/unknown``: attestations)."""
    if not isinstance(record, Mapping):
        return None
    os, architecture = text(record, "os"), text(record, "architecture")
    if os is None or architecture is None or "unknown" in (os, architecture):
        return None
    return _normalise(os.lower(), architecture.lower(), (text(record, "variant") or "").lower())


def _normalise(os: str, architecture: str, variant: str = "") -> Platform:
    os = {"macos": "darwin"}.get(os, os)
    architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant and variant[0].isdigit():
        variant = f"v{variant}"
    return Platform(os, architecture, "" if variant == _DEFAULT_VARIANTS.get(architecture) else variant)
