"""What the settings make of the operator's part of a Deployment."""

from typing import Any

import pytest

from modelswarm.controllers.playground import PlaygroundController
from tests.unit.controllers.fake_kube import FakeKube, world

MANAGER: dict[str, Any] = {
    "dragonfly_manager_url": "http://manager:8080",
    "dragonfly_tag": "models",
    "dragonfly_application": "swarm",
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({}, (None, "", ""), id="no Dragonfly"),
        pytest.param(MANAGER, ("/var/run/dragonfly/dfdaemon.sock", "models", "swarm"), id="Dragonfly"),
        pytest.param({**MANAGER, "distribution": False}, (None, "", ""), id="nothing is distributed"),
        pytest.param(
            {**MANAGER, "no_hostpath_namespaces": ("team",)}, (None, "models", "swarm"), id="its socket is out of reach"
        ),
    ],
)
def test_loaders_are_told_of_dfdaemon_where_dragonfly_is_configured(
    settings: dict[str, Any], expected: tuple[str | None, str, str]
) -> None:
    part = PlaygroundController(world(FakeKube(), **settings))._operator_part("team")
    assert (part.dragonfly_socket, part.dragonfly_tag, part.dragonfly_application) == expected
