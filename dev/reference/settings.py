"""docs/reference/settings.md: variables, flags and defaults of the programs."""

import argparse
import re
from collections.abc import Iterator, Mapping

from dev.reference.loader import VARIABLES
from dev.reference.tables import GENERATED, code, page, table
from modelswarm import settings as operator
from modelswarm.agent import settings as agent
from modelswarm.loader.command import build_parser

EVERYWHERE: Mapping[str, str] = {
    "HF_ENDPOINT": "a mirror of Hugging Face",
    "MODELSCOPE_ENDPOINT": "a mirror of ModelScope; `MODELSCOPE_DOMAIN` (a host) is understood, too",
    "AWS_ENDPOINT_URL_S3": "another S3; else `AWS_ENDPOINT_URL`",
    "AWS_REGION": "region of S3; else `AWS_DEFAULT_REGION`",
    "STORAGE_EMULATOR_HOST": "another Google Cloud Storage",
    "OSS_ENDPOINT_URL": "another OSS",
    "HTTPS_PROXY": "a proxy on the way to the origin; also `HTTP_PROXY`, `ALL_PROXY`, and `NO_PROXY`",
    "SSL_CERT_FILE": "certificate authorities; also `SSL_CERT_DIR`",
}
"""What operator, agents and loader have in common."""

_INTRODUCTION = f"""\
# Settings

{GENERATED.format(sources="the programs' settings")}

An empty variable is one that is not set. What cannot work is refused at the start, in one line that names the variable.
`--help` of each program prints the same. In the chart: [values](values.md); `operator.settings` takes any flag of the
operator that no other value sets."""
_OPERATOR = "Each setting is a variable and a flag; the flag wins. Times are seconds."
_AGENT = """\
Variables only; up to `MODEL_DIR` they are those of OME's agent, but for `P2P_ORIGIN_NODES`. What it does with them:
[agent](agent.md)."""
_LOADER = """\
The operator sets what it needs; variables of the Playground or BackendRuntime come through to the loader as well. What
it does with them: [loader](loader.md)."""
_OPTIONS = "Options of `modelswarm load`, for images and pods of your own:"
_DEFAULT = re.compile(r"default (\w+)\)")
_ASIDE = re.compile(r" \((?:env|default)[^)]*\)s?\)?")
_EVERYWHERE = "Read by operator, agents and loader."


def settings_page() -> str:
    """The page."""
    return page(
        _INTRODUCTION,
        "## modelswarm operator",
        _OPERATOR,
        _operator_rows(),
        "## modelswarm agent",
        _AGENT,
        _agent_rows(),
        "## modelswarm load",
        _LOADER,
        _loader_rows(),
        _OPTIONS,
        _option_rows(),
        "## Mirrors, proxies, certificates",
        _EVERYWHERE,
        table(("variable", "meaning"), ((code(name), text) for name, text in EVERYWHERE.items())),
    )


def _operator_rows() -> Iterator[str]:
    rows = (
        (
            code(f"--{name.replace('_', '-')}"),
            code(operator.PREFIX + name.upper()),
            _default(operator.shown(field.default)),
            field.description or "",
        )
        for name, field in operator.OperatorSettings.model_fields.items()
    )
    return table(("flag", "variable", "default", "meaning"), rows)


def _agent_rows() -> Iterator[str]:
    rows = (
        (
            ", ".join(map(code, agent.variables_of(field))),
            "required" if field.is_required() else _default(agent.shown(field.default)),
            field.description or "",
        )
        for field in agent.AgentSettings.model_fields.values()
    )
    return table(("variable", "default", "meaning"), rows)


def _loader_rows() -> Iterator[str]:
    rows = (
        (code(name), default if default.startswith("required") else code(default), meaning)
        for name, (default, meaning) in VARIABLES.items()
    )
    return table(("variable", "default", "meaning"), rows)


def _option_rows() -> Iterator[str]:
    # argparse has no public way to ask a parser for its options.
    options = [each for each in build_parser({})._actions if not isinstance(each, argparse._HelpAction)]
    rows = (
        (code(" ".join([*each.option_strings, *_placeholder(each)])), code(_of_option(each)), _meaning(each.help or ""))
        for each in options
    )
    return table(("option", "default", "meaning"), rows)


def _placeholder(option: argparse.Action) -> list[str]:
    if option.nargs == 0:
        return []
    return ["N" if option.type in (int, float) else "PATH"]


def _of_option(option: argparse.Action) -> str:
    """Where a variable decides, the help says what it decides without one."""
    if option.nargs == 0:
        return ""
    if option.default is None:
        return found[1] if (found := _DEFAULT.search(option.help or "")) else ""
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def _meaning(text: str) -> str:
    """Without the default and the variable, which stand elsewhere on the page."""
    return _ASIDE.sub("", text)


def _default(shown: str) -> str:
    return "" if shown in ("none", "") else code(shown)
