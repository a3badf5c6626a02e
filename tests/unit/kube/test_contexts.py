"""Which namespace and which cluster a kubeconfig's contexts mean."""

from pathlib import Path

import pytest
import yaml

from modelswarm.errors import SettingsError
from modelswarm.kube.auth import load_configuration
from modelswarm.kube.contexts import default_namespace


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "config"
    contexts = {"one": {"cluster": "a", "user": "u"}, "two": {"cluster": "b", "user": "u", "namespace": "team"}}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": name, "context": context} for name, context in contexts.items()],
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.test"}} for name in "ab"],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_namespace_is_the_contexts(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_namespace(kubeconfig) == "default"
    assert default_namespace(kubeconfig, "two") == "team"
    assert default_namespace(kubeconfig, "three") == "default"
    assert default_namespace() == "default"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert default_namespace(context="two") == "team"


async def test_the_cluster_is_the_contexts(kubeconfig: Path) -> None:
    assert (await load_configuration(kubeconfig)).host == "https://a.test"
    assert (await load_configuration(kubeconfig, "two")).host == "https://b.test"
    with pytest.raises(SettingsError, match="three"):
        await load_configuration(kubeconfig, "three")
