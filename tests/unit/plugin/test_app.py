"""The program without a cluster: arguments, help, errors, exit codes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dev.installation import ROOT
from modelswarm import __version__
from modelswarm.errors import (
    CommandError,
    Forbidden,
    Invalid,
    ModelswarmError,
    NotFound,
    SettingsError,
    Unavailable,
)
from modelswarm.plugin.app import app
from modelswarm.plugin.exits import NOT_INSTALLED, Exit, failure_of
from modelswarm.plugin.reference import Reference, What, missing, parse
from tests.documents import commands

COMMANDS = ("status", "tree", "why", "plan", "prefetch", "cache", "retry", "suspend", "resume", "doctor")
DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "kubectl-swarm.md"


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")


def test_the_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"kubectl-swarm {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_a_place_in_the_document(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--kubeconfig" in result.output
    assert f"\n## {command}" in DOCUMENT.read_text() or f", {command}" in DOCUMENT.read_text()


DOCUMENTED = sorted({text.partition("  #")[0].strip() for _, text in commands() if text.startswith("kubectl swarm ")})


@pytest.mark.parametrize("command", [each for each in DOCUMENTED if not each.endswith("--version")])
def test_commands_of_the_documents_are_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get as far as to look for a cluster. What they answer there is seen in tests/integration/test_plugin.py."""
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, command.split()[2:])
    assert (result.exit_code, "cannot log in to a cluster" in result.output) == (Exit.CLUSTER, True), result.output


@pytest.mark.parametrize("code", Exit)
def test_every_exit_code_is_in_the_document(code: Exit) -> None:
    assert f"| `{int(code)}` |" in DOCUMENT.read_text()


@pytest.mark.parametrize(
    ("words", "code", "saying"),
    [
        pytest.param(["status"], 3, "cannot log in to a cluster", id="no kubeconfig"),
        pytest.param(["status", "-n", "x", "-A"], 2, "exclude each other", id="two answers to one question"),
        pytest.param(["why", "nothing"], 2, "write playground/NAME", id="no kind"),
        pytest.param(["why", "node/"], 2, "does not name an object", id="no name"),
        pytest.param(["tree", "node/x"], 2, "write playground/NAME", id="a kind of another command"),
        pytest.param(["prefetch", "org/name", "--nodes", "gpu"], 2, "LABEL=VALUE", id="no selector"),
        pytest.param(["prefetch", "org/name", "--copies", "some"], 2, "a number from 1 on", id="no number"),
        pytest.param(["prefetch", "org/name", "--as", "dog"], 2, "write model or image", id="neither"),
        pytest.param(["plan", "-f", "/nonexistent"], 2, "could be read", id="no file"),
        pytest.param(["plan", "-f", "x", "--rate", "fast"], 2, "--rate", id="no rate"),
        pytest.param(["status", "-o", "xml"], 2, "xml", id="no such form"),
        pytest.param(["frobnicate"], 2, "frobnicate", id="no such command"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_asked(words: list[str], code: int, saying: str) -> None:
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, saying in result.stderr, result.stdout) == (code, True, ""), result.stderr


def test_a_file_without_anything_to_plan(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: x}\n")
    result = CliRunner().invoke(app, ["plan", "-f", str(file)])
    assert (result.exit_code, "nothing to plan" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("error", "code", "saying"),
    [
        pytest.param(Unavailable("no answer"), 3, "cannot reach the cluster", id="no answer"),
        pytest.param(Forbidden("no", status=403), 3, "refuses it: no", id="forbidden"),
        pytest.param(Forbidden("no", status=401), 3, "log in again", id="not logged in"),
        pytest.param(SettingsError("KUBECONFIG: x"), 3, "KUBECONFIG: x", id="no kubeconfig"),
        pytest.param(NotFound("gone", status=404), 4, "gone", id="not found"),
        pytest.param(Invalid("bad", status=422), 1, "bad", id="invalid"),
        pytest.param(NOT_INSTALLED, 5, "not installed", id="no CRDs"),
        pytest.param(CommandError("x", 2), 2, "x", id="a command's own"),
        pytest.param(ModelswarmError("x"), 1, "x", id="anything else"),
    ],
)
def test_exit_codes_of_errors(error: ModelswarmError, code: int, saying: str) -> None:
    line, found = failure_of(error)
    assert (found, saying in line) == (code, True)


@pytest.mark.parametrize(
    ("text", "default", "wanted"),
    [
        pytest.param("playground/x", None, Reference(What.PLAYGROUND, "x"), id="kind and name"),
        pytest.param("pl/x", None, Reference(What.PLAYGROUND, "x"), id="short name"),
        pytest.param("p2ptasks.llmaz.io/x", None, Reference(What.TASK, "x"), id="as kubectl prints it"),
        pytest.param("Node/x", None, Reference(What.NODE, "x"), id="upper case"),
        pytest.param("x", What.TASK, Reference(What.TASK, "x"), id="a name alone"),
    ],
)
def test_references(text: str, default: What | None, wanted: Reference) -> None:
    assert parse(text, What, default) == wanted


def test_what_may_have_been_meant() -> None:
    assert "did you mean chat?" in str(missing(What.PLAYGROUND, "chad", ["chat", "other"]))
    assert "did you mean" not in str(missing(What.PLAYGROUND, "zzz", ["chat"]))
