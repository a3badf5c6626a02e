"""What the rest of the operator sees of the API server, so that a test can put something else in its place."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from modelswarm.api.meta import JsonObject
from modelswarm.kube.kinds import Kind


class Listing(list[JsonObject]):
    """The objects of a LIST, with the resourceVersion at which the list was true."""

    def __init__(self, objects: Sequence[JsonObject] = (), resource_version: str = "") -> None:
        super().__init__(objects)
        self.resource_version = resource_version


class Change(StrEnum):
    """What a watch tells of an object, in the API server's words."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    """Nothing happened up to this resourceVersion; the object has nothing else."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``object`` is the new state; for DELETED the last one, with the resourceVersion of the deletion."""

    change: Change
    object: JsonObject


class KubePort(Protocol):
    """Plain dicts in and out; every failure is a ``modelswarm.errors.KubeError``."""

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> JsonObject:
        """Raises NotFound."""
        ...

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> Listing:
        """``metadata_only``: the server leaves out everything but ``metadata``."""
        ...

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
        seconds: float = 300.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """What happens after ``resource_version``, until the server ends the watch after about ``seconds``.

        To be closed (``contextlib.aclosing``). Raises Unavailable with status 410 if that version is too old: list
        again then.
        """
        ...

    async def apply(self, obj: JsonObject, *, force: bool = True) -> JsonObject:
        """Server-side apply: creates or changes the object so that we own exactly the fields in ``obj``.

        With ``metadata.uid`` a missing object is not created, and one that was re-created gives a Conflict.
        """
        ...

    async def apply_status(self, obj: JsonObject) -> JsonObject:
        """Make ``obj["status"]`` the whole status of the object that ``obj["metadata"]`` names.

        Fields that are not in it go away. ``metadata.uid``, where given, must be the object's (Conflict otherwise), and
        so must ``metadata.resourceVersion``.
        """
        ...

    async def create(self, obj: JsonObject) -> JsonObject:
        """Raises Conflict if the object exists."""
        ...

    async def replace(self, obj: JsonObject) -> JsonObject:
        """PUT; raises Conflict if ``metadata.resourceVersion`` is not the current one."""
        ...

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Returns False if it was gone already, or if another object has taken the name (``uid`` differs).

        Raises Conflict if it has changed since ``resource_version``.
        """
        ...

    async def json_patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        operations: Sequence[JsonObject],
        *,
        subresource: str | None = None,
    ) -> JsonObject:
        """RFC 6902; a failed ``test`` gives Invalid."""
        ...
