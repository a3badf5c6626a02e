"""The swarm's settings, and what they mean in libtorrent's vocabulary.

Nothing here finds peers by itself: no DHT, no local discovery, no port mapping, no trackers, no web seeds. Peers come
from the coordinator and the headless Service, and for complete models from peer exchange as well.
"""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import libtorrent as lt

DEGREE = 4
"""Neighbours of a node in a torrent; up to five nodes are a full mesh. More cost CPU, and spread no faster."""
PARALLEL_WINDOWS = 4
"""Windows that are fetched at a time, the oldest first; the others are only served. Fewer flows lose fewer packets,
and everybody wants the same windows at the same time."""
MAX_CONNECTIONS = 48
"""Of one torrent, those that others made included: also a seed with 500 leeches does not serve each itself."""
REQUESTS = 48
"""Blocks of 16 KiB asked for in advance, per connection. Long queues make peers send what others sent meanwhile."""


DISK_THREADS = 0
"""That read and write. 0: the network's thread does it itself, which saves two hand-offs for each block of 16 KiB: a
fifth of the CPU, and faster (docs/decisions/0012)."""


class Encryption(StrEnum):
    """Of the connections between peers (BitTorrent's own, it hides more than it protects)."""

    OFF = "off"
    PREFERRED = "preferred"
    """Encrypted with whom it is possible, plain with the others."""
    REQUIRED = "required"
    """Whoever speaks plainly is refused."""


@dataclass(frozen=True, slots=True)
class SwarmSettings:
    """``node``: this node's name, as its peers know it. ``host``: the IPv4 or IPv6 address to listen on and to connect
    from; None: all of them.

    ``secret`` makes info-hashes unguessable: only who has it can make or join a torrent. Rates are bytes per second for
    all torrents together, 0: no limit. ``port`` 0 takes a free one (``Swarm.port`` says which).
    """

    node: str
    host: str | None = None
    port: int = 6881
    secret: bytes = b""
    download_rate: int = 0
    upload_rate: int = 0
    encryption: Encryption = Encryption.OFF
    connections: int = 400
    degree: int = DEGREE
    parallel_windows: int = PARALLEL_WINDOWS
    disk_threads: int = DISK_THREADS
    reading_seconds: float = 2.0
    """How often the counters are read. Only torrents that changed are part of it."""
    stall_seconds: float = 60.0
    """So long may something that is wanted stand still before an event says so."""
    widen_seconds: float = 5.0
    """So long may it stand still before more peers than the neighbours are tried."""

    def __repr__(self) -> str:
        return f"SwarmSettings(node={self.node!r}, host={self.host!r}, port={self.port})"


def listen_interfaces(host: str | None, port: int) -> str:
    """In libtorrent's notation; an IPv6 address in brackets."""
    if host is None:
        return f"0.0.0.0:{port},[::]:{port}"
    return f"[{host}]:{port}" if ipaddress.ip_address(host).version == 6 else f"{host}:{port}"


def to_libtorrent(settings: SwarmSettings) -> "lt.settings_pack":
    """The settings pack of the session."""
    pack: dict[str, str | int | bool] = {
        "user_agent": "modelswarm",
        "peer_fingerprint": "-MW0100-",
        "alert_mask": int(
            lt.alert_category.error | lt.alert_category.status | lt.alert_category.peer | lt.alert_category.storage
        ),
        "alert_queue_size": 50_000,
        "listen_interfaces": listen_interfaces(settings.host, settings.port),
        # Another agent on the port is an error to report, not a reason to take the next port.
        "max_retry_port_bind": 0,
        "listen_system_port_fallback": False,
        "listen_queue_size": 128,
        # Finding peers is somebody else's work.
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_ip_notifier": False,
        "dht_bootstrap_nodes": "",
        "webtorrent_stun_server": "",
        "announce_to_all_trackers": False,
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        # Connections: many torrents with few peers each, on a network where an attempt costs little.
        "allow_multiple_connections_per_ip": False,
        "connections_limit": settings.connections,
        "connection_speed": 500,
        "torrent_connect_boost": 100,
        "smooth_connects": False,
        "min_reconnect_time": 1,
        "max_failcount": 20,
        "peer_connect_timeout": 5,
        "handshake_timeout": 10,
        "tick_interval": 100,
        # A window that waits for its turn looks like one that is complete.
        "close_redundant_connections": False,
        "seeding_outgoing_connections": True,
        "peer_turnover": 0,
        "no_connect_privileged_ports": False,
        "max_peerlist_size": 1000,
        # Everybody gets everything from whoever has it: there is nothing to bargain for among one's own nodes.
        "unchoke_slots_limit": -1,
        "max_out_request_queue": REQUESTS,
        "request_queue_time": 1,
        "max_allowed_in_request_queue": 500,
        "strict_end_game_mode": True,
        "rate_limit_ip_overhead": False,
        "download_rate_limit": settings.download_rate,
        "upload_rate_limit": settings.upload_rate,
        "mixed_mode_algorithm": 0,
        # How many torrents are active is decided by who adds and drops them.
        "active_downloads": -1,
        "active_seeds": -1,
        "active_limit": -1,
        "active_checking": 2,
        # Disk.
        "aio_threads": settings.disk_threads,
        "hashing_threads": 2,
        "file_pool_size": 200,
        "no_atime_storage": True,
        **_encryption(settings.encryption),
    }
    if settings.host is not None:
        pack["outgoing_interfaces"] = settings.host
    return cast("lt.settings_pack", pack)


def _encryption(encryption: Encryption) -> dict[str, str | int | bool]:
    if encryption is Encryption.OFF:
        policy, level = lt.enc_policy.pe_disabled, lt.enc_level.pe_both
    elif encryption is Encryption.PREFERRED:
        policy, level = lt.enc_policy.pe_enabled, lt.enc_level.pe_both
    else:
        policy, level = lt.enc_policy.pe_forced, lt.enc_level.pe_rc4
    return {
        "in_enc_policy": int(policy),
        "out_enc_policy": int(policy),
        "allowed_enc_level": int(level),
        "prefer_rc4": encryption is not Encryption.OFF,
    }
