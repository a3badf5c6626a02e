"""What the cluster says about itself, beside our own kinds: llmaz's global config, and whether llmaz itself runs here.

Both are looked at every few seconds by name (two small reads), because a watch would need the right to see all
ConfigMaps and Leases of the namespace.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import yaml

from modelswarm.api.labels import GLOBAL_CONFIG, GLOBAL_CONFIG_KEY
from modelswarm.api.meta import JsonObject
from modelswarm.errors import KubeError, NotFound
from modelswarm.kube.kinds import CONFIGMAP, LEASE
from modelswarm.kube.port import KubePort

LLMAZ_LEASE = "fbb36db9.llmaz.io"
"""The leader election id of llmaz's controller manager."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GlobalConfig:
    """``llmaz-global-config``. Both keys are optional here (llmaz needs the second; its own chart leaves it out)."""

    scheduler_name: str | None = None
    loader_image: str | None = None
    problem: str | None = None
    """What is wrong with the ConfigMap; the last readable values stay in force."""


@dataclass(slots=True)
class ClusterState:
    """The last look. ``llmaz_holder`` is the identity of a living llmaz controller manager, or None."""

    config: GlobalConfig = GlobalConfig()
    llmaz_holder: str | None = None


def parse_global_config(config_map: JsonObject | None, before: GlobalConfig) -> GlobalConfig:
    """The values of a ConfigMap; ``before`` is kept (with ``problem`` set) where it cannot be read."""
    data = config_map.get("data") if config_map is not None else None
    text = data.get(GLOBAL_CONFIG_KEY) if isinstance(data, dict) else None
    if text is None:
        return GlobalConfig()
    try:
        values = yaml.safe_load(str(text)) or {}
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2024-13-13
        values = None
    if not isinstance(values, dict):
        problem = (
            f"ConfigMap {GLOBAL_CONFIG}: key {GLOBAL_CONFIG_KEY} is not a YAML mapping; using the last good values"
        )
        return GlobalConfig(before.scheduler_name, before.loader_image, problem)

    def text_of(key: str) -> str | None:
        value = values.get(key)
        return str(value).strip() or None if value is not None else None

    return GlobalConfig(text_of("scheduler-name"), text_of("init-container-image"))


def living_holder(lease: JsonObject | None, now: datetime) -> str | None:
    """Who holds the Lease now, if it has been renewed within its duration."""
    spec = lease.get("spec") if lease is not None else None
    if not isinstance(spec, dict) or not spec.get("holderIdentity") or not spec.get("renewTime"):
        return None
    renewed = datetime.fromisoformat(str(spec["renewTime"]).replace("Z", "+00:00")).astimezone(UTC)
    duration = spec.get("leaseDurationSeconds")
    alive = (now - renewed).total_seconds() <= (duration if isinstance(duration, int) else 15)
    return str(spec["holderIdentity"]) if alive else None


class ClusterWatch:
    """Looks every ``seconds`` and calls ``changed`` when something is different."""

    def __init__(
        self,
        kube: KubePort,
        state: ClusterState,
        *,
        namespace: str,
        llmaz_namespace: str,
        changed: Callable[[], None],
        clock: Callable[[], datetime],
        seconds: float = 5.0,
    ) -> None:
        self._kube = kube
        self._state = state
        self._namespace = namespace
        self._llmaz_namespace = llmaz_namespace
        self._changed = changed
        self._clock = clock
        self._seconds = seconds

    async def look(self) -> bool:
        """Look once; returns whether something changed. What cannot be read now stays as it was."""
        before = (self._state.config, self._state.llmaz_holder)
        try:
            self._state.config = parse_global_config(await self._get_config(), self._state.config)
        except KubeError as error:
            logger.warning("cannot read ConfigMap %s: %s", GLOBAL_CONFIG, error)
        try:
            self._state.llmaz_holder = living_holder(await self._get_lease(), self._clock())
        except KubeError as error:
            logger.warning("cannot see whether llmaz's own controllers run: %s", error)
        if self._state.config.problem and self._state.config.problem != before[0].problem:
            logger.warning("%s", self._state.config.problem)
        return before != (self._state.config, self._state.llmaz_holder)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            if await self.look():
                self._changed()

    async def _get_config(self) -> JsonObject | None:
        try:
            return await self._kube.get(CONFIGMAP, GLOBAL_CONFIG, self._namespace)
        except NotFound:
            return None

    async def _get_lease(self) -> JsonObject | None:
        try:
            return await self._kube.get(LEASE, LLMAZ_LEASE, self._llmaz_namespace)
        except NotFound:
            return None
