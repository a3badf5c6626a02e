"""What the tests on a real control plane are written with: objects, requests, waiting, pods that get ready, valves."""

from tests.integration.support.api import Api, ApiFailed, Manifest
from tests.integration.support.objects import backend_runtime, open_model, p2p_task, playground
from tests.integration.support.operators import Operators
from tests.integration.support.scene import Scene, kubectl_json
from tests.integration.support.valve import Valve
from tests.integration.support.waiting import COLLECTED, eventually, throughout

__all__ = [
    "COLLECTED",
    "Api",
    "ApiFailed",
    "Manifest",
    "Operators",
    "Scene",
    "Valve",
    "backend_runtime",
    "eventually",
    "kubectl_json",
    "open_model",
    "p2p_task",
    "playground",
    "throughout",
]
