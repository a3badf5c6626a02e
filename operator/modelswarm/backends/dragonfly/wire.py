"""gRPC to the schedulers and seed peers: two read-only questions, and nothing else. The only module that knows gRPC.

The libraries are loaded with the first question: an operator that was given no scheduler never pays for them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from grpc import aio

SECONDS = 3.0
"""For one answer. Schedulers answer from memory, seed peers from a local database: milliseconds."""
_SEED = 1
"""The host type of a seed peer (``super``); ordinary daemons are 0."""
_OPTIONS = (("grpc.enable_http_proxy", 0),)
"""These are addresses within the cluster, whatever proxy the environment names for the hub."""


class Unanswered(Exception):
    """No usable answer: nobody there, another version, TLS where there should be none."""


class Wire(Protocol):
    """What ``Seeds`` asks for. Every failure is ``Unanswered``."""

    async def seeds(self, scheduler: str) -> Sequence[str]:
        """``host:port`` of the seed peers that announce themselves to the scheduler at ``host:port``."""

    async def holds(self, seed: str, task_id: str) -> bool:
        """Whether this seed peer has every byte of the task."""


class GrpcWire:
    """Plain gRPC, as Dragonfly's own parts speak by default. For use within one event loop."""

    def __init__(self) -> None:
        self._channels: dict[str, aio.Channel] = {}

    async def seeds(self, scheduler: str) -> Sequence[str]:
        try:
            from dragonfly_api.scheduler_pb2 import ListHostsRequest, ListHostsResponse
            from google.protobuf.message import DecodeError
        except ImportError as error:
            raise _not_installed(error) from error
        request = ListHostsRequest(type=_SEED).SerializeToString()
        answer = await self._ask(scheduler, "/scheduler.v2.Scheduler/ListHosts", request)
        try:
            hosts = ListHostsResponse.FromString(answer or b"").hosts
        except DecodeError:
            raise Unanswered(f"{scheduler}: not a list of hosts") from None
        return tuple(sorted({_address(host.ip, host.port) for host in hosts if host.type == _SEED}))

    async def holds(self, seed: str, task_id: str) -> bool:
        try:
            from dragonfly_api.dfdaemon_pb2 import StatLocalTaskRequest, StatLocalTaskResponse
            from google.protobuf.message import DecodeError
        except ImportError as error:
            raise _not_installed(error) from error
        request = StatLocalTaskRequest(task_id=task_id).SerializeToString()
        answer = await self._ask(seed, "/dfdaemon.v2.DfdaemonUpload/StatLocalTask", request)
        try:
            return StatLocalTaskResponse.FromString(answer or b"").HasField("finished_at")
        except DecodeError:
            raise Unanswered(f"{seed}: not a task") from None

    async def close(self) -> None:
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    async def _ask(self, address: str, method: str, request: bytes) -> bytes | None:
        """The answer's bytes; None for "not found"."""
        try:
            from grpc import StatusCode, aio
        except ImportError as error:
            raise _not_installed(error) from error
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = aio.insecure_channel(address, options=_OPTIONS)
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        try:
            return await call(request, timeout=SECONDS)
        except aio.AioRpcError as error:
            if error.code() is StatusCode.NOT_FOUND:
                return None
            raise Unanswered(f"{address}: {error.code().name}") from error


def _not_installed(error: ImportError) -> Unanswered:
    return Unanswered(f"{error.name} is not installed; it comes with the extra 'operator'")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
