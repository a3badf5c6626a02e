"""Where the credentials come from, and that kopf gets the same ones."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelswarm.errors import SettingsError
from modelswarm.kube.auth import auth_headers, load_configuration
from modelswarm.kube.login import login_handler


def kubeconfig(path: Path, user: dict[str, Any], **cluster: Any) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{"name": "x", "cluster": {"server": "https://example.invalid:6443", **cluster}}],
                "users": [{"name": "x", "user": user}],
            }
        )
    )
    return path


def contents(path: object) -> str:
    return Path(str(path)).read_text()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def test_a_token_goes_to_kopf_too_with_an_expiration(tmp_path: Path) -> None:
    configuration = await load_configuration(kubeconfig(tmp_path / "config", {"token": "t0k"}))
    assert await auth_headers(configuration) == {"Authorization": "Bearer t0k"}
    info = await login_handler(configuration)(logger=None, retry=0)
    assert (info.server, info.scheme, info.token) == ("https://example.invalid:6443", "Bearer", "t0k")
    assert not info.insecure
    assert isinstance(info.expiration, datetime)
    assert 0 < (info.expiration - datetime.now(UTC)).total_seconds() <= 600


async def test_a_client_certificate_in_the_kubeconfig_goes_to_kopf_as_files(tmp_path: Path) -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    path = kubeconfig(
        tmp_path / "config",
        {"client-certificate-data": encoded("cert"), "client-key-data": encoded("key")},
        **{"certificate-authority-data": encoded("ca")},
    )
    configuration = await load_configuration(path)
    info = await login_handler(configuration)()
    assert await auth_headers(configuration) == {}
    assert info.token is None
    files = (info.ca_path, info.certificate_path, info.private_key_path)
    assert [contents(file) for file in files] == ["ca", "cert", "key"]


async def test_user_and_password(tmp_path: Path) -> None:
    configuration = await load_configuration(kubeconfig(tmp_path / "config", {"username": "u", "password": "p"}))
    expected = base64.b64encode(b"u:p").decode()
    assert await auth_headers(configuration) == {"Authorization": f"Basic {expected}"}
    info = await login_handler(configuration)()
    assert info.as_http_headers() == {"Authorization": f"Basic {expected}"}


async def test_kubeconfig_of_the_environment_comes_before_the_pods_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", {"token": "mine"})))
    configuration = await load_configuration()
    assert await auth_headers(configuration) == {"Authorization": "Bearer mine"}


async def test_a_pods_token_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    ca.write_text("ca")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr("modelswarm.kube.auth.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("kubernetes_asyncio.config.incluster_config.SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr("kubernetes_asyncio.config.incluster_config.SERVICE_CERT_FILENAME", str(ca))
    monkeypatch.setattr("kubernetes_asyncio.config.incluster_config.TOKEN_REFRESH_PERIOD", datetime.resolution * 0)
    configuration = await load_configuration()
    assert str(configuration.host) == "https://10.0.0.1:443"
    assert await auth_headers(configuration) == {"Authorization": "Bearer first"}
    token.write_text("second")
    assert await auth_headers(configuration) == {"Authorization": "Bearer second"}
    info = await login_handler(configuration)()
    assert (info.scheme, info.token) == ("Bearer", "second")


async def test_an_unverified_server_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", {"token": "t"}, **{"insecure-skip-tls-verify": True})
    with pytest.raises(SettingsError, match="insecure-skip-tls-verify is not accepted"):
        await load_configuration(path)


async def test_no_configuration_at_all_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match="KUBECONFIG: cannot log in"):
        await load_configuration()


@pytest.mark.parametrize(
    ("server", "no_proxy", "proxy"),
    [
        ("https://example.invalid:6443", "", "http://proxy:3128"),
        ("https://example.invalid:6443", "example.invalid", None),
        ("https://127.0.0.1:6443", "", None),
    ],
)
async def test_the_environments_proxy_is_for_both_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, no_proxy: str, proxy: str | None
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    configuration = await load_configuration(kubeconfig(tmp_path / "config", {"token": "t"}, server=server))
    assert configuration.proxy == proxy
    assert (await login_handler(configuration)()).proxy_url == proxy
