"""The options that commands share, as users of kubectl know them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from modelswarm.kube.contexts import default_namespace
from modelswarm.plugin.complete import complete_object, complete_playground, complete_switchable, complete_task
from modelswarm.plugin.installation import OPERATOR_NAMESPACE


class Format(StrEnum):
    """How the answer is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Kubeconfig = Annotated[Path | None, typer.Option(help="Path of the kubeconfig. Default: $KUBECONFIG, ~/.kube/config.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: its current one.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace. Default: the context's.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="Form of the output.")]
Playground = Annotated[str, typer.Argument(metavar="playground/NAME", autocompletion=complete_playground)]
Object = Annotated[
    str,
    typer.Argument(
        metavar="playground/NAME | p2ptask/NAME | openmodel/NAME | node/NAME", autocompletion=complete_object
    ),
]
Task = Annotated[str, typer.Argument(metavar="p2ptask/NAME", autocompletion=complete_task)]
Switchable = Annotated[
    str, typer.Argument(metavar="p2ptask/NAME | playground/NAME", autocompletion=complete_switchable)
]


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster, and which namespace was named."""

    kubeconfig: Path | None = None
    context: str | None = None
    chosen: str | None = None

    @property
    def namespace(self) -> str:
        """As kubectl would choose it."""
        return self.chosen or default_namespace(self.kubeconfig, self.context)

    @property
    def namespaces(self) -> Sequence[str]:
        """What is tried where objects of all namespaces may not be read."""
        return (self.namespace, OPERATOR_NAMESPACE)
