"""Engine Direct: no engine. The task resolves; the loader (or the kubelet) fetches from the origin."""

from modelswarm.api.conditions import TaskReason
from modelswarm.api.p2ptask import Engine, P2PTask
from modelswarm.backends.engine import EngineState, ManifestReader, Observation
from modelswarm.content.credentials import Credentials


class Direct:
    """Ready as soon as the content is pinned. It is also what a fallen-back task amounts to."""

    name = Engine.DIRECT

    def serves(self, task: P2PTask) -> bool:
        return True

    async def ensure(self, task: P2PTask, manifest: ManifestReader, credentials: Credentials | None) -> Observation:
        return Observation(
            state=EngineState.READY,
            reason=TaskReason.NOTHING_TO_DISTRIBUTE,
            message="Resolved; every consumer reads the origin itself",
            total_bytes=task.status.resolved.bytes if task.status.resolved is not None else 0,
            measured=False,
        )

    async def release(self, task: P2PTask) -> None:
        """Nothing is held."""
