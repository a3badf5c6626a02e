"""What an image comes to: the layers of each platform, the URL that nodes know it by, how its registry is logged in to.

The registry is asked here only when a plan is made or a job submitted, and a plan is remembered by its digest: pulls of
manifests count against the limits of public registries.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from modelswarm.api.p2ptask import P2PTask
from modelswarm.backends.dragonfly.reasons import DragonflyError, DragonflyReason
from modelswarm.backends.dragonfly.settings import DOCKER_HUB_MIRROR, DragonflySettings
from modelswarm.content.credentials import RegistryAuth, auth_for
from modelswarm.content.endpoints import Endpoints
from modelswarm.content.image import DOCKER_HUB, ImageReference, parse_reference
from modelswarm.content.manifest import Manifest
from modelswarm.content.registry_client import parse_challenges
from modelswarm.errors import ContentError, PlatformNotFound

ImageResolver = Callable[[str, Sequence[str], Mapping[str, RegistryAuth]], Awaitable[Manifest]]
"""``Resolver.resolve_image``. Raises ``ContentError``."""
AuthReader = Callable[[P2PTask], Awaitable[Mapping[str, RegistryAuth]]]
"""Reads the pull secrets of a task. Raises ``TaskBlocked``."""
PlatformLister = Callable[[], Awaitable[Sequence[str]]]
"""The platforms of the cluster's nodes; empty where they are not known."""

LIKELY_PLATFORM = "linux/amd64"
"""Where nothing says better. Without one the manager takes the platform that it runs on itself."""
LOGIN_SECONDS = 600.0
"""How long a registry's kind of log-in is remembered."""
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class Login:
    """How the manager is to prove itself to the registry: a name and password, or a header for all requests."""

    username: str | None = None
    password: str | None = None
    headers: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"Login({'***' if self.username or self.headers else ''})"


NOBODY = Login()


class Images:
    """For use within one event loop."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        endpoints: Endpoints,
        settings: DragonflySettings,
        resolve: ImageResolver,
        auths: AuthReader,
        node_platforms: PlatformLister,
    ) -> None:
        self._http = http
        self._endpoints = endpoints
        self._settings = settings
        self._resolve = resolve
        self._auths = auths
        self._node_platforms = node_platforms
        self._basic: dict[str, tuple[float, bool]] = {}

    async def platforms(self, task: P2PTask, before: Sequence[str]) -> tuple[str, ...]:
        """What the task names; else what the settings name; else those of the nodes.

        Once brought, always brought: nodes of a kind that come and go must not move the plan each time.
        """
        assert task.spec.image is not None
        named = task.spec.image.platforms or self._settings.platforms
        found = named or tuple(await self._node_platforms()) or tuple(before) or (LIKELY_PLATFORM,)
        return tuple(sorted({*found, *(() if named else before)}))[:16]

    def base_url(self, image: ImageReference) -> str:
        """As the nodes' mirrors name the registry: in URL mode the ids depend on it."""
        override = self._settings.image_hosts.get(image.registry)
        if override is None and image.registry == DOCKER_HUB:
            override = DOCKER_HUB_MIRROR
        return override or self._endpoints.registries.get(image.registry) or f"https://{image.registry}"

    async def manifests(self, task: P2PTask, platforms: Sequence[str]) -> dict[str, Manifest]:
        """The parts of the pinned image by platform. One that only the nodes ask for may be missing.

        Raises ``DragonflyError``, ``TaskBlocked``.
        """
        image = self.pinned(task)
        assert task.spec.image is not None
        auths = await self._auths(task)
        found: dict[str, Manifest] = {}
        missing: PlatformNotFound | None = None
        for platform in platforms:
            try:
                found[platform] = await self._resolve(image.canonical, (platform,), auths)
            except PlatformNotFound as error:
                missing = error
            except ContentError as error:
                raise DragonflyError(DragonflyReason.CONTENT_UNREADABLE, error.message) from error
        if missing is not None and (not found or task.spec.image.platforms):
            raise DragonflyError(DragonflyReason.PLATFORM_MISMATCH, missing.message)
        return found

    def pinned(self, task: P2PTask) -> ImageReference:
        """The image at the digest that the task was pinned to, however its tag has moved since."""
        assert task.spec.image is not None
        assert task.status.resolved is not None
        image = parse_reference(task.spec.image.reference)
        return ImageReference(image.registry, image.repository, None, task.status.resolved.digest)

    async def login(self, task: P2PTask) -> Login:
        """For the manager. A registry that only knows Basic gets a header: the manager would send the password for
        manifests and nothing for layers. Raises ``TaskBlocked``, ``DragonflyError``."""
        image = self.pinned(task)
        auth = auth_for(image, await self._auths(task))
        if auth is None or not auth.username:
            return NOBODY
        if await self._wants_basic(image):
            pair = base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
            return Login(headers={"Authorization": f"Basic {pair}"})
        return Login(auth.username, auth.password)

    async def _wants_basic(self, image: ImageReference) -> bool:
        base, now = self._endpoints.registry(image.registry), asyncio.get_running_loop().time()
        until, basic = self._basic.get(base, (0.0, False))
        if now < until:
            return basic
        try:
            response = await self._http.get(f"{base}/v2/", timeout=_TIMEOUT, follow_redirects=False)
        except httpx.HTTPError as error:
            message = f"{image.registry} cannot be reached ({type(error).__name__})"
            raise DragonflyError(DragonflyReason.CONTENT_UNREADABLE, message) from error
        schemes = parse_challenges(", ".join(response.headers.get_list("www-authenticate")))
        basic = "basic" in schemes and "bearer" not in schemes
        self._basic[base] = (now + LOGIN_SECONDS, basic)
        return basic
