"""Where the API server is and who we are: one configuration for our own requests and for kopf's watches (login)."""

import os
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException
from kubernetes_asyncio.config.incluster_config import SERVICE_HOST_ENV_NAME, SERVICE_TOKEN_FILENAME

from modelswarm.errors import SettingsError

POOL_SIZE = 64
BEARER = "BearerToken"


async def load_configuration(kubeconfig: Path | None = None, context: str | None = None) -> Configuration:
    """From ``kubeconfig``, else ``$KUBECONFIG``, else the pod's ServiceAccount, else ``~/.kube/config``.

    ``context`` names one of a kubeconfig, in place of its current one.
    Raises SettingsError, also for a kubeconfig that turns the verification of the server's certificate off.
    """
    configuration = Configuration()
    path = str(kubeconfig or os.environ.get("KUBECONFIG") or "")
    try:
        if not path and not context and _in_cluster():
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            path = path or str(Path.home() / ".kube" / "config")
            _require_a_file(path)
            await config.load_kube_config(config_file=path, context=context, client_configuration=configuration)
    except ConfigException as error:
        raise SettingsError(f"KUBECONFIG: cannot log in to a cluster: {error}") from None
    if not configuration.verify_ssl:
        raise SettingsError("KUBECONFIG: insecure-skip-tls-verify is not accepted; set certificate-authority-data")
    configuration.connection_pool_maxsize = POOL_SIZE
    configuration.proxy = configuration.proxy or _proxy_for(str(configuration.host))
    return configuration


def _require_a_file(path: str) -> None:
    """Said before the client library says it in its own words, in a log line and an error about something else."""
    if not any(os.path.exists(each) for each in path.split(os.pathsep)):
        raise SettingsError(f"KUBECONFIG: cannot log in to a cluster: {path} does not exist")


def _in_cluster() -> bool:
    return bool(os.environ.get(SERVICE_HOST_ENV_NAME)) and Path(SERVICE_TOKEN_FILENAME).exists()


def _proxy_for(host: str) -> str | None:
    """What the environment says (``https_proxy``, ``no_proxy``), except for this machine, as Go programs do."""
    url = urlsplit(host)
    if url.hostname is None or url.hostname == "localhost" or url.hostname.startswith("127."):
        return None
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)


def open_client(configuration: Configuration) -> ApiClient:
    """The process's one ``ApiClient``; call it in the event loop, and ``await close()`` it at the end."""
    return ApiClient(configuration)


async def auth_headers(configuration: Configuration) -> dict[str, str]:
    """The ``Authorization`` header of the next request, renewed where the credentials are (token file, exec plugin)."""
    token = await configuration.get_api_key_with_prefix(BEARER)
    if token:
        return {"Authorization": str(token)}
    if configuration.username and configuration.password:
        credentials = f"{configuration.username}:{configuration.password}".encode()
        return {"Authorization": f"Basic {b64encode(credentials).decode()}"}
    return {}
