"""The seed's variables with the seed's defaults, ours beside them, and one clear line for what cannot work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelswarm.agent.process import _swarm_settings
from modelswarm.agent.settings import AgentSettings, Encryption, Share, parse_bytes, parse_share
from modelswarm.errors import SettingsError

NODE = {"NODE_NAME": "gpu-1"}
SEED_DEFAULTS = {
    "p2p_enabled": True,
    "peers_service": ("ome-peers.ome.svc.cluster.local",),
    "torrent_port": 6881,
    "metainfo_port": 8081,
    "max_download_rate": 524288000,
    "max_upload_rate": 524288000,
    "encryption_enabled": False,
    "encryption_required": False,
    "download_timeout": 3600,
    "model_dir": Path("/mnt/models"),
    "pod_namespace": "ome",
    "http_port": 8080,
    "origin_nodes": None,
}


def load(**environ: str) -> AgentSettings:
    return AgentSettings.load([], {**NODE, **environ})


@pytest.mark.parametrize(("field", "value"), SEED_DEFAULTS.items())
def test_defaults(field: str, value: object) -> None:
    assert getattr(load(), field) == value


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        pytest.param("P2P_ENABLED", "false", "p2p_enabled", False, id="P2P off"),
        pytest.param("P2P_ENABLED", "", "p2p_enabled", True, id="an empty variable is not set"),
        pytest.param("PEERS_SERVICE", "a.b.svc, 127.0.1.2", "peers_service", ("a.b.svc", "127.0.1.2"), id="peers"),
        pytest.param("P2P_TORRENT_PORT", "7000", "torrent_port", 7000, id="a port"),
        pytest.param("P2P_MAX_UPLOAD_RATE", "0", "max_upload_rate", 0, id="no limit"),
        pytest.param("P2P_MAX_DOWNLOAD_RATE", "100Mi", "max_download_rate", 100 << 20, id="a rate with a unit"),
        pytest.param("P2P_DOWNLOAD_TIMEOUT", "60", "download_timeout", 60, id="seconds"),
        pytest.param("P2P_ORIGIN_NODES", "1", "origin_nodes", 1, id="one reader"),
        pytest.param("POD_IP", "fd00::1", "pod_ip", "fd00::1", id="an IPv6 address"),
        pytest.param("POD_IP", "[fd00::1]", "pod_ip", "fd00::1", id="an IPv6 address in brackets"),
        pytest.param("MODEL_DIR", "/raid/models", "model_dir", Path("/raid/models"), id="a directory"),
        pytest.param("MODELSWARM_AGENT_QUOTA", "80%", "quota", Share(fraction=0.8), id="a quota in percent"),
        pytest.param("MODELSWARM_AGENT_QUOTA", "500Gi", "quota", Share(bytes=500 << 30), id="a quota in bytes"),
        pytest.param("MODELSWARM_AGENT_HIGH_WATERMARK", "95%", "high_watermark", 0.95, id="a watermark in percent"),
        pytest.param("MODELSWARM_AGENT_TASK_NAMESPACES", "a,b", "task_namespaces", ("a", "b"), id="namespaces"),
        pytest.param("LOG_LEVEL", "debug", "log_level", "debug", id="OME's variable for the log level"),
    ],
)
def test_variables(variable: str, text: str, field: str, value: object) -> None:
    assert getattr(load(**{variable: text}), field) == value


def test_our_log_level_wins_over_omes() -> None:
    assert load(LOG_LEVEL="debug", MODELSWARM_AGENT_LOG_LEVEL="error").log_level == "error"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        pytest.param({"NODE_NAME": ""}, "NODE_NAME: Field required", id="no node"),
        pytest.param({"P2P_ENABLED": "perhaps"}, "P2P_ENABLED: ", id="no boolean"),
        pytest.param({"P2P_TORRENT_PORT": "70000"}, "P2P_TORRENT_PORT: ", id="no port"),
        pytest.param({"P2P_TORRENT_PORT": "8081"}, "P2P_METAINFO_PORT and .* must differ", id="a port taken twice"),
        pytest.param({"P2P_MAX_UPLOAD_RATE": "-1"}, "P2P_MAX_UPLOAD_RATE: .*not a number of bytes", id="a rate"),
        pytest.param({"P2P_DOWNLOAD_TIMEOUT": "0"}, "P2P_DOWNLOAD_TIMEOUT: ", id="no time"),
        pytest.param({"P2P_DOWNLOAD_TIMEOUT": "inf"}, "P2P_DOWNLOAD_TIMEOUT: ", id="for ever"),
        pytest.param({"P2P_ORIGIN_NODES": "0"}, "P2P_ORIGIN_NODES: ", id="nobody may read the origin"),
        pytest.param({"POD_IP": "host"}, "POD_IP: .*IPv4 or IPv6", id="no address"),
        pytest.param({"MODEL_DIR": "models"}, "MODEL_DIR: .*absolute", id="a relative directory"),
        pytest.param({"PEERS_SERVICE": ","}, "PEERS_SERVICE: ", id="no peers"),
        pytest.param({"MODELSWARM_AGENT_QUOTA": "120%"}, "MODELSWARM_AGENT_QUOTA: .*more than there is", id="quota"),
        pytest.param({"MODELSWARM_AGENT_QUOTA": "much"}, "MODELSWARM_AGENT_QUOTA: .*500Gi", id="no quantity"),
        pytest.param({"MODELSWARM_AGENT_LOW_WATERMARK": "0.95"}, "must not be above", id="watermarks upside down"),
        pytest.param({"MODELSWARM_AGENT_SERVICE": "a.b"}, "MODELSWARM_AGENT_SERVICE: ", id="no name of a Service"),
        pytest.param({"LOG_LEVEL": "loud"}, "LOG_LEVEL: ", id="an unknown level"),
    ],
)
def test_what_cannot_work_is_one_line_that_names_the_variable(environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        load(**environ)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, Encryption.OFF, id="off"),
        pytest.param({"P2P_ENCRYPTION_ENABLED": "true"}, Encryption.PREFERRED, id="enabled"),
        pytest.param({"P2P_ENCRYPTION_REQUIRED": "true"}, Encryption.REQUIRED, id="required implies enabled"),
    ],
)
def test_encryption(environ: dict[str, str], expected: Encryption) -> None:
    assert load(**environ).encryption is expected


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param({}, "ome-peers", id="the seed's"),
        pytest.param({"PEERS_SERVICE": "swarm.models.svc"}, "swarm", id="as in PEERS_SERVICE"),
        pytest.param({"PEERS_SERVICE": "127.0.1.1,127.0.1.2"}, "ome-peers", id="PEERS_SERVICE has addresses"),
        pytest.param({"PEERS_SERVICE": "fd00::1"}, "ome-peers", id="PEERS_SERVICE has an IPv6 address"),
        pytest.param({"MODELSWARM_AGENT_SERVICE": "other"}, "other", id="ours"),
    ],
)
def test_service_name(environ: dict[str, str], expected: str) -> None:
    assert load(**environ).service_name == expected


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("1Ki", 1024),
        ("1.5Gi", 3 << 29),
        ("2T", 2 * 10**12),
        ("10k", 10_000),
        ("5 MiB", 5 << 20),
    ],
)
def test_bytes(text: str, bytes_: int) -> None:
    assert parse_bytes(text) == bytes_


@pytest.mark.parametrize("text", ["", "-1", "1e3", "Gi", "1Xi", "1 2", "0x10"])
def test_no_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "of_a_thousand"),
    [("80%", 800), ("0.5", 500), ("1.0", 1000), ("100", 100), ("1Mi", 1000), ("0", 0), ("0%", 0)],
)
def test_share(text: str, of_a_thousand: int) -> None:
    assert parse_share(text).of(1000) == of_a_thousand


def test_an_optional_secret_that_does_not_exist_is_none(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    file, optional = "MODELSWARM_AGENT_PEER_SECRET_FILE", "MODELSWARM_AGENT_PEER_SECRET_OPTIONAL"
    assert load().peer_secret_file is None
    assert load(**{file: str(path)}).peer_secret_file == path
    assert load(**{file: str(path), optional: "true"}).peer_secret_file is None
    path.write_text("0123456789abcdef")
    assert load(**{file: str(path), optional: "true"}).peer_secret_file == path


def test_help_names_every_variable() -> None:
    program = (
        "import os; from modelswarm.agent.settings import AgentSettings; AgentSettings.load(['--help'], os.environ)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    assert run.returncode == 0, run.stderr
    for word in ("NODE_NAME", "P2P_ENABLED", "MODELSWARM_AGENT_QUOTA", "ome-peers.ome.svc.cluster.local", "100%"):
        assert word in run.stdout


def test_the_swarm_has_what_the_variables_say() -> None:
    settings = load(
        P2P_TORRENT_PORT="7000",
        P2P_MAX_DOWNLOAD_RATE="1Mi",
        P2P_MAX_UPLOAD_RATE="2Mi",
        P2P_ENCRYPTION_REQUIRED="true",
        POD_IP="127.0.0.9",
    )
    swarm = _swarm_settings(settings, b"secret")
    assert (swarm.host, swarm.port, swarm.secret) == ("127.0.0.9", 7000, b"secret")
    assert (swarm.download_rate, swarm.upload_rate) == (1 << 20, 2 << 20)
    assert str(swarm.encryption) == "required"
