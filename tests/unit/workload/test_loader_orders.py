"""What the operator's settings tell loaders about Dragonfly."""

import pytest

from modelswarm.workload.pod import Dfdaemon
from modelswarm.workload.render import OperatorPart

SOCKET = "/run/dragonfly/dfdaemon.sock"


def variables(part: OperatorPart) -> dict[str, str]:
    daemon = part.dfdaemon
    return {str(each["name"]): str(each["value"]) for each in daemon.envs()} if daemon is not None else {}


@pytest.mark.parametrize(
    ("part", "found"),
    [
        pytest.param(OperatorPart("loader"), {}, id="no Dragonfly, no variables"),
        pytest.param(OperatorPart("loader", turnstile_url="http://t"), {}, id="the turnstile is not Dragonfly's"),
        pytest.param(
            OperatorPart("loader", dragonfly_socket=SOCKET),
            {"MODELSWARM_DFDAEMON_SOCKET": SOCKET},
            id="what is not set is not there",
        ),
        pytest.param(
            OperatorPart("loader", dragonfly_socket=SOCKET, dragonfly_allow_gated=True),
            {
                "MODELSWARM_DFDAEMON_SOCKET": SOCKET,
                "MODELSWARM_DRAGONFLY_ALLOW_GATED": "true",
            },
            id="all of it",
        ),
    ],
)
def test_what_loaders_are_told(part: OperatorPart, found: dict[str, str]) -> None:
    assert variables(part) == found


def test_nothing_is_allowed_unless_it_is_said() -> None:
    assert not Dfdaemon(SOCKET).allow_gated
