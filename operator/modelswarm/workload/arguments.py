"""Template variables in the arguments of a recommended configuration."""

import re
from collections.abc import Mapping, Sequence

from modelswarm.errors import RenderError, RenderReason

MODEL_PATH = "ModelPath"
MODEL_NAME = "ModelName"
DRAFT_MODEL_PATH = "DraftModelPath"

_VARIABLE = re.compile(r"\{\{[ \t\r\n\f]*\.([A-Za-z0-9_]+)[ \t\r\n\f]*\}\}")


def render_arguments(arguments: Sequence[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """The arguments with ``{{ .Variable }}`` replaced, in one pass: a value is never looked at again.

    What does not look exactly like a variable (``{{ ModelPath }}`` without the dot) stays as it is, as in llmaz.
    Raises ``RenderError`` (BadTemplateVariable) for a variable that is unknown or has no value here.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if not variables.get(name):
            known = ", ".join(sorted(key for key, text in variables.items() if text)) or "none"
            raise RenderError(
                RenderReason.BAD_TEMPLATE_VARIABLE,
                f"the argument {match.string!r} uses the variable {name}, which has no value for this Playground; "
                f"variables with a value: {known}",
            )
        return variables[name]

    return tuple(_VARIABLE.sub(value, argument) for argument in arguments)
