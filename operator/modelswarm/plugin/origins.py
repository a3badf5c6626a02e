"""Asking the origins what there is, as the operator would: the same resolver, with the user's own credentials.

Mirrors are those of the user's environment, else the operator's. Tokens come from the environment and from the user's
docker configuration, and go to their origin only.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from modelswarm.content.credentials import Credentials, RegistryAuth, parse_docker_config
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.manifest import Manifest
from modelswarm.content.resolve import Resolver
from modelswarm.content.source import Provider, StoreSource, parse_source
from modelswarm.errors import AccessDenied, ContentError
from modelswarm.plugin.installation import MIRRORS, Installation
from modelswarm.plugin.views.asks import Ask, Trouble

AT_ONCE = 8
PATIENCE = httpx.Timeout(30.0, connect=10.0)


@dataclass(slots=True)
class Origins:
    resolver: Resolver
    environ: Mapping[str, str]
    auths: Mapping[str, RegistryAuth]

    async def resolve(
        self, asks: Sequence[Ask], platforms: Sequence[str]
    ) -> tuple[list[tuple[Ask, Manifest]], list[Trouble]]:
        """In the order of the asks. ``platforms``: those of the cluster's nodes, for images that name none."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(ask: Ask) -> Manifest | Trouble:
            async with slots:
                try:
                    return await self._one(ask, platforms)
                except ContentError as error:
                    return Trouble(ask.object, error.reason, error.message)

        answers = await asyncio.gather(*(one(ask) for ask in asks))
        found = [(ask, each) for ask, each in zip(asks, answers, strict=True) if isinstance(each, Manifest)]
        return found, [each for each in answers if isinstance(each, Trouble)]

    async def _one(self, ask: Ask, platforms: Sequence[str]) -> Manifest:
        if ask.source is None:
            return await self.resolver.resolve_image(ask.content, ask.platforms or platforms, self.auths)
        source = parse_source(ask.source)
        return await self.resolver.resolve_model(source, self._credentials(source))

    def _credentials(self, source: object) -> Credentials:
        prefix = "OSS" if isinstance(source, StoreSource) and source.provider is Provider.OSS else "AWS"
        secret = "OSS_ACCESS_KEY_SECRET" if prefix == "OSS" else "AWS_SECRET_ACCESS_KEY"
        return Credentials(
            hub_token=self.environ.get("HF_TOKEN") or None,
            modelscope_token=self.environ.get("MODELSCOPE_API_TOKEN") or None,
            access_key_id=self.environ.get(f"{prefix}_ACCESS_KEY_ID") or None,
            access_key_secret=self.environ.get(secret) or None,
        )


@contextlib.asynccontextmanager
async def open_origins(installation: Installation, environ: Mapping[str, str]) -> AsyncIterator[Origins]:
    """Raises SettingsError for a mirror that is not a URL."""
    chosen = {name: environ.get(name) or installation.environment.get(name, "") for name in MIRRORS}
    endpoints = Endpoints.from_env({**chosen, "MODELSWARM_REGISTRIES": environ.get("MODELSWARM_REGISTRIES", "")})
    if not endpoints.registries:
        endpoints = replace(endpoints, registries=installation.settings.registries)
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        yield Origins(Resolver(http, endpoints), environ, _docker_auths(environ))


def _docker_auths(environ: Mapping[str, str]) -> Mapping[str, RegistryAuth]:
    """What ``docker login`` wrote into a file; programs that keep credentials elsewhere are not asked."""
    directory = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME", ""), ".docker")
    try:
        return parse_docker_config(Path(directory, "config.json").read_bytes())
    except (OSError, AccessDenied):
        return {}
