"""docs/reference/troubleshooting.md, from the remedies that ``kubectl swarm why`` also answers from."""

from collections.abc import Iterator, Mapping

from dev.reference.tables import GENERATED, code, page, table
from modelswarm.api.remedies import NOTHING, REMEDIES, Grade, Remedy, Subject

WHERE: Mapping[Subject, str] = {
    Subject.OPENMODEL: "`kubectl describe openmodel NAME`. It also passes on the reasons of its P2PTask.",
    Subject.PLAYGROUND: "`kubectl describe playground NAME`. `Degraded` also passes on the reasons of its P2PTasks.",
    Subject.P2PTASK: "`kubectl describe p2ptask NAME`. Reasons of its engine and of nodes stand below.",
    Subject.DRAGONFLY: "On a P2PTask. All are about the manager's jobs, which are tried again by themselves.",
    Subject.NODECACHE: "`kubectl describe nodecache NODE`. Failures also stand in `status.failures` of P2PTasks.",
    Subject.LOADER: "In the init container's termination message: `kubectl get pod NAME -o "
    "jsonpath='{.status.initContainerStatuses[0].state.terminated.message}'`. Reasons of the source are those of a "
    "P2PTask.",
}
GRADES: Mapping[Grade, str] = {Grade.FINE: "", Grade.WAIT: "wait", Grade.ACT: "**act**"}

_INTRODUCTION = f"""\
# Troubleshooting

{GENERATED.format(sources="`operator/modelswarm/api/remedies`")}

Look for the object that stands still, then for its condition, then for the reason; the message beside it has names and
numbers. `kubectl swarm why KIND/NAME` does that by itself, down to the deepest cause. "wait": it goes on by itself;
"act": it does not until somebody does something. What conditions and phases mean: [Conditions](conditions.md). What to
do about an alert: [runbooks](../runbooks/README.md)."""


def troubleshooting_page() -> str:
    """The page: one table per object, in the order of its conditions."""
    parts: list[str | Iterator[str]] = [_INTRODUCTION]
    for subject, remedies in REMEDIES.items():
        parts += [f"## {subject}", WHERE[subject], _rows(subject, remedies)]
    return page(*parts)


def _rows(subject: Subject, remedies: Mapping[str, Remedy]) -> Iterator[str]:
    conditions = list(dict.fromkeys(each for remedy in remedies.values() for each in remedy.on))

    def first_condition(item: tuple[str, Remedy]) -> int:
        return min(map(conditions.index, item[1].on), default=len(conditions))

    rows = (
        (
            code(reason),
            ", ".join(each.on),
            GRADES[each.grade],
            each.cause,
            "" if each.remedy == NOTHING else each.remedy,
        )
        for reason, each in sorted(remedies.items(), key=first_condition)
    )
    where = "state" if subject is Subject.NODECACHE else "condition"
    if not conditions:
        return table(("reason", "", "cause", "remedy"), ((row[0], *row[2:]) for row in rows))
    return table(("reason", where, "", "cause", "remedy"), rows)
