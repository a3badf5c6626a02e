"""Image references, read and normalised as ``docker`` and the kubelet do (github.com/distribution/reference)."""

import re
from dataclasses import dataclass

from modelswarm.errors import InvalidReference

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}", re.ASCII)
_BARE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LONGEST_REPOSITORY = 255


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A reference with nothing left out: at least one of ``tag`` and ``digest`` is set; the digest decides.

    ``registry`` is the name's own (``docker.io``), not the host that is asked (``registry-1.docker.io``).
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def canonical(self) -> str:
        """``registry/repository[:tag][@digest]``; parses to an equal reference."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG


def is_digest(text: str) -> bool:
    """Whether ``text`` is ``sha256:``, ``sha384:`` or ``sha512:`` and as many lower case hex digits as it takes."""
    return _DIGEST.fullmatch(text) is not None


def parse_reference(text: str) -> ImageReference:
    """The reference that ``text`` means: ``nginx`` is ``docker.io/library/nginx:latest``.

    The part before the first ``/`` is a registry when it has a ``.`` or a ``:``, is ``localhost`` or has upper case.
    With a tag and a digest both are kept; as everywhere, the digest then decides what is pulled.

    Raises ``InvalidReference``.
    """
    if not text:
        raise InvalidReference("the image reference is empty; write it as [REGISTRY/]NAME[:TAG][@DIGEST]")
    if _BARE_ID.fullmatch(text):
        raise InvalidReference(f"{text!r} is an image id, not a reference; write it as [REGISTRY/]NAME[:TAG][@DIGEST]")
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidReference(f"the image reference {text!r} has a bad digest; write @sha256: and 64 hex digits")
    registry, repository = _split_registry(name)
    repository, colon, tag = repository.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReference(
            f"the image reference {text!r} has a bad tag; a tag is up to 128 letters, digits, '_', '.' and '-'"
        )
    if registry == DOCKER_HUB and repository and "/" not in repository:
        repository = f"library/{repository}"
    if not _DOMAIN.fullmatch(registry):
        raise InvalidReference(f"the image reference {text!r} has a bad registry {registry!r}; write HOST[:PORT]")
    if repository != repository.lower():
        raise InvalidReference(f"the image reference {text!r} must be lower case (only the tag may have upper case)")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
        raise InvalidReference(
            f"the image reference {text!r} has a bad name; write it as [REGISTRY/]NAME[:TAG][@DIGEST], "
            "the name in lower case letters, digits and single separators"
        )
    return ImageReference(registry, repository, tag or (None if digest else DEFAULT_TAG), digest or None)


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_registry = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    if not is_registry:
        return DOCKER_HUB, name
    return DOCKER_HUB if first == "index.docker.io" else first, rest
