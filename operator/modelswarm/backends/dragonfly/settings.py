"""What the engine is configured with. The operator's settings (``dragonfly_*``) are turned into one of these."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

DOCKER_HUB_MIRROR = "https://index.docker.io"
"""What Dragonfly's chart writes for ``docker.io`` into containerd's mirror configuration."""


@dataclass(frozen=True, slots=True)
class DragonflySettings:
    """Times are seconds. What goes into task ids (``tag``, ``application``, hosts) must be the same on the nodes."""

    manager_url: str
    clusters: tuple[int, ...] = (1,)
    """Scheduler clusters that get the bytes; each has jobs of its own."""
    seed_count: int = 1
    """On how many seed peers of a cluster."""
    concurrency: int = 8
    """Files that a job downloads at once."""
    job_files: int = 64
    job_bytes: int = 100 << 30
    """Bounds of one job: what does not end within ``job_seconds`` has to be in several."""
    jobs_in_flight: int = 4
    """Jobs of one task that run at once in a cluster."""
    job_seconds: float = 2700.0
    """How long a job may take. The manager gives up looking after 62 minutes, whatever it is told."""
    tag: str = ""
    application: str = ""
    """Models only: containerd sends neither."""
    digest_ids: bool = True
    """Images: whether the nodes keep layers under their digests (the chart's default) or under their URLs."""
    platforms: tuple[str, ...] = ()
    """Of images that name none; empty: those of the nodes."""
    image_hosts: Mapping[str, str] = field(default_factory=dict)
    """Registry → base URL, as the nodes' mirrors name the upstream."""
    schedulers: Mapping[int, str] = field(default_factory=dict)
    """Cluster → ``host:port`` of a scheduler's gRPC, to find the cluster's seed peers; empty: the manager is asked."""
    check_seconds: float = 1800.0
    """How often it is looked whether seed peers still have what they once had; 0: never."""
    allow_gated: bool = False
    """Whether files that need a token may lie in Dragonfly, which hands them to whoever knows the URL."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "manager_url", self.manager_url.rstrip("/"))
        object.__setattr__(self, "clusters", tuple(dict.fromkeys(self.clusters)))
        object.__setattr__(
            self, "image_hosts", MappingProxyType({k: v.rstrip("/") for k, v in self.image_hosts.items()})
        )

    @property
    def deadline(self) -> float:
        """Seconds after which a job that is still pending is taken for lost: its own time, and the manager's lag."""
        return self.job_seconds + 300.0
