"""The two jobs that are asked of the manager. Field names and the units are its own."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

SECOND = 1_000_000_000
"""Nanoseconds: Go writes a duration so, and takes nothing else."""


class PreheatArgs(BaseModel):
    """``urls`` for files, ``url`` (of the manifest) for an image. Credentials come back in every GET of the job."""

    model_config = ConfigDict(frozen=True)

    type: Literal["file", "image"]
    urls: tuple[str, ...] | None = None
    url: str | None = None
    platform: str | None = None
    scope: str = "all_seed_peers"
    """With ``single_seed_peer``, the default, a job that downloaded nothing is a SUCCESS."""
    count: int = 1
    ips: tuple[str, ...] | None = None
    """Only seed peers with these addresses."""
    tag: str = ""
    application: str = ""
    headers: dict[str, str] | None = Field(default=None, repr=False)
    username: str | None = Field(default=None, repr=False)
    password: str | None = Field(default=None, repr=False)
    timeout: int
    """Nanoseconds."""
    concurrent_task_count: int = 8
    enable_task_id_based_blob_digest: bool | None = None
    """Managers that do not know it ignore it, and do not repeat it in the answer."""

    @property
    def carries_credentials(self) -> bool:
        return bool(self.headers or self.username or self.password)


class Preheat(BaseModel):
    """Bring these bytes onto seed peers of one scheduler cluster."""

    model_config = ConfigDict(frozen=True)

    type: Literal["preheat"] = "preheat"
    bio: str = Field(max_length=1024)
    scheduler_cluster_ids: tuple[int, ...]
    args: PreheatArgs

    def to_json(self) -> JsonValue:
        return self.model_dump(mode="json", exclude_none=True)


class GetTask(BaseModel):
    """Which peers of a scheduler cluster have this task."""

    model_config = ConfigDict(frozen=True)

    type: Literal["get_task"] = "get_task"
    bio: str = Field(max_length=1024)
    scheduler_cluster_ids: tuple[int, ...]
    task_id: str

    def to_json(self) -> JsonValue:
        return {
            "type": self.type,
            "bio": self.bio,
            "scheduler_cluster_ids": list(self.scheduler_cluster_ids),
            "args": {"task_id": self.task_id, "timeout": 60 * SECOND},
        }
