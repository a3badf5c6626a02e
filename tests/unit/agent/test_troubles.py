"""What stands in a NodeCache when something is wrong."""

from pathlib import Path

import pytest

from modelswarm.agent.troubles import failure_of, of_error
from modelswarm.agent.wanted import Claim, SecretRef, Wanted
from modelswarm.api.nodecache import ModelState
from modelswarm.api.openmodel import HubName
from modelswarm.content.source import HubSource
from modelswarm.errors import (
    AccessDenied,
    AgentError,
    DiskFull,
    Forbidden,
    InsufficientCapacity,
    ModelswarmError,
    PathOutsideRoot,
    PeerRefused,
    PeerUnavailable,
    RateLimited,
    SourceChanged,
    SourceNotFound,
    SourceUnavailable,
    SwarmError,
    Unavailable,
)


def wanted(secret: SecretRef | None = None, kind: str = "BaseModel") -> Wanted:
    claim = Claim(kind=kind, namespace="team", name="llama", uid="1", secret=secret, path=Path("/mnt/models/llama"))
    source = HubSource(HubName.HUGGINGFACE, "org/model", "main", None, None, None)
    return Wanted("model:x", None, "x" * 64, "org/model", "main", source, (claim,))


@pytest.mark.parametrize(
    ("error", "state", "reason", "passing"),
    [
        pytest.param(Unavailable("no answer"), "Waiting", "ApiServerUnavailable", True, id="the API server is away"),
        pytest.param(Forbidden("no"), "Waiting", "ApiServerForbidden", False, id="the API server refuses"),
        pytest.param(PeerUnavailable("x", url="http://n"), "Waiting", "PeerUnavailable", True, id="a silent peer"),
        pytest.param(PeerRefused("x"), "Waiting", "PeerRefused", True, id="another Secret"),
        pytest.param(SwarmError("x"), "Waiting", "SwarmFailed", True, id="the swarm"),
        pytest.param(RateLimited("slower"), "Waiting", "RateLimited", True, id="patience is asked for"),
        pytest.param(SourceNotFound("gone"), "Failed", "SourceNotFound", False, id="no such repository"),
        pytest.param(SourceUnavailable("down"), "Failed", "SourceUnavailable", True, id="an origin that is down"),
        pytest.param(SourceChanged("other"), "Failed", "SourceChanged", False, id="other bytes than pinned"),
        pytest.param(AgentError("CredentialNotFound", "x"), "Failed", "CredentialNotFound", False, id="no Secret"),
        pytest.param(
            InsufficientCapacity("need 2Gi, free 1Gi", need=2, free=1),
            "Failed",
            "InsufficientCapacity",
            False,
            id="no room",
        ),
        pytest.param(
            DiskFull(),
            "Failed",
            "InsufficientCapacity",
            True,
            id="a disk that is full in the middle of it",
        ),
        pytest.param(PathOutsideRoot("/etc"), "Failed", "PathOutsideRoot", False, id="a path outside"),
        pytest.param(RuntimeError("secret detail"), "Failed", "InternalError", True, id="a defect"),
    ],
)
def test_every_error_has_a_reason_and_a_message(error: Exception, state: str, reason: str, passing: bool) -> None:
    trouble = of_error(error, wanted())
    assert (trouble.state, trouble.reason, trouble.passing) == (ModelState(state), reason, passing)
    assert trouble.message
    assert "secret detail" not in trouble.message
    if isinstance(error, ModelswarmError):
        assert failure_of(error).reason


@pytest.mark.parametrize(
    ("secret", "kind", "words"),
    [
        pytest.param(
            SecretRef("team", "mine", "token"), "BaseModel", "Secret team/mine (key token)", id="the Secret it names"
        ),
        pytest.param(None, "BaseModel", "name that in storage.key of BaseModel team/llama", id="no Secret yet"),
        pytest.param(None, "P2PTask", "as the origin says", id="a task's own words stay"),
    ],
)
def test_a_denial_names_the_secret_of_whoever_wants_it(secret: SecretRef | None, kind: str, words: str) -> None:
    model = wanted(secret, kind)
    assert words in of_error(AccessDenied("as the origin says"), model).message
    assert words in of_error(AgentError("AccessDenied", "as the origin says"), model).message
