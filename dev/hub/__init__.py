"""A stand-in for the Hugging Face Hub and ModelScope, on real sockets.

For tests, demos and benchmarks only: nothing of the product imports it, and it imports nothing of the
product, so that the two cannot share a misunderstanding of the protocol.
"""

from dev.hub.answers import Kind
from dev.hub.counters import Counters, Flight, Tally
from dev.hub.faults import (
    Fault,
    Hang,
    IgnoreRange,
    RangeAsOk,
    RateLimit,
    Refuse,
    Rule,
    ServerError,
    Slow,
    Truncate,
    WrongBytes,
)
from dev.hub.models import make_gguf, make_model
from dev.hub.repository import Blob, Commit, ContentChanged, Repository
from dev.hub.server import Hub
from dev.hub.thread import HubThread

__all__ = [
    "Blob",
    "Commit",
    "ContentChanged",
    "Counters",
    "Fault",
    "Flight",
    "Hang",
    "Hub",
    "HubThread",
    "IgnoreRange",
    "Kind",
    "RangeAsOk",
    "RateLimit",
    "Refuse",
    "Repository",
    "Rule",
    "ServerError",
    "Slow",
    "Tally",
    "Truncate",
    "WrongBytes",
    "make_gguf",
    "make_model",
]
