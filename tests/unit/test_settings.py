import re

import pytest
from pydantic import ValidationError

from modelswarm.api.p2ptask import Engine
from modelswarm.errors import SettingsError
from modelswarm.settings import PREFIX, OperatorSettings


def test_without_anything_the_defaults_hold() -> None:
    assert OperatorSettings.load([], {}) == OperatorSettings()


@pytest.mark.parametrize(
    ("argv", "environ", "field", "value"),
    [
        pytest.param([], {"MODELSWARM_NAMESPACE": "a"}, "namespace", "a", id="a variable"),
        pytest.param(["--namespace", "b"], {"MODELSWARM_NAMESPACE": "a"}, "namespace", "b", id="a flag wins"),
        pytest.param(["--namespace=b"], {}, "namespace", "b", id="a flag with an equals sign"),
        pytest.param([], {"POD_NAMESPACE": "pod"}, "namespace", "pod", id="the pod's own namespace"),
        pytest.param(
            [], {"POD_NAMESPACE": "pod", "MODELSWARM_NAMESPACE": "a"}, "namespace", "a", id="the variable wins over it"
        ),
        pytest.param([], {"MODELSWARM_NAMESPACE": ""}, "namespace", "llmaz-system", id="an empty variable is not set"),
        pytest.param([], {"MODELSWARM_WORKERS": ""}, "workers", 8, id="neither is an empty number"),
        pytest.param([], {"MODELSWARM_WORKERS": "3"}, "workers", 3, id="a number"),
        pytest.param([], {"MODELSWARM_STALL_SECONDS": "1.5"}, "stall_seconds", 1.5, id="a number with a fraction"),
        pytest.param([], {"MODELSWARM_DISTRIBUTION": "false"}, "distribution", False, id="a boolean"),
        pytest.param(["--leader-elect", "false"], {}, "leader_elect", False, id="a boolean as a flag"),
        pytest.param([], {"MODELSWARM_ENGINE": "Direct"}, "engine", Engine.DIRECT, id="an engine"),
        pytest.param(
            ["--agent-root=/m"], {"MODELSWARM_ENGINE": "BitTorrent"}, "engine", Engine.BITTORRENT, id="that is there"
        ),
        pytest.param(["--credential-namespaces", "a, b,,c"], {}, "credential_namespaces", ("a", "b", "c"), id="a list"),
        pytest.param(
            ["--registries", "docker.io=http://127.0.0.1:5000,ghcr.io=https://m/?a=b"],
            {},
            "registries",
            {"docker.io": "http://127.0.0.1:5000", "ghcr.io": "https://m/?a=b"},
            id="a map",
        ),
        pytest.param([], {"MODELSWARM_GATE_TIMEOUT_SECONDS": "0"}, "gate_timeout_seconds", 0, id="zero means never"),
        pytest.param([], {"MODELSWARM_METRICS_PORT": "-1"}, "metrics_port", -1, id="-1 means off"),
        pytest.param([], {"MODELSWARM_UNKNOWN": "x"}, "workers", 8, id="unknown variables do not matter"),
    ],
)
def test_load(argv: list[str], environ: dict[str, str], field: str, value: object) -> None:
    assert getattr(OperatorSettings.load(argv, environ), field) == value


@pytest.mark.parametrize(
    ("argv", "environ", "names"),
    [
        pytest.param(["--workers", "none"], {}, "workers", id="no number"),
        pytest.param(["--workers", "0"], {}, "workers", id="too small"),
        pytest.param([], {"MODELSWARM_STALL_SECONDS": "0"}, "stall_seconds", id="zero seconds"),
        pytest.param([], {"MODELSWARM_STALL_SECONDS": "inf"}, "stall_seconds", id="for ever"),
        pytest.param([], {"MODELSWARM_GATE_TIMEOUT_SECONDS": "nan"}, "gate_timeout_seconds", id="not a number"),
        pytest.param([], {"MODELSWARM_GATE_TIMEOUT_SECONDS": "-1"}, "gate_timeout_seconds", id="a negative time"),
        pytest.param([], {"MODELSWARM_ENGINE": "Carrier"}, "engine", id="an unknown engine"),
        pytest.param(["--engine", "BitTorrent"], {}, "engine", id="an engine that is not configured"),
        pytest.param([], {"MODELSWARM_ENGINE": "Dragonfly"}, "engine", id="nor is this one"),
        pytest.param([], {"MODELSWARM_LOG_LEVEL": "verbose"}, "log_level", id="an unknown level"),
        pytest.param([], {"MODELSWARM_LOG_FORMAT": "xml"}, "log_format", id="an unknown format"),
        pytest.param([], {"MODELSWARM_DISTRIBUTION": "maybe"}, "distribution", id="no boolean"),
    ],
)
def test_what_cannot_work_is_named_by_flag_and_variable(argv: list[str], environ: dict[str, str], names: str) -> None:
    expected = f"--{names.replace('_', '-')} / {PREFIX}{names.upper()}: "
    with pytest.raises(SettingsError, match=re.escape(expected)):
        OperatorSettings.load(argv, environ)


def test_a_map_says_how_to_write_it() -> None:
    with pytest.raises(SettingsError, match=r"--registries: write NAME=VALUE\[,NAME=VALUE\.\.\.\], not 'docker\.io'"):
        OperatorSettings.load(["--registries", "docker.io"], {})


@pytest.mark.parametrize(
    "argv", [["--unknown", "x"], ["--work", "3"], ["--workers"]], ids=["unknown", "abbreviated", "without a value"]
)
def test_a_flag_that_does_not_exist_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        OperatorSettings.load(argv, {})
    assert caught.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_help_describes_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        OperatorSettings.load(["--help"], {})
    assert caught.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name, field in OperatorSettings.model_fields.items():
        assert f"--{name.replace('_', '-')} " in printed
        assert field.description
        assert field.description in printed
    assert "(default: 1800)" in printed


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        OperatorSettings().workers = 3  # type: ignore[misc]
