"""Our credentials for kopf's watches. Apart from ``auth``, because the agent runs without kopf."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf
from kubernetes_asyncio.client import Configuration

from modelswarm.kube.auth import auth_headers

KOPF_LOGIN_SECONDS = 600
"""How long kopf uses a token before it asks again. Tokens in pods are renewed long before they end (an hour)."""

Login = Callable[..., Awaitable[kopf.ConnectionInfo]]


def login_handler(configuration: Configuration) -> Login:
    """What to register with ``kopf.on.login``: kopf gets our credentials and asks again before they get old."""

    async def login(**_: Any) -> kopf.ConnectionInfo:
        scheme, _space, token = (await auth_headers(configuration)).get("Authorization", "").partition(" ")
        return kopf.ConnectionInfo(
            server=str(configuration.host),
            ca_path=configuration.ssl_ca_cert,
            scheme=scheme or None,
            token=token or None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            proxy_url=configuration.proxy,
            expiration=datetime.now(UTC) + timedelta(seconds=KOPF_LOGIN_SECONDS),
        )

    return login
