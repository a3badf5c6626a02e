import pytest

from modelswarm.api.backendruntime import BackendRuntime
from modelswarm.api.meta import Resource
from modelswarm.api.nodecache import NodeCache
from modelswarm.api.openmodel import OpenModel
from modelswarm.api.p2ptask import P2PTask
from modelswarm.api.playground import Playground
from modelswarm.kube.kinds import (
    BACKENDRUNTIME,
    DEPLOYMENT,
    KINDS,
    NODE,
    NODECACHE,
    OPENMODEL,
    P2PTASK,
    PLAYGROUND,
    SECRET,
    Kind,
    kind_of,
)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (OPENMODEL, OpenModel),
        (P2PTASK, P2PTask),
        (NODECACHE, NodeCache),
        (PLAYGROUND, Playground),
        (BACKENDRUNTIME, BackendRuntime),
    ],
)
def test_our_kinds_are_where_their_models_say(kind: Kind, model: type[Resource]) -> None:
    assert kind == Kind(model.GROUP, model.VERSION, model.KIND, model.PLURAL, model.NAMESPACED)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (SECRET.path("ns", "s"), "/api/v1/namespaces/ns/secrets/s"),
        (SECRET.path(), "/api/v1/secrets"),
        (NODE.path(None, "n"), "/api/v1/nodes/n"),
        (DEPLOYMENT.path("ns", "d", "status"), "/apis/apps/v1/namespaces/ns/deployments/d/status"),
        (DEPLOYMENT.path("ns"), "/apis/apps/v1/namespaces/ns/deployments"),
        (OPENMODEL.path("", "m", "status"), "/apis/llmaz.io/v1alpha1/openmodels/m/status"),
        (SECRET.path("a/../b", "?x"), "/api/v1/namespaces/a%2F..%2Fb/secrets/%3Fx"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected


def test_a_namespaced_object_needs_its_namespace() -> None:
    with pytest.raises(ValueError, match="Secret s needs a namespace"):
        SECRET.path(None, "s")


def test_every_kind_is_found_by_its_name_and_others_are_refused() -> None:
    for kind in KINDS:
        assert kind_of({"apiVersion": kind.api_version, "kind": kind.kind}) == kind
    with pytest.raises(ValueError, match="v1 Binding is not a kind"):
        kind_of({"apiVersion": "v1", "kind": "Binding"})
    with pytest.raises(ValueError, match="not a kind"):
        kind_of({"apiVersion": ["v1"], "kind": None})
