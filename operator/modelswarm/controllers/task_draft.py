"""A P2PTask's next status while it is being put together."""

from datetime import datetime

from modelswarm.api.conditions import Condition, TaskCondition, TaskReason, find, is_true, set_condition
from modelswarm.api.conditions import Status as ConditionStatus
from modelswarm.api.p2ptask import P2PTask, P2PTaskStatus, Phase, TaskDisplay


class Draft:
    """A status being put together: plain assignments, then one frozen object."""

    def __init__(self, task: P2PTask, now: datetime) -> None:
        self.values: dict[str, object] = {}
        self.task = task
        self.now = now.replace(microsecond=0)
        self.conditions: tuple[Condition, ...] = task.status.conditions

    def set(self, **values: object) -> None:
        self.values.update(values)

    def condition(self, type_: TaskCondition, status: ConditionStatus, reason: str, message: str) -> None:
        self.conditions = set_condition(
            self.conditions, type_, status, reason, message, generation=self.task.metadata.generation, now=self.now
        )

    def say(self, message: str) -> None:
        """Change what the MESSAGE column says, and no other column."""
        shown = self.values.get("display", self.task.status.display)
        assert isinstance(shown, TaskDisplay)
        self.set(display=shown.model_copy(update={"message": message}))

    @property
    def fell_back(self) -> bool:
        """Read from the condition, because ``spec.suspend`` hides the phase for a while."""
        ready = find(self.conditions, TaskCondition.READY)
        return ready is not None and ready.status == "True" and ready.reason == TaskReason.FELL_BACK

    def standing_phase(self) -> Phase:
        """The phase that follows from Ready and the numbers of the last observation."""
        if self.fell_back:
            return Phase.FELL_BACK
        status = self.task.status
        complete = is_true(self.conditions, TaskCondition.READY) and status.ready >= status.desired
        return Phase.SUCCEEDED if complete else Phase.RUNNING

    def recovered(self) -> None:
        """Degraded is said to be over only where it was ever said."""
        if find(self.conditions, TaskCondition.DEGRADED) is not None:
            self.condition(TaskCondition.DEGRADED, "False", TaskReason.HEALTHY, "Works as asked")

    def build(self) -> P2PTaskStatus:
        generation = self.task.metadata.generation
        return self.task.status.model_copy(
            update={
                "observed_generation": generation,
                "start_time": self.task.status.start_time or self.now,
                **self.values,
                "conditions": self.conditions,
            }
        )
