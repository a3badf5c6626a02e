import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelswarm import __version__
from modelswarm.cli import main


@pytest.mark.parametrize("argument", ["version", "--version"])
def test_the_version_is_printed(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([argument])
    except SystemExit as left:
        code = int(left.code or 0)
    assert code == 0
    assert capsys.readouterr().out == f"modelswarm {__version__}\n"


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {command} " in printed for command in ("operator", "load", "render", "version"))


@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_what_is_no_command_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "module", "result", "code"),
    [
        pytest.param("operator", "modelswarm.operator", None, 0, id="operator"),
        pytest.param("load", "modelswarm.loader", 3, 3, id="load"),
        pytest.param("render", "modelswarm.cli.render", 1, 1, id="render"),
    ],
)
def test_a_command_gets_the_arguments_after_it(
    command: str, module: str, result: int | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[str]]] = []

    def load(name: str) -> SimpleNamespace:
        def run(arguments: Sequence[str]) -> int | None:
            seen.append((name, list(arguments)))
            return result

        return SimpleNamespace(main=run)

    monkeypatch.setattr(importlib, "import_module", load)
    assert main([command, "--option", "-f", "value"]) == code
    assert seen == [(module, ["--option", "-f", "value"])]


def test_the_command_itself_needs_nothing_that_only_one_of_its_images_has() -> None:
    """The loader's image has neither a YAML parser nor a Kubernetes client."""
    code = "import sys, modelswarm.cli; print(sorted({'yaml', 'kopf', 'kubernetes_asyncio'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_who_is_told_to_end_while_a_command_is_imported_ends(tmp_path: Path) -> None:
    """Also as the first process of a container, which has no default for signals: so the exit code is its own."""
    (tmp_path / "slow.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    code = "import modelswarm.cli as cli; cli._COMMANDS['agent'] = ('slow', ''); cli.main(['agent'])"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.terminate()
        assert process.wait(30) == 143


def test_it_runs_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "modelswarm", "version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"modelswarm {__version__}\n"
