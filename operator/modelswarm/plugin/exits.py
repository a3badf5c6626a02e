"""Exit codes, and how every failure becomes one line on standard error and one of them."""

from enum import IntEnum

from modelswarm.errors import CommandError, Forbidden, KubeError, ModelswarmError, NotFound, SettingsError, Unavailable


class Exit(IntEnum):
    """What scripts may rely on."""

    OK = 0
    PROBLEM = 1
    """The command did its work, and what it found needs a person; or a change could not be made."""
    USAGE = 2
    """Wrong arguments, or a file that cannot be read."""
    CLUSTER = 3
    """The cluster cannot be reached, does not accept the log-in, or refuses the request."""
    UNKNOWN = 4
    """The object does not exist."""
    NOT_INSTALLED = 5
    """The cluster does not have modelswarm's kinds."""


def unknown(message: str) -> CommandError:
    """An object that does not exist."""
    return CommandError(message, Exit.UNKNOWN)


def usage(message: str) -> CommandError:
    """Arguments that make no sense."""
    return CommandError(message, Exit.USAGE)


def problem(message: str) -> CommandError:
    """Something that could not be done."""
    return CommandError(message, Exit.PROBLEM)


NOT_INSTALLED = CommandError(
    "modelswarm is not installed in this cluster (it has no P2PTasks); install the chart charts/modelswarm with Helm",
    Exit.NOT_INSTALLED,
)


def failure_of(error: ModelswarmError) -> tuple[str, Exit]:
    """The line and the exit code of an error."""
    match error:
        case CommandError():
            return error.message, Exit(error.code)
        case SettingsError():
            return str(error), Exit.CLUSTER
        case Forbidden(status=401):
            return "the cluster does not accept the credentials of this kubeconfig; log in again", Exit.CLUSTER
        case Forbidden():
            return f"the cluster refuses it: {error.message}", Exit.CLUSTER
        case NotFound():
            return error.message, Exit.UNKNOWN
        case Unavailable():
            return f"cannot reach the cluster: {error.message}", Exit.CLUSTER
        case KubeError():
            return f"the API server refuses it: {error.message}", Exit.PROBLEM
    return str(error), Exit.PROBLEM
