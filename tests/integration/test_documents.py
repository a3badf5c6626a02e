"""Every command of the documents is executed: here against a real API server, or by the test that is named."""

import re
import shutil
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest

from dev.controlplane import ControlPlane
from dev.installation import ROOT
from tests.documents import DOCUMENTS, Step, commands, steps
from tests.integration.support.reader import LOOKS, Reader
from tests.integration.support.shown import llmaz

# Some of them are two dozen calls of kubectl and helm.
pytestmark = pytest.mark.timeout(900)

ELSEWHERE = {
    r"(docker|kind) |for image in ": "needs Docker",
    r"skopeo ": "needs skopeo",
    r"ctr ": "tests/e2e/test_quickstart.py",
    r"make (?!manifests)": "what the Makefile does is tested where it is written",
    r"pip install ": "the Makefile installs the package with all extras",
    r"helm .* test modelswarm": "tests/e2e/test_install.py",
    r"helm upgrade llmaz oci:": "llmaz's own chart is not here",
    r"kubectl exec ": "tests/e2e/test_seed.py",
    r"curl .*\$MANAGER": "tests/dragonfly/test_engine_answers.py",
    r"kubectl swarm |echo \$\?": "tests/integration/test_plugin.py",
}
"""Commands that nothing can answer here, and what executes them, or why nothing does."""
PAGES_ELSEWHERE = {"docs/quickstart.md": "tests/e2e/test_quickstart.py"}
PRINTS_NOTHING = "kubectl get services.inference.llmaz.io -A"
"""All have moved then."""


def elsewhere(step: Step) -> bool:
    return not step.is_values and any(re.match(pattern, step.text) for pattern in ELSEWHERE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False, scheduler=False) as running:
        yield running


@pytest.fixture(scope="module")
def reader(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(cluster, tmp_path_factory.mktemp("clone"))


def prepared(reader: Reader, document: Path) -> None:
    """What the text in front of the commands supposes."""
    match document.stem:
        case "from-llmaz":
            reader.prepare(*llmaz(), release="llmaz")
        case "bittorrent":
            reader.prepare()
            reader.install(agent__enabled=False)
        case _:
            reader.prepare()
            helm = [text for text in map(attrgetter("text"), steps(document)) if text.startswith("helm ")]
            if helm and re.match(r"helm (show|upgrade|rollback|uninstall) ", helm[0]):
                reader.install()


@pytest.mark.skipif(not shutil.which("jq"), reason="the runbooks' commands need jq")
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(path, id=str(path.relative_to(ROOT)))
        for path in DOCUMENTS
        if str(path.relative_to(ROOT)) not in PAGES_ELSEWHERE
        and not all(step.is_values or elsewhere(step) for step in steps(path))
    ],
)
def test_its_commands_work(document: Path, reader: Reader) -> None:
    """In their order; those that show something show something."""
    prepared(reader, document)
    for step in steps(document):
        if elsewhere(step):
            continue
        said = reader.follow(step)
        if LOOKS.match(step.text) and ">" not in step.text and " diff " not in step.text:
            assert said.strip() or step.text == PRINTS_NOTHING, step.text


def test_the_commands_of_the_notes_work(reader: Reader) -> None:
    """What helm prints after an upgrade with everything on, which is more than after an installation."""
    reader.prepare()
    reader.install(dragonfly__managerUrl="http://manager.test:8080")
    notes = reader.type("helm upgrade modelswarm charts/modelswarm -n llmaz-system --reset-then-reuse-values")
    typed = [line.strip() for line in notes.splitlines() if line.strip().startswith(("helm ", "kubectl "))]
    assert len(typed) == 7
    for command in map(Step, typed):
        if not elsewhere(command):
            reader.follow(command)


def test_what_is_executed_elsewhere_is() -> None:
    texts = [text for _, text in commands()]
    for pattern in ELSEWHERE:
        assert any(re.match(pattern, text) for text in texts), f"no document has {pattern}"
    for where in (*ELSEWHERE.values(), *PAGES_ELSEWHERE.values()):
        assert not where.startswith("tests/") or (ROOT / where).is_file()
