"""The configuration files of Dragonfly's programs, as data.

What is not written here is Dragonfly's default, except where the default is made for large clusters: intervals are
short, so that a test sees within seconds what a cluster sees within minutes.
"""

from dataclasses import dataclass
from pathlib import Path

CLUSTER = 1
"""The scheduler cluster that a new manager makes by itself."""

DATABASE = "manager"
DATABASE_USER = "dragonfly"
DATABASE_PASSWORD = "dragonfly"
"""Not empty, because the manager does not accept an empty one. The database is reachable on loopback only."""

SEED_REFRESH_SECONDS = 30.0
"""How often the scheduler renews its list of seeds, counted from its own start. Compiled into it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self}"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the parts that exist once listen."""

    mariadb: Endpoint
    redis: Endpoint
    manager: Endpoint
    manager_grpc: Endpoint
    scheduler: Endpoint


@dataclass(frozen=True, slots=True)
class DaemonPorts:
    """The ports of one dfdaemon, all on its own address."""

    upload: int = 4000
    proxy: int = 4001
    metrics: int = 4002
    health: int = 4003
    stats: int = 4004
    tcp: int = 4005
    quic: int = 4006


@dataclass(frozen=True, slots=True)
class DaemonOptions:
    """What tests and benchmarks vary."""

    link_rate: int | None = None
    """Bytes per second that a daemon sends, and as many that it receives, each by Dragonfly's own limiter."""
    blob_digest_ids: bool = False
    """Whether image layers pulled through the daemons' proxies have the layer's digest as task id."""
    piece_timeout_seconds: int = 30


def manager_config(directory: Path, servers: Servers) -> dict[str, object]:
    mysql: dict[str, object] = {
        "user": DATABASE_USER,
        "password": DATABASE_PASSWORD,
        "host": servers.mariadb.address,
        "port": servers.mariadb.port,
        "dbname": DATABASE,
        "migrate": True,
    }
    grpc = servers.manager_grpc
    return {
        "server": {
            **_directories(directory),
            "grpc": {
                "advertiseIP": grpc.address,
                "listenIP": grpc.address,
                "port": {"start": grpc.port, "end": grpc.port},
            },
            "rest": {"addr": str(servers.manager)},
        },
        "auth": {"jwt": {"realm": "Dragonfly", "key": "bW9kZWxzd2FybQ==", "timeout": "48h", "maxRefresh": "48h"}},
        "database": {
            "type": "mysql",
            "mysql": mysql,
            "redis": {"addrs": [str(servers.redis)], "db": 0, "brokerDB": 1, "backendDB": 2},
        },
        "metrics": {"enable": False},
        "console": True,
    }


def scheduler_config(directory: Path, servers: Servers, metrics: Endpoint) -> dict[str, object]:
    own = servers.scheduler
    return {
        "server": {
            **_directories(directory),
            "advertiseIP": own.address,
            "listenIP": own.address,
            "port": own.port,
            # Part of the name of the queue that its jobs come through. Constant, so that jobs survive its restart.
            "host": "scheduler-1",
        },
        "manager": {
            "addr": str(servers.manager_grpc),
            "schedulerClusterID": CLUSTER,
            "keepAlive": {"interval": "1s"},
        },
        "database": {"redis": {"addrs": [str(servers.redis)], "brokerDB": 1, "backendDB": 2}},
        "job": {"enable": True},
        "metrics": {"enable": True, "addr": str(metrics)},
        "console": True,
    }


def daemon_config(
    directory: Path,
    servers: Servers,
    *,
    name: str,
    address: str,
    socket: Path,
    ports: DaemonPorts,
    seed: bool,
    options: DaemonOptions,
) -> dict[str, object]:
    download: dict[str, object] = {
        "server": {"socketPath": str(socket)},
        "pieceTimeout": f"{options.piece_timeout_seconds}s",
    }
    upload: dict[str, object] = {"server": {"ip": address, "port": ports.upload}}
    if options.link_rate is not None:
        download["bandwidthLimit"] = f"{options.link_rate}B"
        upload["bandwidthLimit"] = f"{options.link_rate}B"
    config: dict[str, object] = {
        "host": {"ip": address, "hostname": name, "schedulerClusterID": CLUSTER},
        "server": {"pluginDir": str(directory / "plugins"), "cacheDir": str(directory / "cache")},
        "manager": {"addr": servers.manager_grpc.url},
        "scheduler": {"announceInterval": "5s"},
        "dynconfig": {"refreshInterval": "5s"},
        "download": download,
        "upload": upload,
        "proxy": {
            "server": {"ip": address, "port": ports.proxy},
            "registryMirror": {
                "addr": "https://index.docker.io",
                "enableTaskIDBasedBlobDigest": options.blob_digest_ids,
            },
            "rules": [{"regex": "blobs/sha256.*"}],
        },
        "storage": {
            "dir": str(directory / "storage"),
            "keep": True,
            "server": {"ip": address, "tcpPort": ports.tcp, "quicPort": ports.quic},
        },
        "metrics": {"server": {"ip": address, "port": ports.metrics}},
        "health": {"server": {"ip": address, "port": ports.health}},
        "stats": {"server": {"ip": address, "port": ports.stats}},
        # The default deletes tasks as soon as the disk of the machine, whoever filled it, is at 80 %.
        "gc": {"policy": {"taskTTL": "720h", "diskHighThresholdPercent": 99, "diskLowThresholdPercent": 98}},
        "backend": {"enableHickoryDNS": False},
    }
    if seed:
        config["seedPeer"] = {"enable": True, "type": "super"}
    return config


def _directories(directory: Path) -> dict[str, object]:
    return {"logDir": str(directory / "log"), "pluginDir": str(directory / "plugins")}
